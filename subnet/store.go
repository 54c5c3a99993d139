package subnet

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"
)

// DefaultTTL is how long a lease outlives its owner.
const DefaultTTL = 24 * time.Hour

// Forever is the TTL of a lease that never expires.
const Forever time.Duration = math.MaxInt64

// LeaseMargin is how much of the time of a lease its holder gives up, for clocks that differ: one part in this many.
const LeaseMargin = 50

// Store is where the network configuration and the leases of all hosts live.
type Store interface {
	// Acquire makes the claim hold a lease and keeps it alive until ctx ends, Release is called or the lease is lost.
	// It returns *ConflictError if another host that lives, or may live, uses the claim's identity or address, ErrNoNetwork while there is
	// no valid configuration, and ErrExhausted if no subnet is free.
	Acquire(ctx context.Context, claim Claim) (Held, error)
	// Watch delivers the whole view at once and after every change, the newest only, until ctx ends or the store is closed. Whatever
	// goes wrong meanwhile, bad credentials among it, it tries again. deliver must not block for long.
	//
	// A sudden loss is held back (see Holdback): a view from which more than half of the leases of the last one delivered
	// went, or that is of older data, is delivered with those leases until all are there again or a second complete read,
	// HoldbackTime later, lacks them too. A problem with the leases' folder says so meanwhile. A lease whose subnet
	// belongs to another host by then is never kept.
	Watch(ctx context.Context, deliver func(Set)) error
}

// Held is a lease that is being kept alive.
type Held interface {
	// Lease returns the lease as last written.
	Lease() Lease
	// Remaining returns how long the lease is this host's without another word from the store, by a clock that also counts
	// the time in which the machine is suspended. At zero or less another host may have the subnet. The lease that never
	// expires has Forever left.
	Remaining() time.Duration
	// Claimants returns the hosts that have lately been refused a lease because this one lives, in order.
	Claimants() []Claimant
	// Update publishes other attributes. The subnets stay.
	Update(ctx context.Context, attrs Attrs) error
	// Complain has the store hold what this host says of its peers; nil: nothing. The complaint goes with the lease. Its Node and Lease are filled in. What is there
	// already is not written again, but for that of a lease that never expires, which is good for ComplaintTime: call it again, now and then.
	Complain(ctx context.Context, c *Complaint) error
	// Lost receives the reason, once, when the lease is no longer this host's.
	Lost() <-chan error
	// Release gives the subnets back to the pool. A reservation stays.
	Release(ctx context.Context) error
}

// Claim is what a host asks for.
type Claim struct {
	Attrs    Attrs          // to be published; Node must be set
	Previous Subnets        // held before, by local record: taken again only if free
	Only     bool           // Previous or nothing: containers use it already
	Avoid    []netip.Prefix // networks that the host is in: a subnet other than Previous overlaps none of them
	TTL      time.Duration  // zero: DefaultTTL; Forever: the lease is a reservation, and stays until it is released
	Answer   Answer         // to questions, while the lease is held; nil: they are left unanswered
}

// ErrNoNetwork tells that the store holds no valid network configuration.
var ErrNoNetwork = errors.New("no network configuration")

// ErrExhausted tells that every subnet of the pool is leased.
var ErrExhausted = errors.New("no free subnet")

// ErrLost is wrapped by what Held.Lost delivers: the lease expired, was deleted or belongs to another node.
var ErrLost = errors.New("lease lost")

// What two hosts may both claim.
const (
	nodeID        = "node id"
	publicAddress = "public address"
)

// ConflictError tells that a host that lives, or may live, already uses the node id or the public address of a claim.
type ConflictError struct {
	Field   string // nodeID or publicAddress
	Value   string
	Node    string     // node id of the other host
	Address netip.Addr // public address of the other host
	Subnets Subnets    // what the other host holds

	Elsewhere bool // the node id is used on other hardware
	Silent    bool // it is, and the host there does not answer
}

func (e *ConflictError) Error() string {
	if e.Silent {
		return fmt.Sprintf("%s %s belongs to other hardware, at %s, which holds %s and does not answer: give a copy of that machine another id "+
			"with --node-id; if that machine is gone, run: tulle leases release '%s', or wait until its lease ends",
			e.Field, e.Value, e.Address, KeyOf(e.Subnets), KeyOf(e.Subnets))
	}
	fix := "give this host another one with --node-id"
	if e.Field != nodeID {
		fix = "choose this host's own with --public-ip or --iface"
	}
	return fmt.Sprintf("%s %s is in use by the live host %s at %s, which holds %s: %s",
		e.Field, e.Value, e.Node, e.Address, KeyOf(e.Subnets), fix)
}
