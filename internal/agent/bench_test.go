package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"tulle/internal/backends"
	"tulle/internal/decision"
	"tulle/internal/fabric"
	"tulle/ip"
	"tulle/ip/iptest"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

// crowd is a view of the store with n hosts, each with a subnet of 10.0.0.0/8.
func crowd(b testing.TB, backendType string, n int) subnet.Set {
	b.Helper()
	config := fmt.Sprintf(`{"Network":"10.0.0.0/8","Backend":{"Type":%q}}`, backendType)
	network, _, err := flannel.ParseNetwork([]byte(config), 1)
	if err != nil {
		b.Fatal(err)
	}
	set := subnet.Set{Revision: subnet.Revision(n + 1), Network: &network}
	for i := range n {
		l := &subnet.Lease{Created: subnet.Revision(i), Revision: subnet.Revision(i)}
		l.Subnets.V4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 64 + byte(i>>8), byte(i), 0}), 24)
		l.Attrs = subnet.Attrs{Node: fmt.Sprint("n", i), Instance: "x", BackendType: backendType}
		l.Attrs.Public.V4 = netip.AddrFrom4([4]byte{172, 30, 1 + byte(i>>8), byte(i)})
		l.Attrs.BackendData.V4 = fmt.Appendf(nil, `{"VNI":1,"VtepMAC":"02:00:00:01:%02x:%02x"}`, i>>8, i&0xff)
		set.Leases = append(set.Leases, l)
	}
	return set
}

// ready is an agent whose kernel is as it should be.
func ready(b *testing.B, set subnet.Set) *Agent {
	b.Helper()
	k, dir := iptest.New(), b.TempDir()
	uplink := eth0(1)
	uplink.Addrs[0].Prefix = netip.MustParsePrefix("172.30.0.1/15")
	k.AddInterface(uplink)
	if err := k.External(ip.Plan{{Verb: ip.Add, New: ip.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("172.30.0.254"), Link: "eth0"}}}); err != nil {
		b.Fatal(err)
	}
	mine := subnet.Lease{Created: 1, Revision: 1}
	mine.Subnets.V4 = netip.MustParsePrefix("10.1.0.0/24")
	mine.Attrs = subnet.Attrs{Node: "self", Instance: "x", BackendType: set.Network.Backend.Type}
	mine.Attrs.Public.V4 = netip.MustParseAddr("172.30.0.1")
	mine.Attrs.BackendData.V4 = []byte(`{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}`)
	a, err := New(Config{
		Kernel: k, Log: slog.New(slog.DiscardHandler), StateDir: dir, RunDir: dir, Host: fabric.Host{Node: "self", Instance: "x"},
		Networks: []fabric.Config{{
			Store: leased{silent{}, mine}, Backends: backends.All(), SubnetFile: filepath.Join(dir, "subnet.env"),
			Options: decision.Options{PeerFilter: true, SourceCheck: true},
		}},
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.fabrics[0].Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		<-ended
	})
	a.fabrics[0].TakeIn(set)
	deadline := time.Now().Add(time.Minute)
	for ready := 0; ready < 2; {
		if st, _ := a.pass(b.Context()); st.Ready && st.Of("").PeerCount == len(set.Leases) {
			ready++
		} else if time.Now().After(deadline) {
			b.Fatalf("not ready: %s, %d peers, problems %.300v", st.Reason, st.Of("").PeerCount, st.Troubles.All)
		}
	}
	return a
}

// leased is a store of which a host has a lease.
type leased struct {
	subnet.Store
	lease subnet.Lease
}

func (l leased) Acquire(context.Context, subnet.Claim) (subnet.Held, error) {
	return owned{lease: l.lease}, nil
}

// owned is a lease that nothing happens to.
type owned struct {
	subnet.Held
	lease subnet.Lease
}

func (o owned) Lease() subnet.Lease          { return o.lease }
func (o owned) Remaining() time.Duration     { return subnet.Forever }
func (o owned) Lost() <-chan error           { return nil }
func (o owned) Claimants() []subnet.Claimant { return nil }

func (o owned) Complain(context.Context, *subnet.Complaint) error { return nil }

func (o owned) Update(context.Context, subnet.Attrs) error { return nil }

// BenchmarkPass is a pass over an unchanged world, and one in which a single host has come or gone.
func BenchmarkPass(b *testing.B) {
	for _, backendType := range []string{"vxlan", "host-gw"} {
		for _, n := range []int{1_000, 10_000} {
			set := crowd(b, backendType, n)
			b.Run(fmt.Sprintf("%s/%dpeers/unchanged", backendType, n), func(b *testing.B) {
				a := ready(b, set)
				var snapshots, lookups time.Duration
				a.cfg.Kernel = timed{a.cfg.Kernel, &snapshots, &lookups}
				b.ReportAllocs()
				for b.Loop() {
					if st, changed := a.pass(b.Context()); !st.Ready || changed {
						b.Fatalf("changed %v, reason %s", changed, st.Reason)
					}
				}
				b.ReportMetric(float64(snapshots.Nanoseconds())/float64(b.N), "snapshot-ns/op")
				b.ReportMetric(float64(lookups.Nanoseconds())/float64(b.N), "lookup-ns/op")
			})
		}
	}
	b.Run("vxlan/10000peers/one-more-or-less", func(b *testing.B) {
		set := crowd(b, "vxlan", 10_000)
		a := ready(b, set)
		less := set
		less.Leases = set.Leases[:len(set.Leases)-1]
		b.ReportAllocs()
		for n := 0; b.Loop(); n++ {
			a.fabrics[0].TakeIn([]subnet.Set{less, set}[n%2])
			if st, changed := a.pass(b.Context()); !st.Ready || !changed {
				b.Fatalf("changed %v, reason %s", changed, st.Reason)
			}
		}
	})
}

// BenchmarkIncrementalPass is a pass over one lease among many that has come or gone.
func BenchmarkIncrementalPass(b *testing.B) {
	for _, backendType := range []string{"vxlan", "host-gw"} {
		for _, n := range []int{1_000, 10_000} {
			b.Run(fmt.Sprintf("%s/%dpeers", backendType, n), func(b *testing.B) {
				set := crowd(b, backendType, n)
				a := ready(b, set)
				less := set
				less.Leases = slices.Delete(slices.Clone(set.Leases), n/2, n/2+1)
				a.cfg.Kernel = still{a.cfg.Kernel}
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					a.fabrics[0].TakeIn([]subnet.Set{less, set}[i%2])
					if !a.incrementalPass(b.Context()) {
						b.Fatal("it takes a full pass")
					}
				}
			})
		}
	}
}

// still is a kernel in which nothing takes any time.
type still struct{ ip.Kernel }

func (still) Apply(context.Context, ip.Plan) error { return nil }

// timed tells how much of a pass is the kernel's, which in memory is another than the real one's.
type timed struct {
	ip.Kernel
	snapshots, lookups *time.Duration
}

func (k timed) Snapshot(ctx context.Context, scope ip.Scope) (ip.Snapshot, error) {
	started := time.Now()
	defer func() { *k.snapshots += time.Since(started) }()
	return k.Kernel.Snapshot(ctx, scope)
}

func (k timed) Lookup(ctx context.Context, questions []ip.Question) ([]ip.Answer, error) {
	started := time.Now()
	defer func() { *k.lookups += time.Since(started) }()
	return k.Kernel.Lookup(ctx, questions)
}
