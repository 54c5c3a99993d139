package ip

import (
	"encoding/json"
	"fmt"
	"net/netip"
)

// Link is a network device of Tulle's.
type Link struct {
	Name string
	MAC  MAC // zero where no frames travel
	MTU  int // bytes of the inner IP packet
	Up   bool
	Kind LinkKind // nil: none that Tulle makes

	// What another program may have done to it, by which packets are lost.
	Master string // the bridge, bond or VRF that it is a port of
	NoARP  bool   // that it resolves no addresses, although frames travel (netdevice(7), IFF_NOARP)
}

// LinkKind is what cannot be changed on a link without making it anew. Every kind is a comparable struct.
type LinkKind interface {
	// Type is the kind's name in ip-link(8).
	Type() string
	// Source is where the outer packets come from: an address of this host.
	Source() netip.Addr
	// Tunnel is what the outer packets have in common.
	Tunnel() Tunnel
	// Ethernet reports whether frames travel over the link, so that a route needs a neighbour and a forwarding entry.
	Ethernet() bool

	options() string // for ip-link(8)
}

// Tunnel is what tells the outer packets of a link from all others on the underlay. Links of one tunnel understand each other.
type Tunnel struct {
	VNI  uint32
	Port uint16 // UDP destination port
	IPIP bool   // IP in IP, which has neither
}

// VXLAN is a VXLAN device (RFC 7348).
// The device it was created on is left out on purpose: a device made by flanneld is bound to one, ours is not, both serve.
type VXLAN struct {
	VNI      uint32
	Local    netip.Addr // source of the outer packets: an address of this host
	Port     uint16     // UDP destination port
	Learning bool
	GBP      bool // group based policy extension
}

// Type is the kind's name.
func (v VXLAN) Type() string { return "vxlan" }

// Source is Local.
func (v VXLAN) Source() netip.Addr { return v.Local }

// Tunnel is told by port and VNI.
func (v VXLAN) Tunnel() Tunnel { return Tunnel{VNI: v.VNI, Port: v.Port} }

// Ethernet is what VXLAN carries.
func (v VXLAN) Ethernet() bool { return true }

func (v VXLAN) options() string {
	return fmt.Sprintf("id %d local %s dstport %d %slearning%s", v.VNI, v.Local, v.Port, ifElse(v.Learning, "", "no"), ifElse(v.GBP, " gbp", ""))
}

// IPIP is a device that puts IPv4 packets into IPv4 packets (RFC 2003) for the gateways of its routes.
type IPIP struct {
	Local netip.Addr // source of the outer packets: an address of this host
}

// Type is the kind's name.
func (i IPIP) Type() string { return "ipip" }

// Source is Local.
func (i IPIP) Source() netip.Addr { return i.Local }

// Tunnel is told by the protocol alone.
func (i IPIP) Tunnel() Tunnel { return Tunnel{IPIP: true} }

// Ethernet is nothing that IPIP carries.
func (i IPIP) Ethernet() bool { return false }

func (i IPIP) options() string { return fmt.Sprintf("local %s ttl inherit nopmtudisc", i.Local) }

// linkJSON is a link on disk. A field for each kind is how versions wrote it that knew one kind only.
type linkJSON struct {
	Name  string
	MAC   MAC
	MTU   int
	Up    bool
	VXLAN *VXLAN `json:",omitempty"`
	IPIP  *IPIP  `json:",omitempty"`
}

// MarshalJSON writes the link with a field named for its kind.
func (l Link) MarshalJSON() ([]byte, error) {
	j := linkJSON{Name: l.Name, MAC: l.MAC, MTU: l.MTU, Up: l.Up}
	switch kind := l.Kind.(type) {
	case VXLAN:
		j.VXLAN = &kind
	case IPIP:
		j.IPIP = &kind
	}
	return json.Marshal(j)
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (l *Link) UnmarshalJSON(data []byte) error {
	var j linkJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	*l = Link{Name: j.Name, MAC: j.MAC, MTU: j.MTU, Up: j.Up}
	switch {
	case j.VXLAN != nil:
		l.Kind = *j.VXLAN
	case j.IPIP != nil:
		l.Kind = *j.IPIP
	}
	return nil
}
