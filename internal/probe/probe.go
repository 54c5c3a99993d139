// Package probe finds out, all the time, whether packets arrive at other hosts: over the underlay and over the fabric, small ones and the largest.
package probe

import (
	"log/slog"
	"net/netip"
	"time"

	"tulle/ip"
)

// Way is how packets go to another host.
type Way uint8

// The ways: from host to host, and from tunnel device to tunnel device.
const (
	Underlay Way = iota
	Fabric
)

const ways = 2

// Ways lists both ways.
func Ways() []Way { return []Way{Underlay, Fabric} }

func (w Way) String() string {
	if w == Fabric {
		return "fabric"
	}
	return "underlay"
}

// Key is what those know who may ask a host. A host makes its own, and the store hands it out.
type Key [16]byte

// String hides the key, which belongs neither into logs nor into answers.
func (Key) String() string { return "(key)" }

// Peer is a host that is asked, in one family. Comparable.
type Peer struct {
	Lease  string // text of its lease's key
	Node   string
	Family ip.Family
	Key    Key
	At     [ways]netip.AddrPort // by Way; zero: it is not asked that way
	Size   [ways]int            // by Way: bytes of the largest IP packet that should arrive
}

// Self is this host as others ask it. Comparable. Questions to others leave from the same addresses and port.
type Self struct {
	Key  Key
	Port uint16
	Addr [ways]ip.Dual[netip.Addr] // by Way; zero: not there
}

// Want is all that a pass wants of the prober. Level-triggered: the newest one counts. There is at most one peer for each lease and family.
type Want struct {
	Self  Self
	Peers []Peer
}

// State is what is known of one way to a peer.
type State uint8

// The states.
const (
	Unknown     State = iota // not asked yet, or cannot be asked from here
	Well                     // packets arrive, and nothing speaks against the largest
	Narrow                   // small ones arrive, the largest do not
	Unreachable              // three small questions in a row were not answered
)

const states = 4

func (s State) String() string {
	return [states]string{"unknown", "well", "narrow", "unreachable"}[s%states]
}

// Verdict is what is known of one way to one peer.
type Verdict struct {
	State State
	Since time.Time // of the state
	// Size is the length of the largest IP packet that arrives, in bytes; 0: not known. It may be less than an MTU may be, where only small
	// packets arrive. Of an unreachable peer it is that of before.
	Size  int
	RTT   Quantiles // of the last questions that were answered; zero: none was
	Asked uint64    // small questions since the peer is known
	Lost  uint64    // of these
	// Reason is why the question that was lost last could not be sent. Empty: it was sent, or the way is well.
	Reason string
}

// Quantiles are round trip times that half and 99 of 100 do not exceed.
type Quantiles struct{ P50, P99 time.Duration }

// Report is what is known of a peer.
type Report struct {
	Peer Peer
	Ways [ways]Verdict // by Way
}

// Bad is what is not well.
type Bad struct {
	// Reports are those with a narrow or unreachable way, or one that was narrow when it was last asked, by lease and family; at most 1000. Figures are those of the last change of any. They are shared,
	// and must not be changed.
	Reports []Report
	More    int       // peers beyond these
	Asked   int       // peers of which something is known
	Heard   time.Time // when the last answer of any peer came; zero: none has
	Blocked error     // sockets cannot be opened, or nobody answers: why
	Silent  bool      // nobody answers
}

// Config is what a prober needs.
type Config struct {
	Log     *slog.Logger
	Changed func() // called when what Bad returns has changed, or a state or a size; must not block, and may be called by several at once
}
