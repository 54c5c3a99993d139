package subnettest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"testing"
	"time"

	"tulle/subnet"
)

// Harness is an empty store under test, and what operators, other programs and accidents do to it. It speaks of networks and leases,
// not of how the store writes them down: RunInKeys adds that for a store of keys and values.
type Harness interface {
	opener
	// Configure stores the network configuration.
	Configure(n subnet.Network)
	// Put writes a lease that expires after ttl, or never if ttl is 0.
	Put(s subnet.Subnets, a subnet.Attrs, ttl time.Duration)
	// Delete ends a lease, as its expiry does.
	Delete(s subnet.Subnets)
	// Leases returns what is stored, by subnet.
	Leases() []subnet.Lease
	// Wipe deletes everything in one step.
	Wipe()
	// Compact makes the store forget its revisions before the present one.
	Compact()
}

type opener interface {
	// Open returns the store as another host sees it. If it is an io.Closer, Close is that host's death.
	Open() subnet.Store
	// OpenAfar is Open for a host with which something happens.
	OpenAfar() Far
}

// Far is a store as seen by a host whose connection to it can be cut and mended, and whose machine can be suspended: its timers stand
// still, and its uptime goes on.
type Far struct {
	subnet.Store
	Cut, Mend func()
	Sleep     func(time.Duration)
}

// Run runs what any store must do. each gives a test its harness, inside a bubble of testing/synctest if the store can live in one.
func Run(t *testing.T, each func(t *testing.T, test func(t *testing.T, h Harness))) {
	runAll(t, each, acquireTests(), conflictTests(), strayTests(), heldTests(), watchTests(), formerOwnerTests(), lossTests(), standingTests(), termTests(), compactionTests(), sleepTests(), askTests())
}

func runAll[H any](t *testing.T, each func(t *testing.T, test func(t *testing.T, h H)), groups ...map[string]func(*testing.T, H)) {
	for _, group := range groups {
		for name, test := range group {
			t.Run(name, func(t *testing.T) { each(t, test) })
		}
	}
}

// patience bounds every wait; a test that works does not come near it.
const patience = 20 * time.Second

// claimOf is the claim of host n, the same in every run of it.
func claimOf(n int) subnet.Claim {
	claim := subnet.Claim{Attrs: subnet.Attrs{
		BackendType: "vxlan",
		Node:        fmt.Sprintf("node-%d", n),
		Instance:    fmt.Sprintf("machine-%d", n),
	}}
	claim.Attrs.Public.V4 = netip.AddrFrom4([4]byte{192, 0, 2, byte(n)})
	claim.Attrs.Public.V6 = netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", n))
	claim.Attrs.BackendData.V4 = json.RawMessage(fmt.Sprintf(`{"VNI":1,"VtepMAC":"02:00:00:00:00:%02x"}`, n))
	return claim
}

// host is one that holds a lease.
type host struct {
	t     *testing.T
	store subnet.Store
	held  subnet.Held
}

func start(t *testing.T, h opener, claim subnet.Claim) *host {
	t.Helper()
	x, err := tryStart(t, h, claim)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// startAfar starts a host with which something happens.
func startAfar(t *testing.T, h opener, claim subnet.Claim) (*host, Far) {
	t.Helper()
	far := h.OpenAfar()
	x, err := startBy(t, far.Store, claim)
	if err != nil {
		t.Fatal(err)
	}
	return x, far
}

func tryStart(t *testing.T, h opener, claim subnet.Claim) (*host, error) {
	t.Helper()
	return startBy(t, h.Open(), claim)
}

func startBy(t *testing.T, store subnet.Store, claim subnet.Claim) (*host, error) {
	t.Helper()
	x := &host{t: t, store: store}
	t.Cleanup(x.kill)
	var err error
	x.held, err = x.store.Acquire(t.Context(), claim)
	return x, err
}

// kill ends the host without telling the store.
func (x *host) kill() {
	if c, ok := x.store.(io.Closer); ok {
		if err := c.Close(); err != nil {
			x.t.Error(err)
		}
	}
}

func (x *host) subnets() subnet.Subnets { return x.held.Lease().Subnets }
