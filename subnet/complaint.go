package subnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"tulle/ip"
)

// What complaints are bounded by.
const (
	MaxComplaint   = 8 << 10   // bytes of a complaint in the store
	MostBadPeers   = 20        // that a complaint lists
	MostComplaints = 10_000    // that are read
	ComplaintTime  = time.Hour // for which a complaint stays that nobody repeats, of a host whose lease never expires
	mostBesides    = 1_000_000 // peers that are counted and not listed
	mostPacket     = 1<<16 - 1 // bytes
)

// Complaint is what a host says of peers that packets do not arrive at. Whoever may write to the store may have written it.
type Complaint struct {
	Node  string    `json:"node"`           // who complains
	Lease string    `json:"lease"`          // text of its lease's key
	Time  time.Time `json:"time"`           // of its clock, when it was written; for people
	Peers []BadPeer `json:"peers"`          // at most MostBadPeers, by lease
	More  int       `json:"more,omitempty"` // peers besides
}

// BadPeer is one way to a peer that packets do not arrive by, or only small ones. Comparable, but for Since.
type BadPeer struct {
	Lease  string    `json:"lease"`          // text of its lease's key
	Node   string    `json:"node,omitempty"` // empty: it is not known
	Family string    `json:"family"`         // ipv4, ipv6
	Way    string    `json:"way"`            // underlay, fabric
	State  string    `json:"state"`          // PeerUnreachable, PeerNarrow
	Size   int       `json:"size,omitempty"` // bytes of the largest packet that arrives; 0: not known
	Full   int       `json:"full,omitempty"` // bytes of the largest that should
	Since  time.Time `json:"since"`          // of the clock of the host that complains
}

// What a BadPeer can be.
const (
	PeerUnreachable = "unreachable"
	PeerNarrow      = "narrow" // small packets arrive
)

// Says reports whether two complaints say the same, whenever they do, and since the same second. nil says nothing.
func (c *Complaint) Says(o *Complaint) bool {
	if c == nil || o == nil {
		return c == o
	}
	same := func(a, b BadPeer) bool {
		since := func(p BadPeer) string { return p.Since.UTC().Format(time.RFC3339) } // what is in the store has lost the monotonic reading
		text := since(a) == since(b)
		a.Since, b.Since = time.Time{}, time.Time{}
		return text && a == b
	}
	return c.Node == o.Node && c.Lease == o.Lease && c.More == o.More && slices.EqualFunc(c.Peers, o.Peers, same)
}

// ParseComplaint reads what is in the store at the key of a node. Members of JSON that this version does not know are passed over.
func ParseComplaint(node string, value []byte) (Complaint, error) {
	var c Complaint
	if len(value) > MaxComplaint {
		return c, fmt.Errorf("a complaint of %d bytes: want at most %d", len(value), MaxComplaint)
	}
	if err := json.Unmarshal(value, &c); err != nil {
		return c, fmt.Errorf("a complaint that does not parse: %w", err)
	}
	if c.Node != node {
		return c, fmt.Errorf("a complaint of node %.64q in the key of node %.64q", c.Node, node)
	}
	return c, c.check()
}

// Encode returns what is to be in the store.
func (c Complaint) Encode() (string, error) {
	if err := c.check(); err != nil {
		return "", err
	}
	value, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("encode complaint: %w", err)
	}
	if len(value) > MaxComplaint {
		return "", fmt.Errorf("a complaint of %d bytes: want at most %d", len(value), MaxComplaint)
	}
	return string(value), nil
}

func (c Complaint) check() error {
	if err := CheckNodeID(c.Node); err != nil {
		return err
	}
	if _, err := ParseKey(c.Lease); err != nil {
		return err
	}
	if len(c.Peers) == 0 || len(c.Peers) > MostBadPeers || c.More < 0 || c.More > mostBesides {
		return fmt.Errorf("a complaint about %d peers and %d besides: want 1 to %d, and 0 to %d", len(c.Peers), c.More, MostBadPeers, mostBesides)
	}
	for _, p := range c.Peers {
		if err := p.check(); err != nil {
			return err
		}
	}
	return nil
}

func (p BadPeer) check() error {
	if _, err := ParseKey(p.Lease); err != nil {
		return err
	}
	if p.Node != "" {
		if err := CheckNodeID(p.Node); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		field, value string
		want         []string
	}{
		{"family", p.Family, []string{ip.IPv4.String(), ip.IPv6.String()}},
		{"way", p.Way, []string{"underlay", "fabric"}},
		{"state", p.State, []string{PeerUnreachable, PeerNarrow}},
	} {
		if !slices.Contains(f.want, f.value) {
			return fmt.Errorf("a complaint about a peer with the %s %.32q: want one of %q", f.field, f.value, f.want)
		}
	}
	if p.Size < 0 || p.Size > mostPacket || p.Full < 0 || p.Full > mostPacket {
		return errors.New("a complaint about packets of a size that there is not")
	}
	return nil
}
