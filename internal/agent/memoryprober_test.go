package agent

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tulle/internal/fabric"
	"tulle/internal/probe"
	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

// memoryProber is a prober without a network: it keeps what it is told, and says what a test has it say.
type memoryProber struct {
	changed func()

	mu    sync.Mutex
	wants []probe.Want
	bad   map[peerID]probe.Report
	block error
	asked []peerID
}

type peerID struct {
	lease  string
	family ip.Family
}

func idOf(p probe.Peer) peerID { return peerID{p.Lease, p.Family} }

func (m *memoryProber) Want(w probe.Want) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wants = append(m.wants, w)
	maps.DeleteFunc(m.bad, func(id peerID, _ probe.Report) bool {
		return !slices.ContainsFunc(w.Peers, func(p probe.Peer) bool { return idOf(p) == id })
	})
}

func (m *memoryProber) Run(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (m *memoryProber) Reports() []probe.Report {
	all := []probe.Report{}
	for _, p := range m.wanted().Peers {
		r := probe.Report{Peer: p}
		for _, way := range probe.Ways() {
			r.Ways[way] = probe.Verdict{State: probe.Well, Size: p.Size[way], Asked: 4, RTT: probe.Quantiles{P50: time.Millisecond, P99: 2 * time.Millisecond}}
		}
		if bad, ok := m.says(p); ok {
			r = bad
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b probe.Report) int {
		return cmp.Or(cmp.Compare(a.Peer.Lease, b.Peer.Lease), cmp.Compare(a.Peer.Family, b.Peer.Family))
	})
	return all
}

func (m *memoryProber) says(p probe.Peer) (probe.Report, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.bad[idOf(p)]
	r.Peer = p
	return r, ok
}

func (m *memoryProber) Bad() probe.Bad {
	blocked := m.blocked()
	bad := probe.Bad{Blocked: blocked, Silent: blocked != nil}
	if blocked == nil {
		bad.Heard = time.Now()
	}
	for _, r := range m.Reports() {
		if _, ok := m.says(r.Peer); ok {
			bad.Reports = append(bad.Reports, r)
		}
	}
	return bad
}

func (m *memoryProber) blocked() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.block
}

func (m *memoryProber) Summary() (s probe.Summary) {
	for _, r := range m.Reports() {
		for _, way := range probe.Ways() {
			if r.Peer.At[way].IsValid() {
				s.Peers[way][r.Ways[way].State]++
			}
		}
	}
	return s
}

func (m *memoryProber) Ping(_ context.Context, p probe.Peer, count int) ([]probe.Answer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, idOf(p))
	if p.Family == ip.IPv6 {
		return nil, errors.New("no address to ask from")
	}
	return []probe.Answer{{Way: probe.Fabric, Asked: count, RTTs: []time.Duration{time.Millisecond}, Size: 1450, Full: 1450}}, nil
}

// wanted is what it was told last.
func (m *memoryProber) wanted() probe.Want {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.wants) == 0 {
		return probe.Want{}
	}
	return m.wants[len(m.wants)-1]
}

func (m *memoryProber) told() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.wants)
}

// say has it find something out about one way to a peer: State Well has it forget all that is bad there.
func (m *memoryProber) say(lease string, f ip.Family, way probe.Way, v probe.Verdict) {
	m.mu.Lock()
	id := peerID{lease, f}
	if m.bad == nil {
		m.bad = map[peerID]probe.Report{}
	}
	if v.State == probe.Well {
		delete(m.bad, id)
	} else {
		r := m.bad[id]
		r.Ways[way] = v
		m.bad[id] = r
	}
	m.mu.Unlock()
	m.changed()
}

func (m *memoryProber) sayBlocked(err error) {
	m.mu.Lock()
	m.block = err
	m.mu.Unlock()
	m.changed()
}

// give has an agent ask by this prober, and be asked by a key that tells the host.
func (m *memoryProber) give(h *node) func(*Config) {
	return func(cfg *Config) {
		for i := range cfg.Networks {
			cfg.Networks[i].Probe = subnet.Probe{Port: 8473, Key: subnet.ProbeKey{byte(h.n)}}
		}
		cfg.Prober = func(changed func()) Prober {
			m.changed = changed
			return m
		}
	}
}

// probers gives each host of a world one.
func (w *world) probers() []*memoryProber {
	all := make([]*memoryProber, len(w.hosts))
	for i, h := range w.hosts {
		all[i] = &memoryProber{}
		h.change = all[i].give(h)
	}
	return all
}

// probed is the value of a flanneld's lease whose host says where it is asked.
func probed(value string, key byte, node string) string {
	var attrs flannel.Attrs
	if attrs.UnmarshalJSON([]byte(value)) != nil {
		return value // nobody takes it for a lease
	}
	attrs.Node, attrs.Probe = node, subnet.Probe{Port: 8473, Key: subnet.ProbeKey{key}}
	text, err := attrs.MarshalJSON()
	if err != nil {
		panic(err)
	}
	return string(text)
}

// route is the host's route to a prefix, as its kernel has it.
func (h *node) route(dst netip.Prefix) ip.Route {
	for _, r := range h.owned().Routes {
		if r.Dst == dst {
			return r
		}
	}
	return ip.Route{}
}

// sayAny has it say something of any of the peers.
func (m *memoryProber) sayAny(r *rand.Rand) {
	peers := m.wanted().Peers
	if len(peers) == 0 {
		return
	}
	p := peers[r.IntN(len(peers))]
	way := probe.Underlay
	if p.At[probe.Fabric].IsValid() {
		way = probe.Fabric
	}
	m.say(p.Lease, p.Family, way, []probe.Verdict{{State: probe.Narrow, Size: 1300}, {State: probe.Narrow, Size: 1400}, {State: probe.Unreachable}, {State: probe.Well}}[r.IntN(4)])
}

// wantAsked checks that those are asked whose leases say where, among the peers that packets go to, and no others.
func wantAsked(t *testing.T, h *node, m *memoryProber) {
	t.Helper()
	want, err := h.agent.Wanted(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	due := map[peerID]bool{}
	for _, p := range h.agent.Status().Of("").Peers {
		for _, s := range p.Subnets {
			routed := slices.ContainsFunc(want.State.Routes, func(r ip.Route) bool { return r.Dst == s })
			if routed && strings.HasPrefix(p.Node, "of-") {
				due[peerID{p.Lease(), ip.FamilyOf(s.Addr())}] = true
			}
		}
	}
	peers := m.wanted().Peers
	for _, p := range peers {
		if !due[idOf(p)] || p.Key == (probe.Key{}) || !p.At[probe.Underlay].IsValid() {
			t.Fatalf("asked is %+v", p)
		}
	}
	if len(peers) != len(due) {
		t.Fatalf("%d are asked, want %d", len(peers), len(due))
	}
}

// brokenProber gives up at once.
type brokenProber struct{ memoryProber }

func (*brokenProber) Run(context.Context) error { return fabric.ErrUnconfirmed }

// probeTrouble has a host's prober say something bad, and then that all is well.
func probeTrouble(bad, good func(*memoryProber)) affliction {
	m := &memoryProber{}
	return affliction{
		prepare: func(w *world, h *node) {
			for _, o := range w.hosts {
				o.change = (&memoryProber{}).give(o)
			}
			h.change = m.give(h)
		},
		cause: func(w *world, _ *node) {
			w.within(soon, "asked", func(*node) bool { return len(m.wanted().Peers) > 0 })
			bad(m)
		},
		cure: func(*world, *node) { good(m) },
	}
}

// wayTrouble is probeTrouble of one way to a peer.
func wayTrouble(way probe.Way, v probe.Verdict) affliction {
	say := func(v probe.Verdict) func(*memoryProber) {
		return func(m *memoryProber) { m.say(m.wanted().Peers[0].Lease, ip.IPv4, way, v) }
	}
	return probeTrouble(say(v), say(probe.Verdict{State: probe.Well}))
}
