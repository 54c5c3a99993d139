package sim

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tulle/internal/agent"
	"tulle/internal/invariant"
	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/subnettest"
)

const (
	steadyAfter = time.Minute      // a peer that has not changed for so long is known to all who can hear
	lossGrace   = 10 * time.Second // for settling what the store forgot, once a host reaches it
)

// fleet is a store and hosts on one segment, and what the oracle knows of them.
type fleet struct {
	t       *testing.T
	plan    schedule
	verbose bool
	started time.Time
	store   *subnettest.Store
	hosts   []*host
	dir     string
	nextIP  int
	backups []subnettest.Backup
	down    bool // the whole store

	mu         sync.Mutex
	history    []string
	violations []string
	truth      subnet.Set
	peers      map[string]*peer // by node id
	losses     int              // how often the store lost data
	lostAt     time.Time
	poisoned   []string        // keys
	cloned     map[string]bool // node ids that two machines have
	reformed   bool            // another configuration was written, by which hosts may tear down
}

// peer is what the store has said of a node.
type peer struct {
	lease subnet.Lease
	since time.Time // it is like this
	gone  time.Time // zero: it is there
}

func (f *fleet) now() time.Duration { return time.Since(f.started).Round(time.Millisecond) }

// note writes a line into the history.
func (f *fleet) note(format string, args ...any) {
	line := fmt.Sprintf("%9s  ", f.now()) + fmt.Sprintf(format, args...)
	if f.verbose {
		f.t.Log(line)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	const most = 60
	if f.history = append(f.history, line); len(f.history) > 2*most {
		f.history = append(f.history[:0], f.history[len(f.history)-most:]...)
	}
}

func (f *fleet) report(vs ...invariant.Violation) {
	const most = 3 // of one kind at one time
	for _, v := range vs[:min(len(vs), most)] {
		f.fail("%s", v)
	}
}

func (f *fleet) fail(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	f.note("VIOLATION %s", line)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.violations = append(f.violations, fmt.Sprintf("at %s: %s", f.now(), line))
}

func (f *fleet) failed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.violations) > 0
}

// observed sees every revision of the store.
func (f *fleet) observed(set subnet.Set) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	f.truth = set
	seen := map[string]bool{}
	for _, l := range set.Leases {
		if l.Attrs.Node == "" || seen[l.Attrs.Node] {
			continue
		}
		seen[l.Attrs.Node] = true
		p := f.peers[l.Attrs.Node]
		switch {
		case p == nil || !sameLease(p.lease, *l):
			f.peers[l.Attrs.Node] = &peer{lease: *l, since: now}
		case !p.gone.IsZero():
			// Only what the store lost, and got back soon, was never away.
			if p.gone.Before(f.lostAt) || now.Sub(f.lostAt) > lossGrace {
				p.since = now
			}
			p.gone = time.Time{}
		}
	}
	for node, p := range f.peers {
		if !seen[node] && p.gone.IsZero() {
			p.gone = now
		}
	}
}

func sameLease(a, b subnet.Lease) bool {
	return a.Subnets == b.Subnets && a.Attrs.Public == b.Attrs.Public &&
		string(a.Attrs.BackendData.V4) == string(b.Attrs.BackendData.V4) && string(a.Attrs.BackendData.V6) == string(b.Attrs.BackendData.V6)
}

// kept judges a plan by the peers that have not changed for long.
func (f *fleet) kept(h *host, plan ip.Plan) []invariant.Violation {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if f.reformed || h.blank && now.Sub(f.lostAt) < 2*lossGrace { // who has no records cannot know what the store lost
		return nil
	}
	var steady []invariant.Peer
	for node, p := range f.peers {
		// Of those that the store has just lost, the ones count who can say so.
		recently := p.gone.IsZero() || !p.gone.Before(f.lostAt) && now.Sub(f.lostAt) < lossGrace && f.speaks(node)
		if node != h.node && recently && now.Sub(p.since) > steadyAfter && f.counts(h, p.lease) {
			steady = append(steady, invariant.Peer{Name: node, Subnets: p.lease.Subnets, Public: p.lease.Attrs.Public, MAC: macs(p.lease)})
		}
	}
	return invariant.Kept(plan, steady)
}

// speaks reports whether the node's daemon has run and reached the store for a while. The lock is held.
func (f *fleet) speaks(node string) bool {
	return slices.ContainsFunc(f.hosts, func(h *host) bool {
		return h.node == node && h.proc != nil && !h.died.Load() && time.Since(h.began) > lossGrace/2 &&
			!h.okSince.IsZero() && time.Since(h.okSince) > lossGrace/2
	})
}

// counts reports whether no other lease stands against this one.
func (f *fleet) counts(h *host, l subnet.Lease) bool {
	if len(subnet.Overlap(h.subnets, l.Subnets)) > 0 {
		return false
	}
	for _, other := range f.truth.Leases {
		if other.Subnets == l.Subnets && other.Attrs.Node == l.Attrs.Node {
			continue
		}
		if len(subnet.Overlap(other.Subnets, l.Subnets)) > 0 || other.Attrs.Public == l.Attrs.Public {
			return false
		}
	}
	return true
}

// macs reads what vxlan announces.
func macs(l subnet.Lease) ip.Dual[ip.MAC] {
	var out ip.Dual[ip.MAC]
	for _, f := range ip.Families() {
		var data struct{ VtepMAC string }
		if json.Unmarshal(l.Attrs.BackendData.Of(f), &data) == nil {
			if mac, err := ip.ParseMAC(data.VtepMAC); err == nil {
				out.Set(f, mac)
			}
		}
	}
	return out
}

// changed holds what a host says after a pass against what all others say.
func (f *fleet) changed(h *host, p *process, st agent.Status) {
	for _, fault := range st.Troubles.Of(trouble.Fault) {
		f.report(invariant.Violation{Invariant: fault.Subject, Detail: fault.Text})
	}
	if st.Of("").Lease == nil {
		return
	}
	var own subnet.Subnets
	for _, s := range st.Of("").Lease.Subnets {
		own.Set(ip.FamilyOf(s.Addr()), s)
	}
	f.mu.Lock()
	if h.proc != p {
		f.mu.Unlock()
		return
	}
	var vs []invariant.Violation
	switch was := h.subnets; {
	case was == subnet.Subnets{}:
		vs = f.comesBack(h, own)
	case was != own:
		vs = []invariant.Violation{{Invariant: invariant.KeptSubnet, Detail: fmt.Sprintf("%s had %s and has %s in one run",
			h.name, subnet.KeyOf(was), subnet.KeyOf(own))}}
	}
	h.subnets = own
	fresh := st.Of("").Lease.Held && !h.holds
	h.holds = st.Of("").Lease.Held
	f.mu.Unlock()
	f.report(vs...)
	if fresh {
		f.note("%s: holds %s", h.name, subnet.KeyOf(own))
		f.checkOwners()
	}
}

// checkOwners holds what all hosts say of their leases against one another.
func (f *fleet) checkOwners() {
	var holders []invariant.Owner
	var hosts []*host
	for _, h := range f.everyone() {
		st, ok := h.status()
		if !ok || st.Of("").Lease == nil || !st.Of("").Lease.Held {
			continue
		}
		x := invariant.Owner{Host: h.name}
		for _, s := range st.Of("").Lease.Subnets {
			x.Subnets.Set(ip.FamilyOf(s.Addr()), s)
		}
		holders, hosts = append(holders, x), append(hosts, h)
	}
	if len(invariant.Apart(holders)) == 0 {
		return
	}
	for i := range holders {
		for j := range i {
			if vs := invariant.Apart([]invariant.Owner{holders[i], holders[j]}); len(vs) > 0 && !f.excused(hosts[i], hosts[j]) {
				f.report(vs...)
			}
		}
	}
}

func (f *fleet) everyone() []*host {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.hosts)
}

// excused reports whether two hosts may believe the same for now: the store forgot what it had promised to one that it
// does not reach.
func (f *fleet) excused(a, b *host) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	a.countLosses()
	b.countLosses()
	return a.lastLoss < f.losses || b.lastLoss < f.losses
}

// hears reports whether the host has reached the store for long enough to know what it says.
func (h *host) hears() bool { return !h.okSince.IsZero() && time.Since(h.okSince) > lossGrace }

// countLosses takes note of the losses of data of which the host has had time to hear. The fleet's lock is held.
func (h *host) countLosses() {
	if h.hears() && time.Since(h.fleet.lostAt) > lossGrace {
		h.lastLoss = h.fleet.losses
	}
}

// lost takes note that the store lost data.
func (f *fleet) lost() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range f.hosts {
		h.countLosses()
	}
	f.losses++
	f.lostAt = time.Now()
}

// reachability takes note of whether the host reaches the store, and hears of it.
func (f *fleet) reachability(h *host) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h.countLosses()
	w := h.connection
	ok := !f.down && !w.Cut && !w.Stopped && !w.NoEvents && !w.NoAnswers && w.Lag == 0
	if !ok {
		h.okSince = time.Time{}
	} else if h.okSince.IsZero() {
		h.okSince = time.Now()
	}
}

// begins takes note of a new run.
func (f *fleet) begins(h *host, p *process) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h.proc, h.holds, h.began = p, false, time.Now()
	h.blank = h.earlier == subnet.Subnets{}
	h.leased = subnet.Subnets{}
	if p := f.peers[h.node]; p != nil && p.gone.IsZero() {
		h.leased = p.lease.Subnets
	}
}

// ends takes note of the end of a run.
func (f *fleet) ends(h *host) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h.proc, h.holds = nil, false
	if h.subnets != (subnet.Subnets{}) {
		h.earlier = h.subnets
	}
	h.subnets = subnet.Subnets{}
}

// comesBack judges what a host holds first in a new run by what it held in the one before. The lock is held.
func (f *fleet) comesBack(h *host, own subnet.Subnets) []invariant.Violation {
	if h.earlier == (subnet.Subnets{}) || own == h.earlier || own == h.leased || f.reformed || f.cloned[h.node] {
		return nil
	}
	for _, key := range f.poisoned { // one may be in the way, or look like a reservation
		s, err := subnet.ParseKey(strings.TrimPrefix(key, "subnets/"))
		if err == nil && len(subnet.Overlap(s, h.earlier))+len(subnet.Overlap(s, own)) > 0 {
			return nil
		}
	}
	for _, l := range f.truth.Leases {
		if l.Attrs.Node != h.node && len(subnet.Overlap(l.Subnets, h.earlier)) > 0 {
			return nil
		}
	}
	return []invariant.Violation{{Invariant: invariant.KeptSubnet, Detail: fmt.Sprintf("%s had %s, which is free, and comes back with %s",
		h.name, subnet.KeyOf(h.earlier), subnet.KeyOf(own))}}
}
