package flannel

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"tulle/internal/atomicfile"
	"tulle/internal/regularfile"
	"tulle/ip"
	"tulle/subnet"
)

// Env is the content of the subnet file, from which Docker and CNI plugins configure their bridges.
type Env struct {
	Network ip.Dual[netip.Prefix]
	More    []netip.Prefix // networks that the file lists besides, which containers reach too; never written
	Subnets subnet.Subnets // in the file as the first address after the network address, the bridge's own
	MTU     int            // of containers, in bytes
	IPMasq  bool           // traffic that leaves Network is masqueraded by the daemon
}

// maxEnv bounds the subnet file, in bytes; flannel's and ours have six lines.
const maxEnv = 64 << 10

const (
	envMTU    = "FLANNEL_MTU"
	envIPMasq = "FLANNEL_IPMASQ"
)

// envKeys are the names of one family's lines.
type envKeys struct{ network, subnet string }

func envKeysOf(f ip.Family) envKeys {
	if f == ip.IPv4 {
		return envKeys{"FLANNEL_NETWORK", "FLANNEL_SUBNET"}
	}
	return envKeys{"FLANNEL_IPV6_NETWORK", "FLANNEL_IPV6_SUBNET"}
}

// Gateway returns the bridge's own address in family f, the first after the network address, with the length of the
// subnet; invalid if there is no subnet of the family.
func (e Env) Gateway(f ip.Family) netip.Prefix {
	p := e.Subnets.Of(f)
	if !p.IsValid() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(p.Masked().Addr().Next(), p.Bits())
}

func (e Env) text() []byte {
	var b bytes.Buffer
	for _, f := range ip.Families() {
		keys := envKeysOf(f)
		if network := e.Network.Of(f); network.IsValid() {
			fmt.Fprintf(&b, "%s=%s\n", keys.network, network)
		}
		if gateway := e.Gateway(f); gateway.IsValid() {
			fmt.Fprintf(&b, "%s=%s\n", keys.subnet, gateway)
		}
	}
	fmt.Fprintf(&b, "%s=%d\n%s=%t\n", envMTU, e.MTU, envIPMasq, e.IPMasq)
	return b.Bytes()
}

// WriteFile makes path hold e and reports whether it had to be written. Readers see the old content or the new one, never a part,
// and after a power cut too. A symbolic link at path is replaced by the file.
func (e Env) WriteFile(path string) (changed bool, err error) {
	text := e.text()
	if old, err := regularfile.Read(path, maxEnv); err == nil && bytes.Equal(old, text) {
		return false, nil
	}
	if err := atomicfile.Write(path, text, 0o644); err != nil {
		return false, err
	}
	return true, nil
}

// ReadEnv reads a subnet file. Lines with unknown keys, comments and blank lines are passed over. A file that
// does not exist is an error that wraps fs.ErrNotExist. The path may be a symbolic link: readers may know the file by another name.
func ReadEnv(path string) (Env, error) {
	text, err := regularfile.ReadTarget(path, maxEnv)
	if err != nil {
		return Env{}, fmt.Errorf("read subnet file: %w", err)
	}
	e, err := parseEnv(text)
	if err != nil {
		return Env{}, fmt.Errorf("read subnet file %s: %w", path, err)
	}
	return e, nil
}

// envRemedy ends every complaint about a subnet file.
const envRemedy = "correct it, or delete the file and restart tulled"

func parseEnv(text []byte) (Env, error) {
	var e Env
	seen := map[string]bool{}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return Env{}, fmt.Errorf("line %d: %q is not KEY=VALUE: %s", number, line, envRemedy)
		}
		if err := e.set(key, value); err != nil {
			return Env{}, fmt.Errorf("line %d: %s %q: %w: %s", number, key, value, err, envRemedy)
		}
		seen[key] = true
	}
	for _, key := range e.required() {
		if !seen[key] {
			return Env{}, fmt.Errorf("%s is missing: %s", key, envRemedy)
		}
	}
	return e, nil
}

// required lists the keys that a file needs beside those it has: whoever has a subnet of a family has its network too.
func (e *Env) required() []string {
	keys := []string{envMTU, envIPMasq}
	for _, f := range ip.Families() {
		if e.Network.Of(f).IsValid() || e.Subnets.Of(f).IsValid() {
			keys = append(keys, envKeysOf(f).network, envKeysOf(f).subnet)
		}
	}
	if len(keys) == 2 {
		keys = append(keys, envKeysOf(ip.IPv4).subnet)
	}
	return keys
}

// set takes over one line; unknown keys are for others.
func (e *Env) set(key, value string) (err error) {
	switch key {
	case envMTU:
		mtu, err := strconv.ParseUint(value, 10, 31)
		if err != nil {
			return errors.New("want a number of bytes such as 1450")
		}
		e.MTU = int(mtu)
	case envIPMasq:
		if value != "true" && value != "false" {
			return errors.New("want true or false")
		}
		e.IPMasq = value == "true"
	}
	for _, f := range ip.Families() {
		var p netip.Prefix
		switch keys := envKeysOf(f); key {
		case keys.network:
			err = e.setNetworks(f, value)
		case keys.subnet:
			p, err = parsePrefix(f, value)
			e.Subnets.Set(f, p)
		}
	}
	return err
}

// setNetworks takes over a list of networks separated by commas, as CNI plugins accept it: the first of family f is the network.
func (e *Env) setNetworks(f ip.Family, list string) error {
	var first netip.Prefix
	for text := range strings.SplitSeq(list, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil || p.Addr().Is4In6() {
			return fmt.Errorf("%q is not a prefix", text)
		}
		switch p = p.Masked(); {
		case !first.IsValid() && ip.FamilyOf(p.Addr()) == f:
			first = p
		case !slices.Contains(e.More, p):
			e.More = append(e.More, p)
		}
	}
	if !first.IsValid() {
		return fmt.Errorf("want an %s prefix", f)
	}
	e.Network.Set(f, first)
	return nil
}

func parsePrefix(f ip.Family, text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().BitLen() != f.Bits() || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("want an %s prefix", f)
	}
	return p.Masked(), nil
}
