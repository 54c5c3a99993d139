package sim

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"tulle/internal/hostfiles"
	"tulle/internal/invariant"
	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/subnettest"
)

const (
	convergence = time.Minute      // after the last fault every host is ready that is not in another's way
	quiet       = 65 * time.Second // then nothing changes, through two timed passes
)

// rest ends all faults and holds what becomes of the fleet against the invariants.
func (f *fleet) rest() {
	f.heal()
	f.await(convergence, f.unconverged)
	for _, h := range f.hosts {
		if why := h.unready(); why != "" && !f.contested(h) {
			f.fail("%s is not ready %v after the last fault: %s", h.name, convergence, why)
		}
	}
	if f.failed() || f.unconverged() == "" {
		f.atRest()
		return
	}
	// What is in the way expires, and an operator restarts who waits.
	f.sleep(f.plan.ttl + 15*time.Second)
	for _, h := range f.hosts {
		if why := h.unready(); why != "" {
			f.note("%s: restarted by the operator: %s", h.name, why)
			h.crash()
			h.start()
		}
	}
	f.await(convergence, f.unconverged)
	if why := f.unconverged(); why != "" {
		f.fail("the fleet does not come to rest: %s", why)
	}
	f.atRest()
}

// heal ends all faults.
func (f *fleet) heal() {
	f.note("everything heals")
	f.setDown(false)
	var originals []*host
	for i, h := range f.hosts {
		if i < f.plan.hosts {
			originals = append(originals, h)
		} else {
			h.crash()
		}
	}
	f.mu.Lock()
	f.hosts = originals
	f.mu.Unlock()
	f.configure()
	for _, key := range f.poisoned {
		if !f.leased(key) {
			f.store.Delete(key)
		}
	}
	for _, h := range f.hosts {
		if h.died.Load() {
			h.crash()
		}
		h.setStopped(false)
		h.setConnection(func(w *subnettest.Connection) { *w = subnettest.Connection{Latency: h.latency} })
		h.start()
	}
}

// leased reports whether a key is that of a host's lease.
func (f *fleet) leased(key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.truth.Leases, func(l *subnet.Lease) bool {
		return "subnets/"+subnet.KeyOf(l.Subnets) == key && l.Attrs.Node != ""
	})
}

// contested reports whether somebody else has, or seems to have, what the host wants.
func (f *fleet) contested(h *host) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.reformed || f.cloned[h.node] || len(f.truth.Leases) > len(f.hosts) {
		return true
	}
	return slices.ContainsFunc(f.truth.Leases, func(l *subnet.Lease) bool {
		return l.Attrs.Node != h.node && len(subnet.Overlap(l.Subnets, h.subnets)) > 0
	})
}

// unconverged says which host is not ready or does not know all others.
func (f *fleet) unconverged() string {
	for _, h := range f.hosts {
		if why := h.unready(); why != "" {
			return h.name + ": " + why
		}
		if st, _ := h.status(); len(st.Of("").Peers) < len(f.hosts)-1 {
			return fmt.Sprintf("%s knows %d peers", h.name, len(st.Of("").Peers))
		}
	}
	return ""
}

func (h *host) unready() string {
	st, ok := h.status()
	switch {
	case !ok:
		return "no daemon runs"
	case !st.Ready:
		return st.Reason
	case st.Of("").Lease == nil || !st.Of("").Lease.Held:
		return "it does not hold its lease: " + st.Degraded
	}
	return st.Degraded + strings.Join(st.Troubles.Texts(trouble.LeaseRenumbered, trouble.ConfigPending), "")
}

func (f *fleet) sleep(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// await waits until nothing is missing, or patience ends.
func (f *fleet) await(patience time.Duration, missing func() string) {
	for end := time.Now().Add(patience); time.Now().Before(end) && missing() != ""; {
		f.sleep(time.Second)
	}
}

// atRest judges a fleet to which nothing happens any more.
func (f *fleet) atRest() {
	if f.failed() {
		return
	}
	f.sleep(5 * time.Second) // the last to come have just published
	for _, h := range f.hosts {
		h.kernel.Unseen(deletions(pick(h.owned().Routes, h.addr)))
	}
	f.sleep(40 * time.Second) // a timed pass finds what nobody was told of
	var before []int32
	for _, h := range f.hosts {
		before = append(before, h.applied.Load())
	}
	f.sleep(quiet)
	f.checkOwners()
	var all []invariant.Host
	for i, h := range f.hosts {
		if n := h.applied.Load() - before[i]; n > 0 {
			f.fail("%s applies %d plans at rest", h.name, n)
		}
		all = append(all, f.judge(h))
	}
	for _, a := range all {
		for _, b := range all {
			if a.Name != b.Name {
				f.report(invariant.Reach(a, b)...)
			}
		}
		f.report(f.unexplained(a, all)...)
	}
}

// judge holds a host's kernel against what its agent wants, and returns what is in it.
func (f *fleet) judge(h *host) invariant.Host {
	wanted, err := hostfiles.ReadWanted(h.path("run"))
	if err != nil {
		f.fail("%s: %v", h.name, err)
		return invariant.Host{Name: h.name}
	}
	snap, err := h.kernel.Snapshot(context.Background(), wanted.Scope)
	if err != nil {
		f.fail("%s: %v", h.name, err)
	}
	f.report(invariant.AtRest(snap.Owned, wanted.State)...)
	f.report(invariant.Whole(wanted.State)...)
	f.report(invariant.Filtered(snap.Owned, !f.plan.open, f.leases())...)
	others, err := h.kernel.Snapshot(context.Background(), ip.Scope{Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	if err != nil {
		f.fail("%s: %v", h.name, err)
	}
	for _, op := range foreign() {
		if !slices.Contains(others.Foreign, op.New.(ip.Route)) {
			f.fail("%s lacks what is not Tulle's: %s", h.name, op)
		}
	}
	st, _ := h.status()
	out := invariant.Host{Name: h.name, State: snap.Owned}
	for _, s := range st.Of("").Lease.Subnets {
		out.Subnets.Set(ip.FamilyOf(s.Addr()), s)
	}
	for _, a := range eth0(h.addr).Addrs {
		out.Uplink.Addr.Set(ip.FamilyOf(a.Prefix.Addr()), a.Prefix.Addr())
	}
	return out
}

// leases is what the store has.
func (f *fleet) leases() []*subnet.Lease {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.truth.Leases
}

// unexplained are routes of a host that lead to none of the others.
func (f *fleet) unexplained(a invariant.Host, all []invariant.Host) []invariant.Violation {
	var vs []invariant.Violation
	for _, r := range a.State.Routes {
		fam := ip.FamilyOf(r.Dst.Addr())
		if !slices.ContainsFunc(all, func(b invariant.Host) bool { return b.Subnets.Of(fam) == r.Dst }) {
			vs = append(vs, invariant.Violation{Invariant: invariant.EqualAtRest, Detail: fmt.Sprintf("%s has a route to nobody: %s", a.Name, r.Dst)})
		}
	}
	return vs
}
