package ip

import (
	"encoding/json"
	"fmt"
	"net/netip"
)

// Link is a network device of Tulle's.
type Link struct {
	Name string
	MAC  MAC
	MTU  int // bytes of the inner IP packet
	Up   bool
	Kind LinkKind // nil: none that Tulle makes
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

// linkJSON is a link on disk. A field for each kind is how versions wrote it that knew one kind only.
type linkJSON struct {
	Name  string
	MAC   MAC
	MTU   int
	Up    bool
	VXLAN *VXLAN `json:",omitempty"`
}

// MarshalJSON writes the link with a field named for its kind.
func (l Link) MarshalJSON() ([]byte, error) {
	j := linkJSON{Name: l.Name, MAC: l.MAC, MTU: l.MTU, Up: l.Up}
	switch kind := l.Kind.(type) {
	case VXLAN:
		j.VXLAN = &kind
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
	}
	return nil
}
