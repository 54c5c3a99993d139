package subnettest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"tulle/subnet"
	"tulle/subnet/flannel"
)

// Harness is an empty store under test, and the access to its keys that other programs have. Keys are relative to the prefix.
type Harness interface {
	// Open returns the store as another host sees it. If it is an io.Closer, Close is that host's death.
	Open() subnet.Store
	// OpenAfar is Open for a host with which something happens.
	OpenAfar() Far
	// Put writes a key that expires after ttl, or never if ttl is 0.
	Put(key, value string, ttl time.Duration)
	Delete(key string)
	// Wipe deletes all keys in one step.
	Wipe()
	// Compact makes the store forget its revisions before the present one.
	Compact()
	Get(key string) (value string, expires, ok bool)
	Keys() []string
}

// Far is a store as seen by a host whose connection to it can be cut and mended, and whose machine can be suspended: its timers stand
// still, and its uptime goes on.
type Far struct {
	subnet.Store
	Cut, Mend func()
	Sleep     func(time.Duration)
}

// Run runs the suite. each gives a test its harness, inside a bubble of testing/synctest if the store can live in one.
func Run(t *testing.T, each func(t *testing.T, test func(t *testing.T, h Harness))) {
	for _, group := range []map[string]func(*testing.T, Harness){acquireTests(), conflictTests(), strayTests(), heldTests(), watchTests(), pastTests(), lossTests(), standingTests(), termTests(), compactionTests(), sleepTests()} {
		for name, test := range group {
			t.Run(name, func(t *testing.T) { each(t, test) })
		}
	}
}

// patience bounds every wait; a test that works does not come near it.
const patience = 20 * time.Second

const (
	config4    = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`
	config6    = `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00:5::/48","Backend":{"Type":"vxlan"}}`
	configDual = `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:5::/48","Backend":{"Type":"vxlan"}}`

	// flanneldValue is what a flanneld at 10.99.0.1 writes.
	flanneldValue = `{"PublicIP":"10.99.0.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"4e:f3:a5:78:97:d4"}}`
)

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

func start(t *testing.T, h Harness, claim subnet.Claim) *host {
	t.Helper()
	x, err := tryStart(t, h, claim)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// startAfar starts a host with which something happens.
func startAfar(t *testing.T, h Harness, claim subnet.Claim) (*host, Far) {
	t.Helper()
	far := h.OpenAfar()
	x, err := startBy(t, far.Store, claim)
	if err != nil {
		t.Fatal(err)
	}
	return x, far
}

func tryStart(t *testing.T, h Harness, claim subnet.Claim) (*host, error) {
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

func keyOf(s subnet.Subnets) string { return leasesDir + subnet.KeyOf(s) }

func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }

func encode(t *testing.T, a subnet.Attrs) string {
	t.Helper()
	value, err := json.Marshal(flannel.Attrs(a))
	if err != nil {
		t.Fatal(err)
	}
	return string(value)
}

// leaseKeys returns the keys that flannel would take for leases, in order.
func leaseKeys(h Harness) []string {
	keys := slices.DeleteFunc(h.Keys(), func(key string) bool { return !strings.HasPrefix(key, "subnets") })
	slices.Sort(keys)
	return keys
}

// wantLeaseKeys fails unless exactly these keys are there.
func wantLeaseKeys(t *testing.T, h Harness, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := leaseKeys(h); !slices.Equal(got, want) {
		t.Fatalf("lease keys = %q, want %q", got, want)
	}
}

// watcher collects what Watch delivers.
type watcher struct {
	t    *testing.T
	sets chan subnet.Set
	last subnet.Set
}

func watch(t *testing.T, h Harness) *watcher {
	t.Helper()
	return watchBy(t, h.Open())
}

func watchBy(t *testing.T, store subnet.Store) *watcher {
	t.Helper()
	w := &watcher{t: t, sets: make(chan subnet.Set, 1000)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- store.Watch(ctx, func(set subnet.Set) { w.sets <- set }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch = %v, want nil at the end of its context", err)
		}
		(&host{t: t, store: store}).kill()
	})
	return w
}

// until waits for a set that satisfies ok.
func (w *watcher) until(what string, ok func(subnet.Set) bool) subnet.Set {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case w.last = <-w.sets:
			if ok(w.last) {
				return w.last
			}
		case <-deadline:
			w.t.Fatalf("no set with %s; the last one was %+v", what, w.last)
		}
	}
}

// holdsFor fails if a set that does not satisfy ok arrives within d.
func (w *watcher) holdsFor(d time.Duration, what string, ok func(subnet.Set) bool) {
	w.t.Helper()
	deadline := time.After(d)
	for {
		select {
		case w.last = <-w.sets:
			if !ok(w.last) {
				w.t.Fatalf("set without %s: %+v", what, w.last)
			}
		case <-deadline:
			return
		}
	}
}

func hasLease(s subnet.Subnets) func(subnet.Set) bool {
	return func(set subnet.Set) bool {
		return slices.ContainsFunc(set.Leases, func(l *subnet.Lease) bool { return l.Subnets == s })
	}
}

func problemKeys(set subnet.Set) []string {
	var keys []string
	for _, p := range set.Problems {
		keys = append(keys, p.Key)
	}
	return keys
}
