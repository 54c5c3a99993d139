package bugreport

import (
	"bytes"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
)

var (
	// credentials are those of a URL (RFC 3986, section 3.2.1).
	credentials = regexp.MustCompile(`(://)[^/@\s"']+@`)
	// secret is a member of JSON that is none to tell, as flannel's configuration of IPsec has one.
	secret = regexp.MustCompile(`(?i)("[a-z_]*(psk|password|passphrase|secret|token|privatekey)"\s*:\s*)"(?:[^"\\]|\\.)*"`)
	// address matches whatever may be one; netip decides. Of IPv4 it leaves the port and the length after it.
	address = regexp.MustCompile(`([0-9A-Fa-f]{0,4}:){2,7}[0-9]{1,3}(\.[0-9]{1,3}){3}|([0-9A-Fa-f]{0,4}:){2,8}[0-9A-Fa-f]{0,4}|[0-9]{1,3}(\.[0-9]{1,3}){3}`)
)

// HideCredentials takes names and passwords out of URLs, and what goes by such a name out of JSON. Nothing that Tulle writes has any; what others have put into the store may.
func HideCredentials(text []byte) []byte {
	return secret.ReplaceAll(credentials.ReplaceAll(text, []byte("${1}")), []byte(`${1}"hidden"`))
}

// Mask gives addresses other names, the same one always the same.
type Mask struct {
	inside []netip.Prefix
	names  map[netip.Addr]string
}

// NewMask returns one that leaves the addresses of the network as they are, and those that mean the same everywhere: loopback and unspecified ones.
func NewMask(inside []netip.Prefix) *Mask { return &Mask{inside, map[netip.Addr]string{}} }

// Hide replaces addresses.
func (m *Mask) Hide(text []byte) []byte {
	return address.ReplaceAllFunc(text, func(match []byte) []byte {
		if addr, err := netip.ParseAddr(string(match)); err == nil {
			return m.name(match, addr.Unmap())
		}
		// A colon after an address is the sentence's.
		before, colon := bytes.CutSuffix(match, []byte(":"))
		if addr, err := netip.ParseAddr(string(before)); colon && err == nil {
			return append(m.name(before, addr.Unmap()), ':')
		}
		return match
	})
}

// name is what stands for an address.
func (m *Mask) name(text []byte, addr netip.Addr) []byte {
	if addr.IsLoopback() || addr.IsUnspecified() || slices.ContainsFunc(m.inside, func(p netip.Prefix) bool { return p.Contains(addr) }) {
		return bytes.Clone(text)
	}
	name, known := m.names[addr]
	if !known {
		kind := "ipv6"
		if addr.Is4() {
			kind = "ipv4"
		}
		name = fmt.Sprintf("%s-%d", kind, len(m.names)+1)
		m.names[addr] = name
	}
	return []byte(name)
}
