package flannel

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"tulle/ip"
	"tulle/subnet"
)

// poolFields are the names and limits of one family's part of the configuration.
type poolFields struct {
	family                             ip.Family
	enable, network, length, low, high string
	enabled                            bool // without the enable field
	usualLen                           int  // the default, if the network has room for it
	maxLen                             int  // a longer one leaves no address for containers
}

func poolFieldsOf(f ip.Family) poolFields {
	if f == ip.IPv4 {
		return poolFields{
			family: f, enable: "EnableIPv4", network: "Network", length: "SubnetLen", low: "SubnetMin", high: "SubnetMax",
			enabled: true, usualLen: 24, maxLen: 30,
		}
	}
	return poolFields{
		family: f, enable: "EnableIPv6", network: "IPv6Network", length: "IPv6SubnetLen", low: "IPv6SubnetMin", high: "IPv6SubnetMax",
		usualLen: 64, maxLen: 126,
	}
}

// all lists the names that exist whether or not the family is enabled.
func (f poolFields) all() []string { return []string{f.enable, f.network, f.length, f.low, f.high} }

// DefaultBackend is the backend of a configuration that names none.
const DefaultBackend = "vxlan"

const (
	fieldBackend = "Backend"
	fieldType    = "Type"
	// fieldNFTables is flannel's choice between iptables and nftables; Tulle has only the latter.
	fieldNFTables = "EnableNFTables"
)

// ParseNetwork reads flannel's network configuration (JSON) and fills in its defaults, except that a missing backend is
// DefaultBackend. The error joins everything that is wrong, one line each. Warnings are what a human should look at although
// the configuration is valid, such as unknown fields.
func ParseNetwork(data []byte, revision subnet.Revision) (n subnet.Network, warnings []string, err error) {
	members, err := readObject(data)
	if err != nil {
		return subnet.Network{}, nil, fmt.Errorf(`network configuration: %w: write for example {"Network": "10.5.0.0/16"}`, err)
	}
	p := networkParser{members: &members}
	n.Revision = revision
	var known []string
	for _, f := range ip.Families() {
		fields := poolFieldsOf(f)
		known = append(known, fields.all()...)
		n.Pools.Set(f, p.pool(fields))
	}
	n.Backend = p.backend()
	members.take(fieldNFTables)
	p.warnings = append(p.warnings, unknownMembers(members, append(known, fieldBackend, fieldNFTables))...)
	if err := errors.Join(p.errs...); err != nil {
		return subnet.Network{}, p.warnings, err
	}
	if len(n.Families()) == 0 {
		return subnet.Network{}, p.warnings, errors.New("EnableIPv4 and EnableIPv6 are both false: set one of them to true")
	}
	return n, p.warnings, nil
}

// networkParser takes known members out of the configuration and collects what it finds on the way.
type networkParser struct {
	members  *object
	errs     []error
	warnings []string
}

func (p *networkParser) fail(format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf(format, args...))
}

func (p *networkParser) warn(format string, args ...any) {
	p.warnings = append(p.warnings, fmt.Sprintf(format, args...))
}

// value decodes the member called field into v, which stays as it is if there is none.
func (p *networkParser) value(field string, v any, want string) {
	raw := p.members.take(field)
	if !present(raw) {
		return
	}
	if err := json.Unmarshal([]byte(raw), v); err != nil {
		p.fail("%s %s: want %s", field, shorten(raw), want)
	}
}

func (p *networkParser) pool(fields poolFields) subnet.Pool {
	enabled := fields.enabled
	p.value(fields.enable, &enabled, "true or false")
	if !enabled {
		for _, field := range []string{fields.network, fields.length, fields.low, fields.high} {
			if present(p.members.take(field)) {
				p.warn("%s has no effect while %s is false", field, fields.enable)
			}
		}
		return subnet.Pool{}
	}
	var length int
	p.value(fields.length, &length, "a prefix length without quotes")
	low, lowOK := p.bound(fields, fields.low)
	high, highOK := p.bound(fields, fields.high)
	network, ok := p.network(fields)
	if !ok {
		return subnet.Pool{}
	}
	pool := subnet.Pool{Network: network, SubnetLen: length}
	if !p.length(fields, &pool) {
		return subnet.Pool{}
	}
	pool.Min = ip.Last(netip.PrefixFrom(network.Addr(), pool.SubnetLen)).Next() // the first subnet is left out, as flannel does
	pool.Max = netip.PrefixFrom(ip.Last(network), pool.SubnetLen).Masked().Addr()
	lowOK = lowOK && p.setBound(fields.low, low, pool, &pool.Min)
	highOK = highOK && p.setBound(fields.high, high, pool, &pool.Max)
	if lowOK && highOK && pool.Max.Less(pool.Min) {
		p.fail("%s %s is above %s %s: exchange them, or leave one out", fields.low, pool.Min, fields.high, pool.Max)
	}
	return pool
}

func (p *networkParser) network(fields poolFields) (netip.Prefix, bool) {
	var text string
	errs := len(p.errs)
	p.value(fields.network, &text, "a prefix in quotes")
	if len(p.errs) > errs {
		return netip.Prefix{}, false
	}
	if text == "" {
		p.fail("%s is missing: add it, or set %s to false", fields.network, fields.enable)
		return netip.Prefix{}, false
	}
	given, err := netip.ParsePrefix(text)
	if err != nil || given.Addr().Is4In6() {
		p.fail("%s %.64q is not a prefix: write ADDRESS/LENGTH", fields.network, text)
		return netip.Prefix{}, false
	}
	if f := ip.FamilyOf(given.Addr()); f != fields.family {
		other := poolFieldsOf(f)
		p.fail("%s %q is an %s prefix: put it in %s, with %s true", fields.network, text, f, other.network, other.enable)
		return netip.Prefix{}, false
	}
	network := given.Masked()
	if network != given {
		p.warn("%s %s has host bits: it is taken as %s", fields.network, text, network)
	}
	for _, r := range subnet.ReservedRanges(fields.family) {
		if ip.Contains(r.Prefix, network) {
			p.fail("%s %s is %s space: choose a private prefix", fields.network, network, r.Name)
			return netip.Prefix{}, false
		}
	}
	return network, true
}

// length checks the subnet length or fills in the default.
func (p *networkParser) length(fields poolFields, pool *subnet.Pool) bool {
	shortest := pool.Network.Bits() + 2
	switch {
	case shortest > fields.maxLen:
		p.fail("%s %s is too small to be cut into subnets: use a /%d or a larger one", fields.network, pool.Network, fields.maxLen-2)
		return false
	case pool.SubnetLen == 0:
		pool.SubnetLen = max(fields.usualLen, shortest)
	case pool.SubnetLen < shortest || pool.SubnetLen > fields.maxLen:
		p.fail("%s %d is out of range: with %s %s use %d to %d", fields.length, pool.SubnetLen,
			fields.network, pool.Network, shortest, fields.maxLen)
		return false
	}
	return true
}

// bound reads the first or last subnet; the zero Addr means that none is set.
func (p *networkParser) bound(fields poolFields, field string) (addr netip.Addr, ok bool) {
	var text string
	errs := len(p.errs)
	p.value(field, &text, "an address in quotes")
	if len(p.errs) > errs {
		return addr, false
	}
	if text == "" {
		return addr, true
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.BitLen() != fields.family.Bits() || addr.Zone() != "" || addr.Is4In6() {
		p.fail("%s %.64q is not an %s address: write the network address of a subnet", field, text, fields.family)
		return netip.Addr{}, false
	}
	if addr.IsUnspecified() {
		return netip.Addr{}, true
	}
	return addr, true
}

// setBound checks a bound against the pool and stores it, if one is set.
func (p *networkParser) setBound(field string, addr netip.Addr, pool subnet.Pool, bound *netip.Addr) bool {
	if !addr.IsValid() {
		return true
	}
	if !pool.Network.Contains(addr) {
		p.fail("%s %s is outside %s: use an address of that network", field, addr, pool.Network)
		return false
	}
	if start := netip.PrefixFrom(addr, pool.SubnetLen).Masked().Addr(); start != addr {
		p.fail("%s %s is not the start of a /%d: use %s", field, addr, pool.SubnetLen, start)
		return false
	}
	*bound = addr
	return true
}

func (p *networkParser) backend() subnet.Backend {
	b := subnet.Backend{Type: DefaultBackend, Options: json.RawMessage("{}")}
	raw := p.members.take(fieldBackend)
	if !present(raw) {
		return b
	}
	options, err := readObject([]byte(raw))
	if err != nil {
		p.fail(`%s %s: %w: write for example {"Type": "vxlan"}`, fieldBackend, shorten(raw), err)
		return subnet.Backend{}
	}
	b.Options = json.RawMessage(raw)
	var name string
	if raw := options.take(fieldType); present(raw) {
		if err := json.Unmarshal([]byte(raw), &name); err != nil {
			p.fail(`%s.%s %s: want a name in quotes such as "vxlan"`, fieldBackend, fieldType, shorten(raw))
			return subnet.Backend{}
		}
	}
	if name != "" {
		b.Type = strings.ToLower(name)
	}
	return b
}
