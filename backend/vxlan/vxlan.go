// Package vxlan carries traffic between hosts in VXLAN (RFC 7348), one device per address family, wire-compatible with flannel.
package vxlan

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"tulle/backend"
	"tulle/ip"
	"tulle/subnet"
)

// Name is the backend's name in the network configuration and in leases.
const Name = "vxlan"

// DefaultPort is the kernel's default VXLAN port, which flannel uses; not the IANA port 4789.
const DefaultPort = 8472

// options is the Backend object of the network configuration.
type options struct {
	VNI           uint32
	Port          uint16
	MTU           int // of the underlay, bytes; 0: the uplink's
	GBP           bool
	Learning      bool
	DirectRouting bool
}

// data is what a lease says of its owner's device. Only the MAC is read: the VNI in force is the configuration's.
type data struct {
	VNI     uint32
	VtepMAC string
	Port    uint16 `json:",omitempty"` // UDP; 0 if it goes without saying; flannel announces none
}

// VXLAN is the backend.
type VXLAN struct {
	opts     options
	families []ip.Family
	pools    ip.Dual[subnet.Pool]
}

// New reads the options of the network.
func New(n subnet.Network) (backend.Backend, []string, error) {
	opts, warnings, err := optionsOf(n)
	if err != nil {
		return nil, nil, err
	}
	return &VXLAN{opts: opts, families: n.Families(), pools: n.Pools}, warnings, nil
}

func optionsOf(n subnet.Network) (opts options, warnings []string, err error) {
	opts = options{VNI: 1, Port: DefaultPort}
	if warnings, err = backend.DecodeOptions(n.Backend, &opts); err != nil {
		return opts, nil, err
	}
	if opts.Port == 0 {
		opts.Port = DefaultPort
	}
	switch {
	case opts.VNI == 0 || opts.VNI >= 1<<24:
		return opts, nil, fmt.Errorf("Backend.VNI is %d: choose 1 to %d", opts.VNI, 1<<24-1)
	case opts.MTU < 0 || opts.MTU > 65535:
		return opts, nil, fmt.Errorf("Backend.MTU is %d: give the underlay's MTU in bytes, or leave it out", opts.MTU)
	}
	return opts, warnings, nil
}

// overhead is what VXLAN adds to an inner IP packet: outer IP, UDP, VXLAN and inner Ethernet headers.
func overhead(underlay ip.Family) int {
	const udp, vxlan, ethernet = 8, 8, 14
	if underlay == ip.IPv4 {
		return 20 + udp + vxlan + ethernet
	}
	return 40 + udp + vxlan + ethernet
}

// device is the name of the family's device, flannel's, so that firewalls and runbooks hold.
func (v *VXLAN) device(f ip.Family) string {
	if f == ip.IPv4 {
		return fmt.Sprintf("flannel.%d", v.opts.VNI)
	}
	return fmt.Sprintf("flannel-v6.%d", v.opts.VNI)
}

// deviceMTU is the family's MTU on this uplink.
func (v *VXLAN) deviceMTU(f ip.Family, uplink ip.Uplink) int {
	outer := v.opts.MTU
	if outer == 0 {
		outer = uplink.MTU
	}
	return outer - overhead(f)
}

// MTU is the smallest of the devices: containers have one interface for both families.
func (v *VXLAN) MTU(uplink ip.Uplink) (int, error) {
	mtu := 0
	for _, f := range v.families {
		m := v.deviceMTU(f, uplink)
		if least := backend.LeastMTU(f); m < least {
			raise := "the MTU of " + uplink.Narrowest()
			if v.opts.MTU != 0 {
				raise = "Backend.MTU"
			}
			return 0, fmt.Errorf("an underlay MTU of %d leaves %d bytes for %s packets, which need %d: raise %s",
				m+overhead(f), m, f, least, raise)
		}
		if mtu == 0 || m < mtu {
			mtu = m
		}
	}
	if v.opts.MTU > uplink.MTU {
		return mtu, fmt.Errorf("Backend.MTU is %d, and the MTU of %s is %d: %w: lower Backend.MTU, or raise the other",
			v.opts.MTU, uplink.Narrowest(), uplink.MTU, backend.ErrOversize)
	}
	return mtu, nil
}

// Scope names the devices, and the peers' addresses if direct routes depend on how they are reached.
func (v *VXLAN) Scope(leases []*subnet.Lease) ip.Scope {
	s := ip.Scope{Kinds: []string{Name}}
	for _, f := range v.families {
		s.Links = append(s.Links, v.device(f))
		s.Sysctls = append(s.Sysctls, v.sysctls(f)...)
		if v.opts.DirectRouting {
			s.Paths = append(s.Paths, backend.Publics(leases, f)...)
		}
	}
	return s
}

// sysctls keeps the kernel from configuring the device by itself, and has it carry the family.
func (v *VXLAN) sysctls(f ip.Family) []ip.Sysctl {
	dev := v.device(f)
	conf := "net/ipv6/conf/" + dev + "/"
	if f == ip.IPv4 {
		// Without IPv6 the device sends no router solicitations and multicast reports, which it could only drop.
		return []ip.Sysctl{{Key: conf + "disable_ipv6", Value: "1", Link: dev, Optional: true}}
	}
	return []ip.Sysctl{
		{Key: conf + "accept_ra", Value: "0", Link: dev, Optional: true},
		{Key: conf + "disable_ipv6", Value: "0", Link: dev}, // it is 1 where net.ipv6.conf.default.disable_ipv6 is
	}
}

// vtep reads the MAC that a lease announces.
func vtep(raw json.RawMessage) (ip.MAC, error) {
	_, mac, err := decode(raw)
	return mac, err
}

// decode reads what a lease announces.
func decode(raw json.RawMessage) (d data, mac ip.MAC, err error) {
	if len(raw) == 0 {
		return d, mac, fmt.Errorf("it announces no VtepMAC")
	}
	d, ok := usual(raw)
	if !ok {
		var unusual data // an own variable, for it is allocated
		if err := json.Unmarshal(raw, &unusual); err != nil {
			return d, mac, fmt.Errorf("decode backend data: %.256s", err.Error()) // it may repeat a number of any length
		}
		d = unusual
	}
	mac, err = ip.ParseMAC(d.VtepMAC)
	return d, mac, err
}

// usual reads data as both flannel and Advertise write it. A general decoder takes ten times as long, which would be half of a plan for ten
// thousand peers.
func usual(raw []byte) (d data, ok bool) {
	const begin, middle, end, last = `{"VNI":`, `,"VtepMAC":"`, `"`, `,"Port":`
	rest, ok := strings.CutPrefix(string(raw), begin)
	rest, closed := strings.CutSuffix(rest, "}")
	if !ok || !closed {
		return data{}, false
	}
	vni, rest, _ := strings.Cut(rest, middle)
	mac, rest, ok := strings.Cut(rest, end)
	n, err := strconv.ParseUint(vni, 10, 32)
	d = data{VNI: uint32(n), VtepMAC: mac}
	if rest != "" && ok {
		port, err := strconv.ParseUint(strings.TrimPrefix(rest, last), 10, 16)
		d.Port, ok = uint16(port), err == nil && strings.HasPrefix(rest, last)
	}
	return d, ok && err == nil && !strings.Contains(mac, "\\")
}

// understands fails if a peer's tunnel is another one than this host's: each drops what the other sends.
func (v *VXLAN) understands(d data) error {
	switch {
	case d.VNI != 0 && d.VNI != v.opts.VNI:
		return fmt.Errorf("it tunnels with the VNI %d, and this host with %d: %s", d.VNI, v.opts.VNI, restartOlder)
	case d.Port != 0 && d.Port != v.opts.Port:
		return fmt.Errorf("it tunnels over the UDP port %d, and this host over %d: %s", d.Port, v.opts.Port, restartOlder)
	}
	return nil
}

const restartOlder = "restart tulled where the configuration in force is the older one"
