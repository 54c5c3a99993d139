package docker

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

// Setting is what one key of daemon.json must hold. A nil Value says that the key must not be there.
type Setting struct {
	Key   string
	Value json.RawMessage
}

// Settings are what docker0 needs in order to be this host's part of the network.
func Settings(env flannel.Env, version Version) []Setting {
	var list []Setting
	set := func(key, value string) { list = append(list, Setting{key, json.RawMessage(value)}) }
	if v4 := env.Subnets.V4; v4.IsValid() {
		set("bip", strconv.Quote(netip.PrefixFrom(Gateway(v4), v4.Bits()).String()))
	}
	set("mtu", strconv.Itoa(env.MTU))
	if masqueradeOff(env) {
		set("ip-masq", "false")
	}
	if v6 := env.Subnets.V6; v6.IsValid() {
		set("ipv6", "true")
		set("fixed-cidr-v6", strconv.Quote(v6.String()))
	}
	if version.RoutesDirectly() {
		set("allow-direct-routing", "true")
	}
	if version.AcceptsMark() {
		set(acceptMarkKey, strconv.Quote(AcceptMark()))
	}
	return list
}

const acceptMarkKey = "bridge-accept-fwmark"

// AcceptMark makes Docker let in what tulled marks as coming from other hosts' containers, for ports that are not published too.
func AcceptMark() string { return fmt.Sprintf("%#x/%#x", ip.Mark, ip.Mark) }

// masqueradeOff reports whether Docker must not masquerade. Where only IPv6 is leased, containers keep an IPv4
// address of Docker's own choice, which Docker must go on masquerading.
func masqueradeOff(env flannel.Env) bool { return env.IPMasq && env.Subnets.V4.IsValid() }

// Gateway is the address of the bridge that holds a leased subnet.
func Gateway(p netip.Prefix) netip.Addr { return p.Masked().Addr().Next() }

// limit is an option of dockerd's, in its file or on its command line, that does not go with every lease.
type limit struct {
	name   string
	family ip.Family // of the lease that it must be inside of; 0 if it goes with no lease
}

// limits lists them: dockerd refuses to start with a bridge beside a bip, and with ranges or gateways outside of it.
func limits() []limit {
	return []limit{{"bridge", 0}, {"fixed-cidr", ip.IPv4}, {"default-gateway", ip.IPv4}, {"bip6", ip.IPv6}, {"default-gateway-v6", ip.IPv6}}
}

// forbids reports whether a value of the option does not go with the lease.
func (l limit) forbids(value string, lease subnet.Subnets) bool {
	if value == "" || l.family == 0 {
		return value != ""
	}
	p := lease.Of(l.family)
	return p.IsValid() && !inside(p, value)
}

// displaced returns the settings that forbid what d has and what does not go with the lease.
func displaced(d document, lease subnet.Subnets) ([]Setting, error) {
	var list []Setting
	for _, l := range limits() {
		value, err := d.get(l.name)
		if err != nil {
			return nil, err
		}
		var text string
		if value != nil && json.Unmarshal(value, &text) != nil {
			text = string(value) // of another type: outside of any lease
		}
		if l.forbids(text, lease) {
			list = append(list, Setting{Key: l.name})
		}
	}
	return list, nil
}

// inside reports whether text is an address or a prefix inside p.
func inside(p netip.Prefix, text string) bool {
	if !strings.Contains(text, "/") {
		text += "/" + strconv.Itoa(p.Addr().BitLen())
	}
	inner, err := netip.ParsePrefix(text)
	return err == nil && ip.Contains(p, inner)
}

// Version is a release of Docker.
type Version struct{ Major, Minor int }

// ParseVersion reads a version such as 28.2, 28.2.2 or 20.10.24+dfsg1.
func ParseVersion(text string) (Version, error) {
	var v Version
	major, rest, _ := strings.Cut(strings.TrimPrefix(text, "v"), ".")
	minor := rest
	if i := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		minor = rest[:i]
	}
	var errMajor, errMinor error
	v.Major, errMajor = strconv.Atoi(major)
	v.Minor, errMinor = strconv.Atoi(minor)
	if errMajor != nil || errMinor != nil {
		return Version{}, fmt.Errorf("docker version %q: want a number such as 28.2", text)
	}
	return v, nil
}

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

func (v Version) atLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// ReadsMark reports whether Docker reads a daemon.json that begins with a byte order mark (moby/moby#44790).
func (v Version) ReadsMark() bool { return v == Version{} || v.atLeast(23, 0) }

// DropsRouted reports whether Docker drops what is routed to a container's own address from another host, unless told
// otherwise: since 28.0 in the raw table, before any rule of others is asked (moby/moby#48724).
func (v Version) DropsRouted() bool { return v.atLeast(28, 0) }

// RoutesDirectly reports whether Docker can be told otherwise: by allow-direct-routing, and for single networks by
// trusted_host_interfaces (both moby/moby#49832).
func (v Version) RoutesDirectly() bool { return v.atLeast(28, 2) }

// AcceptsMark reports whether Docker can be told to let marked packets in, by bridge-accept-fwmark. With its nftables
// backend there is no other way to reach ports that are not published.
func (v Version) AcceptsMark() bool { return v.atLeast(29, 0) }
