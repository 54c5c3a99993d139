// Package vxlan carries traffic between hosts in VXLAN (RFC 7348), one device per address family, wire-compatible with flannel.
package vxlan

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/netip"

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
}

// VXLAN is the backend.
type VXLAN struct {
	opts     options
	families []ip.Family
}

// New reads the options of the network.
func New(n subnet.Network) (backend.Backend, []string, error) {
	opts := options{VNI: 1, Port: DefaultPort}
	doubts, err := backend.DecodeOptions(n.Backend, &opts)
	if err != nil {
		return nil, nil, err
	}
	if opts.Port == 0 {
		opts.Port = DefaultPort
	}
	switch {
	case opts.VNI == 0 || opts.VNI >= 1<<24:
		return nil, nil, fmt.Errorf("Backend.VNI is %d: choose 1 to %d", opts.VNI, 1<<24-1)
	case opts.MTU < 0 || opts.MTU > 65535:
		return nil, nil, fmt.Errorf("Backend.MTU is %d: give the underlay's MTU in bytes, or leave it out", opts.MTU)
	}
	return &VXLAN{opts: opts, families: n.Families()}, doubts, nil
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
			return 0, fmt.Errorf("an underlay MTU of %d leaves %d bytes for %s packets, which need %d: raise the MTU of %s",
				m+overhead(f), m, f, least, uplink.Link)
		}
		if mtu == 0 || m < mtu {
			mtu = m
		}
	}
	return mtu, nil
}

// Scope names the devices, and the peers' addresses if direct routes depend on how they are reached.
func (v *VXLAN) Scope(leases []subnet.Lease) ip.Scope {
	var s ip.Scope
	for _, f := range v.families {
		s.Links = append(s.Links, v.device(f))
		s.Sysctls = append(s.Sysctls, v.sysctls(f)...)
		if v.opts.DirectRouting {
			s.Paths = append(s.Paths, backend.Publics(leases, f)...)
		}
	}
	return s
}

// sysctls keeps the kernel from configuring the device by itself.
func (v *VXLAN) sysctls(f ip.Family) []ip.Sysctl {
	dev := v.device(f)
	conf := "net/ipv6/conf/" + dev + "/"
	if f == ip.IPv4 {
		// Without IPv6 the device sends no router solicitations and multicast reports, which it could only drop.
		return []ip.Sysctl{{Key: conf + "disable_ipv6", Value: "1", Link: dev}}
	}
	return []ip.Sysctl{{Key: conf + "accept_ra", Value: "0", Link: dev}}
}

// Advertise publishes a MAC per family: the one that peers know, else the one of an existing device, else one derived from the node id.
func (v *VXLAN) Advertise(host backend.Host, earlier subnet.Attrs) (subnet.Attrs, error) {
	attrs := subnet.Attrs{Public: host.Uplink.Public, BackendType: Name}
	for _, f := range v.families {
		raw, err := json.Marshal(data{VNI: v.opts.VNI, VtepMAC: v.mac(f, host, earlier).String()})
		if err != nil {
			return subnet.Attrs{}, fmt.Errorf("encode backend data: %w", err)
		}
		attrs.BackendData.Set(f, raw)
	}
	return attrs, nil
}

func (v *VXLAN) mac(f ip.Family, host backend.Host, earlier subnet.Attrs) ip.MAC {
	if earlier.BackendType == Name {
		if mac, err := vtep(earlier.BackendData.Of(f)); err == nil {
			return mac
		}
	}
	for _, l := range host.Links {
		if l.Name == v.device(f) && !l.MAC.IsZero() {
			return l.MAC
		}
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "tulle vtep %s %s", host.Node, v.device(f)))
	mac := ip.MAC(sum[:6])
	mac[0] = mac[0]&^1 | 2 // unicast, locally administered
	return mac
}

// vtep reads the MAC that a lease announces.
func vtep(raw json.RawMessage) (ip.MAC, error) {
	if len(raw) == 0 {
		return ip.MAC{}, fmt.Errorf("it announces no VtepMAC")
	}
	var d data
	if err := json.Unmarshal(raw, &d); err != nil {
		return ip.MAC{}, fmt.Errorf("decode backend data: %w", err)
	}
	return ip.ParseMAC(d.VtepMAC)
}

// Plan wants a device per family, and for each peer a route over it or, if the peer is a neighbour, around it.
func (v *VXLAN) Plan(host backend.Host, self subnet.Lease, peers []subnet.Lease) (ip.State, []subnet.Problem) {
	s := ip.State{
		FDB:       make([]ip.FDB, 0, len(peers)),
		Neighbors: make([]ip.Neighbor, 0, len(peers)),
		Routes:    make([]ip.Route, 0, len(peers)),
	}
	var problems []subnet.Problem
	for _, f := range v.families {
		own := self.Subnets.Of(f)
		mac, err := vtep(self.Attrs.BackendData.Of(f))
		if !own.IsValid() || err != nil {
			problems = append(problems, subnet.Problem{Key: subnet.KeyOf(self.Subnets), Reason: fmt.Sprintf("this host's lease lacks %s", f)})
			continue
		}
		dev := v.device(f)
		s.Links = append(s.Links, ip.Link{
			Name: dev, MAC: mac, MTU: v.deviceMTU(f, host.Uplink), Up: true,
			VXLAN: ip.VXLAN{
				VNI: v.opts.VNI, Port: v.opts.Port, Local: host.Uplink.Addr.Of(f),
				Learning: v.opts.Learning, GBP: v.opts.GBP,
			},
		})
		s.Sysctls = append(s.Sysctls, v.sysctls(f)...)
		s.Addrs = append(s.Addrs, ip.Addr{Link: dev, Prefix: ip.Host(own.Addr())})

		vteps := make(map[ip.MAC]netip.Addr, len(peers)+1)
		vteps[mac] = host.Uplink.Public.Of(f)
		for _, peer := range peers {
			if !peer.Subnets.Of(f).IsValid() {
				continue
			}
			if err := v.planPeer(&s, f, host, peer, vteps); err != nil {
				problems = append(problems, subnet.Problem{Key: subnet.KeyOf(peer.Subnets), Reason: err.Error()})
			}
		}
	}
	return s, problems
}

// planPeer adds what one peer needs in one family. vteps are the MACs in use so far and the hosts that use them.
func (v *VXLAN) planPeer(s *ip.State, f ip.Family, host backend.Host, peer subnet.Lease, vteps map[ip.MAC]netip.Addr) error {
	public, err := backend.Reach(host, peer, f, Name)
	if err != nil {
		return err
	}
	dst := peer.Subnets.Of(f)
	if path := host.Paths[public]; v.opts.DirectRouting && path.OnLink() {
		s.Routes = append(s.Routes, backend.DirectRoute(dst, public, path.Link))
		return nil
	}
	mac, err := vtep(peer.Attrs.BackendData.Of(f))
	if err != nil {
		return err
	}
	dev := v.device(f)
	switch owner, taken := vteps[mac]; {
	case !taken:
		vteps[mac] = public
		s.FDB = append(s.FDB, ip.FDB{Link: dev, MAC: mac, Dst: public})
	case owner != public:
		return fmt.Errorf("it announces the MAC %s of the host at %s", mac, owner)
	}
	s.Neighbors = append(s.Neighbors, ip.Neighbor{Link: dev, IP: dst.Addr(), MAC: mac})
	s.Routes = append(s.Routes, ip.Route{
		Dst: dst, Via: dst.Addr(), Link: dev, Metric: backend.Metric(dst), Protocol: ip.Protocol, OnLink: true,
	})
	return nil
}
