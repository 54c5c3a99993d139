package flannel

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"tulle/ip"
	"tulle/subnet"
)

// maxAttrs is the largest lease value that is decoded, in bytes; real ones have a few hundred.
const maxAttrs = 64 << 10

// The fields of a lease value, in the order in which they are written. All but the last are flannel's.
const (
	fieldPublicIP      = "PublicIP"
	fieldPublicIPv6    = "PublicIPv6"
	fieldBackendType   = "BackendType"
	fieldBackendData   = "BackendData"
	fieldBackendV6Data = "BackendV6Data"
	fieldTulle         = "Tulle"
)

// owner is what Tulle adds to a lease value; flannel ignores it. It is read without this type (see readOwner), by the names below.
type owner struct {
	Node     string
	Instance string   `json:",omitempty"`
	Hardware []string `json:",omitempty"`
	Probe    *probe   `json:",omitempty"`
}

const (
	ownerNode     = "Node"
	ownerInstance = "Instance"
	ownerHardware = "Hardware"
	ownerProbe    = "Probe"
)

// Attrs are a lease's attributes, which JSON has in the form of a lease's value.
type Attrs subnet.Attrs

// EncodeLease returns the value of a lease's key.
func EncodeLease(s subnet.Subnets, a subnet.Attrs) (string, error) {
	value, err := json.Marshal(Attrs(a))
	if err != nil {
		return "", fmt.Errorf("encode lease %s: %w", subnet.KeyOf(s), err)
	}
	return string(value), nil
}

// DecodeLease reads what follows LeaseDir in a lease's key, and its value. What the store alone knows of the lease is not set.
func DecodeLease(key string, value []byte) (l subnet.Lease, err error) {
	if l.Subnets, err = subnet.ParseKey(key); err != nil {
		return subnet.Lease{}, err
	}
	if err := (*Attrs)(&l.Attrs).UnmarshalJSON(value); err != nil {
		return subnet.Lease{}, err
	}
	return l, nil
}

// MarshalJSON writes the value of a lease key: flannel's fields as flannel writes them, Tulle's own, then Extra by name.
func (a Attrs) MarshalJSON() ([]byte, error) {
	var w objectWriter
	v4 := a.Public.V4
	if !v4.IsValid() {
		v4 = netip.IPv4Unspecified() // flannel takes null for a broken value
	}
	w.text(fieldPublicIP, v4.String())
	if a.Public.V6.IsValid() {
		w.text(fieldPublicIPv6, a.Public.V6.String())
	} else {
		w.member(fieldPublicIPv6, nil)
	}
	if a.BackendType != "" {
		w.text(fieldBackendType, a.BackendType)
	}
	if len(a.BackendData.V4) > 0 {
		w.member(fieldBackendData, a.BackendData.V4)
	}
	if len(a.BackendData.V6) > 0 {
		w.member(fieldBackendV6Data, a.BackendData.V6)
	}
	if a.Node != "" {
		w.member(fieldTulle, owner{a.Node, a.Instance, a.Hardware, encodeProbe(a.Probe)})
	}
	for _, name := range slices.Sorted(maps.Keys(a.Extra)) {
		if !slices.ContainsFunc(attrsFields(), func(known string) bool { return strings.EqualFold(known, name) }) {
			w.member(name, a.Extra[name])
		}
	}
	return w.finish()
}

// UnmarshalJSON reads the value of a lease key. Field names match in any case; 0.0.0.0 and :: stand for no address.
func (a *Attrs) UnmarshalJSON(data []byte) error {
	if len(data) > maxAttrs {
		return fmt.Errorf("lease value has %d bytes, more than %d", len(data), maxAttrs)
	}
	members, err := readObject(data)
	if err != nil {
		return fmt.Errorf("decode lease value: %w", err)
	}
	*a = Attrs{}
	if raw := members.take(fieldPublicIP); raw != "" {
		if a.Public.V4, err = parsePublic(ip.IPv4, fieldPublicIP, raw); err != nil {
			return err
		}
	}
	if raw := members.take(fieldPublicIPv6); present(raw) {
		if a.Public.V6, err = parsePublic(ip.IPv6, fieldPublicIPv6, raw); err != nil {
			return err
		}
	}
	if a.BackendType, err = members.text(fieldBackendType); err != nil {
		return err
	}
	if raw := members.take(fieldBackendData); present(raw) {
		a.BackendData.V4 = json.RawMessage(raw)
	}
	if raw := members.take(fieldBackendV6Data); present(raw) {
		a.BackendData.V6 = json.RawMessage(raw)
	}
	if raw := members.take(fieldTulle); present(raw) {
		if err = a.readOwner(raw); err != nil {
			return fmt.Errorf("decode %s %s: %w", fieldTulle, shorten(raw), err)
		}
	}
	for _, m := range members {
		if a.Extra == nil {
			a.Extra = make(map[string]json.RawMessage, len(members))
		}
		a.Extra[strings.Clone(m.name)] = json.RawMessage(m.value)
	}
	return nil
}

func (a *Attrs) readOwner(raw string) (err error) {
	if raw[0] != '{' {
		return errors.New("want a JSON object")
	}
	members := splitObject(raw)
	if a.Node, err = members.text(ownerNode); err != nil {
		return err
	}
	if a.Instance, err = members.text(ownerInstance); err != nil {
		return err
	}
	// Ids are shown and logged wherever hosts are named, and nobody expects more of them than of a host name.
	if a.Node != "" {
		if err := subnet.CheckNodeID(a.Node); err != nil {
			return err
		}
	}
	if a.Instance != "" && subnet.CheckNodeID(a.Instance) != nil {
		return fmt.Errorf("%s %.64q is no id", ownerInstance, a.Instance)
	}
	a.Probe = readProbe(members.take(ownerProbe))
	a.Hardware, err = members.texts(ownerHardware)
	return err
}

func attrsFields() []string {
	return []string{fieldPublicIP, fieldPublicIPv6, fieldBackendType, fieldBackendData, fieldBackendV6Data, fieldTulle}
}

func parsePublic(f ip.Family, field string, raw string) (netip.Addr, error) {
	text, err := decodeText(raw)
	addr, parseErr := netip.ParseAddr(text)
	if err != nil || parseErr != nil || addr.BitLen() != f.Bits() || addr.Zone() != "" || addr.Is4In6() {
		return netip.Addr{}, fmt.Errorf("%s %s is not an %s address", field, shorten(raw), f)
	}
	if addr.IsUnspecified() {
		return netip.Addr{}, nil
	}
	return addr, nil
}

// objectWriter builds a JSON object of one or more members; the first error sticks.
type objectWriter struct {
	buf bytes.Buffer
	err error
}

// text adds a member that is a string.
func (w *objectWriter) text(name, value string) {
	w.name(name)
	w.quote(value)
}

func (w *objectWriter) member(name string, value any) {
	w.name(name)
	w.encode(name, value)
}

func (w *objectWriter) name(name string) {
	if w.buf.Len() == 0 {
		w.buf.WriteByte('{')
	} else {
		w.buf.WriteByte(',')
	}
	w.quote(name)
	w.buf.WriteByte(':')
}

// quote writes what encoding/json does, which is the text itself for nearly all names and addresses.
func (w *objectWriter) quote(text string) {
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune(`"\<>&`, r) }) {
		w.encode("text", text)
		return
	}
	w.buf.WriteByte('"')
	w.buf.WriteString(text)
	w.buf.WriteByte('"')
}

func (w *objectWriter) encode(name string, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		w.err = cmp.Or(w.err, fmt.Errorf("encode %s: %w", name, err))
	}
	w.buf.Write(text)
}

func (w *objectWriter) finish() ([]byte, error) {
	if w.err != nil {
		return nil, w.err
	}
	w.buf.WriteByte('}')
	return w.buf.Bytes(), nil
}
