package subnet

import (
	"encoding/json"
	"net/netip"

	"tulle/ip"
)

// Subnets is the slice of one host: one prefix per family, invalid where the family is off.
type Subnets = ip.Dual[netip.Prefix]

// Lease is one host's hold on a slice of the network, as the store has it.
type Lease struct {
	Subnets  Subnets
	Attrs    Attrs
	Reserved bool     // never expires
	Created  Revision // when it was made: its age
	Revision Revision // when it was last changed: its version

	Standing Standing // of claims that exclude each other the older one counts; zero as the store has it, see Memory
	HeldBack bool     // it is in the store no longer, by a view that is doubted: it counts less than those that are
}

// with returns a lease that differs in its subnets: l itself if it does not.
func (l *Lease) with(s Subnets) *Lease {
	if l.Subnets == s {
		return l
	}
	other := *l
	other.Subnets = s
	return &other
}

// Attrs is what a host tells its peers: the value of a lease key.
type Attrs struct {
	Public      ip.Dual[netip.Addr] // underlay addresses to send to; the zero Addr where there is none
	BackendType string
	BackendData ip.Dual[json.RawMessage]   // what the backend publishes, per underlay family
	Node        string                     // node id of the owner; empty in flanneld's leases
	Instance    string                     // tells one run of a machine from another machine with the same node id
	Hardware    []string                   // fingerprints of the machine's parts, which a copy of its disk does not share; may be empty
	Probe       Probe                      // where the host is asked whether packets arrive; zero: it is not
	Extra       map[string]json.RawMessage // fields that this version does not know, kept as they are
}

// Probe is where a host answers others that ask whether packets arrive. The zero Probe is none. Comparable.
type Probe struct {
	Port uint16 // UDP, at the host's public addresses and at those of its tunnel devices
	Key  ProbeKey
}

// ProbeKey proves that whoever asks may read the store, and that an answer is the host's.
type ProbeKey [16]byte

// String hides the key from logs.
func (ProbeKey) String() string { return "(key)" }

// GoString does the same for %#v.
func (ProbeKey) GoString() string { return "(key)" }

// Set is one consistent view of the store.
type Set struct {
	Revision     Revision
	Network      *Network      // the newest valid configuration seen; nil if there has been none
	Leases       []*Lease      // every lease that parses, by subnet; shared with other views, so never changed
	Problems     []Problem     // keys that do not parse, and warnings about the configuration
	Unlisted     int           // keys that do not parse and are not among Problems: see ListBroken
	FormerOwners []FormerOwner // what has been leased; a store reads it for Allocate alone
}
