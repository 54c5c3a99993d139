package agent

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"tulle/internal/fabric"
	"tulle/internal/probe"
	"tulle/internal/trouble"
)

// Prober asks other hosts, all the time, whether packets arrive, and answers them. It works beside the passes and keeps no host from being ready.
type Prober interface {
	// Want says who is to be asked from now on. What it holds stays as it is.
	Want(probe.Want)
	// Run asks and answers until ctx ends.
	Run(ctx context.Context) error
	Reports() []probe.Report
	Bad() probe.Bad
	Summary() probe.Summary
	Ping(ctx context.Context, peer probe.Peer, count int) ([]probe.Answer, error)
}

// verdictsEvery is how long the prober's next word is left to wait after one: what befalls one peer often befalls many.
const verdictsEvery = time.Second

// ProbeStatus counts, by way and state, the peers that are asked whether packets arrive, each once for each family.
type ProbeStatus struct {
	Underlay ProbeCounts `json:"underlay"`
	Fabric   ProbeCounts `json:"fabric"`
	Narrow   int         `json:"narrowRoutes"`      // routes that name an MTU, since larger packets do not arrive
	Blocked  string      `json:"blocked,omitempty"` // why this host cannot ask in some way, or nobody answers

	Summary probe.Summary `json:"-"`
}

// ProbeCounts counts peers by state.
type ProbeCounts struct {
	Unknown     int `json:"unknown"`
	Well        int `json:"well"`
	Narrow      int `json:"narrow"`
	Unreachable int `json:"unreachable"`
}

// Total is how many there are.
func (c ProbeCounts) Total() int { return c.Unknown + c.Well + c.Narrow + c.Unreachable }

// probes is the host's prober as its agent sees it.
type probes struct {
	Prober // nil: hosts do not ask each other
	log    *slog.Logger
	turned chan struct{} // holds a word of the prober that something has changed

	mu    sync.Mutex
	given []*fabric.Probing    // what was handed on of each network; nil of those that have had no say
	mtus  map[netip.Prefix]int // that the last full pass took in
}

func newProbes(cfg Config) *probes {
	p := &probes{log: cfg.Log, turned: make(chan struct{}, 1), given: make([]*fabric.Probing, len(cfg.Networks))}
	if cfg.Prober != nil {
		p.Prober = cfg.Prober(p.turn)
	}
	return p
}

// turn takes the prober's word.
func (p *probes) turn() {
	select {
	case p.turned <- struct{}{}:
	default:
	}
}

// run has the prober work, and asks the loop for passes when something has changed.
func (p *probes) run(ctx context.Context, loop fabric.Loop) error {
	if p.Prober == nil {
		return nil
	}
	following, stop := context.WithCancel(ctx)
	var followed sync.WaitGroup
	followed.Go(func() { p.follow(following, loop) })
	defer followed.Wait()
	defer stop()
	if err := p.Run(ctx); ctx.Err() == nil {
		p.log.Error("hosts are no longer asked whether packets arrive: restart tulled", "err", err) // packets of the host go on all the same
		<-ctx.Done()
	}
	return ctx.Err()
}

// follow asks for a full pass if routes are to name another MTU, else, if something else is wrong than before, for one that tells. The status shows it all
// without one.
func (p *probes) follow(ctx context.Context, loop fabric.Loop) {
	var wrong []wrongPeer
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.turned:
		}
		now := p.routeMTUs()
		p.mu.Lock()
		same := maps.Equal(now, p.mtus)
		p.mu.Unlock()
		was := wrong
		wrong = wrongPeers(p.Bad())
		switch {
		case !same:
			loop.Wake()
		case !slices.Equal(was, wrong):
			loop.LeasesChanged()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(verdictsEvery):
		}
	}
}

// wrongPeer is what is wrong with a peer, or, without one, with this host.
type wrongPeer struct {
	peer   probe.Peer
	states [2]probe.State // by probe.Way
	sizes  [2]int
	text   string
}

func wrongPeers(bad probe.Bad) (all []wrongPeer) {
	for _, r := range bad.Reports {
		w := wrongPeer{peer: r.Peer}
		for _, way := range probe.Ways() {
			w.states[way], w.sizes[way] = r.Ways[way].State, r.Ways[way].Size
		}
		all = append(all, w)
	}
	if bad.Blocked != nil {
		all = append(all, wrongPeer{text: bad.Blocked.Error()})
	}
	return all
}

// routeMTUs are those that routes should name now.
func (p *probes) routeMTUs() map[netip.Prefix]int {
	bad := p.Bad()
	if bad.More > 0 {
		return fabric.RouteMTUs(p.Reports())
	}
	return fabric.RouteMTUs(bad.Reports)
}

// takeInVerdicts has the networks decide from what the prober says now.
func (a *Agent) takeInVerdicts() {
	p := a.probes
	if p.Prober == nil {
		return
	}
	mtus := p.routeMTUs()
	p.mu.Lock()
	p.mtus = mtus
	p.mu.Unlock()
	for _, f := range a.fabrics {
		f.UseRouteMTUs(mtus)
	}
}

// offerProbes hands on who is to be asked, if that is not what it was before. A network that has no say now wants what it wanted.
func (a *Agent) offerProbes() {
	p := a.probes
	if p.Prober == nil {
		return
	}
	p.mu.Lock()
	changed := false
	for i, f := range a.fabrics {
		changed = changed || f.Probing() != p.given[i]
		p.given[i] = f.Probing()
	}
	want, narrow := wantedOf(p.given), len(p.mtus) > 0
	p.mu.Unlock()
	if !changed {
		return
	}
	p.Want(want)
	if narrow {
		p.turn() // what was said of those that have gone holds for nobody who comes with their subnet
	}
}

// wantedOf is what the networks want together. This host is asked as the first of them says: peers of the others are asked over the underlay alone.
func wantedOf(given []*fabric.Probing) (want probe.Want) {
	for _, g := range given {
		switch {
		case g == nil:
		case want.Self == probe.Self{}:
			want = probe.Want{Self: g.Self, Peers: g.Peers}
		default:
			want.Peers = append([]probe.Peer(nil), want.Peers...)
			for _, peer := range g.Peers {
				peer.At[probe.Fabric], peer.Size[probe.Fabric] = netip.AddrPort{}, 0
				want.Peers = append(want.Peers, peer)
			}
		}
	}
	return want
}

// told is a list with what the prober finds wrong now, in place of what it found wrong before.
func (p *probes) told(list trouble.List) trouble.List {
	if p.Prober == nil {
		return list
	}
	for _, code := range fabric.ProbeCodes() {
		list = list.Without(code)
	}
	p.mu.Lock()
	given := known(p.given)
	p.mu.Unlock()
	if found := fabric.ProbeTroubles(given, p.Bad()); len(found.Count) > 0 {
		list = list.With()
		list.Join(found)
	}
	return list
}

// known is given without the networks that have had no say.
func known(given []*fabric.Probing) (all []*fabric.Probing) {
	for _, g := range given {
		if g != nil {
			all = append(all, g)
		}
	}
	return all
}

// status is how it stands now; nil if hosts do not ask each other.
func (p *probes) status() *ProbeStatus {
	if p.Prober == nil {
		return nil
	}
	sum := p.Summary()
	counts := func(w probe.Way) ProbeCounts {
		by := sum.Peers[w]
		return ProbeCounts{Unknown: by[probe.Unknown], Well: by[probe.Well], Narrow: by[probe.Narrow], Unreachable: by[probe.Unreachable]}
	}
	st := &ProbeStatus{Underlay: counts(probe.Underlay), Fabric: counts(probe.Fabric), Summary: sum}
	if blocked := p.Bad().Blocked; blocked != nil {
		st.Blocked = blocked.Error()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	st.Narrow = len(p.mtus)
	return st
}
