package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"tulle/internal/fabric"
	"tulle/internal/probe"
)

// PeerReports tells of all hosts whose subnets are routed to.
type PeerReports struct {
	Asked bool         `json:"asked"` // this host asks others whether packets arrive
	Peers []PeerReport `json:"peers"`
}

// PeerReport is a peer, and whether packets arrive there.
type PeerReport struct {
	fabric.PeerStatus
	Network  string    `json:"network,omitempty"` // that it is of, on a host with several
	Lease    string    `json:"lease"`
	Verdicts []Verdict `json:"verdicts"` // by family, the underlay first; none: it is not asked
}

// Verdict is what is known of one way to a peer in one family.
type Verdict struct {
	Family  string         `json:"family"`
	Way     string         `json:"way"`     // underlay or fabric
	Address netip.AddrPort `json:"address"` // that is asked
	State   string         `json:"state"`   // unknown, well, narrow or unreachable
	Since   time.Time      `json:"since,omitzero"`
	P50     time.Duration  `json:"p50"` // of round trips, in nanoseconds; 0: none was answered
	P99     time.Duration  `json:"p99"`
	Asked   uint64         `json:"asked"`            // small questions since the peer is known
	Lost    uint64         `json:"lost"`             // of these
	Size    int            `json:"size"`             // bytes of the largest packet that arrives; 0: not known
	Full    int            `json:"full"`             // and that should
	Reason  string         `json:"reason,omitempty"` // why the last question could not be sent
}

// Peers returns all peers with what is known of the ways to them.
func (a *Agent) Peers() PeerReports {
	all := PeerReports{Asked: a.probes.Prober != nil, Peers: []PeerReport{}}
	known := map[string][]Verdict{}
	if all.Asked {
		for _, r := range a.probes.Reports() {
			known[r.Peer.Lease] = append(known[r.Peer.Lease], verdictsOf(r)...)
		}
	}
	for _, n := range a.status.get().Networks {
		for _, p := range n.WithPeers().Peers {
			lease := p.Lease()
			all.Peers = append(all.Peers, PeerReport{PeerStatus: p, Network: n.Name, Lease: lease, Verdicts: append([]Verdict{}, known[lease]...)})
		}
	}
	return all
}

func verdictsOf(r probe.Report) (vs []Verdict) {
	for _, way := range probe.Ways() {
		if v := r.Ways[way]; r.Peer.At[way].IsValid() {
			vs = append(vs, Verdict{
				Family: r.Peer.Family.String(), Way: way.String(), Address: r.Peer.At[way], State: v.State.String(), Since: v.Since,
				P50: v.RTT.P50, P99: v.RTT.P99, Asked: v.Asked, Lost: v.Lost, Size: v.Size, Full: r.Peer.Size[way], Reason: v.Reason,
			})
		}
	}
	return vs
}

// Pinged is what came of asking a peer at once.
type Pinged struct {
	Node    string       `json:"node,omitempty"`
	Lease   string       `json:"lease"`
	Answers []PingAnswer `json:"answers"` // by family, the underlay first
}

// PingAnswer is what came of it one way, in one family.
type PingAnswer struct {
	Family  string          `json:"family"`
	Way     string          `json:"way"`
	Address netip.AddrPort  `json:"address"`
	Asked   int             `json:"asked"`            // small questions
	RTTs    []time.Duration `json:"rtts"`             // of those that were answered, in nanoseconds
	Size    int             `json:"size"`             // bytes of the largest packet that arrived; 0: none did
	Full    int             `json:"full"`             // of the largest that should
	Reason  string          `json:"reason,omitempty"` // why a question could not be sent
}

// Why a peer cannot be asked.
var (
	ErrProbesOff   = errors.New("hosts do not ask each other: start tulled with --probe=on, on both")
	ErrUnknownPeer = errors.New("no such peer")
)

// Ping asks a peer at once, count times each way: the one of a node id, of a lease, of a host's address, or of an address in its subnet. The error wraps
// ErrUnknownPeer if there is none. When ctx ends, it returns what it has.
func (a *Agent) Ping(ctx context.Context, who string, count int) (Pinged, error) {
	if a.probes.Prober == nil {
		return Pinged{}, ErrProbesOff
	}
	meant, err := a.peerCalled(who)
	if err != nil {
		return Pinged{}, err
	}
	answers := Pinged{Node: meant.Node, Lease: meant.Lease, Answers: []PingAnswer{}}
	var peers []probe.Peer
	for _, r := range a.probes.Reports() {
		if r.Peer.Lease == meant.Lease {
			peers = append(peers, r.Peer)
		}
	}
	if len(peers) == 0 {
		return answers, fmt.Errorf("the lease %s does not say where its host is asked: start tulled there with --probe=on", meant.Lease)
	}
	asked, errs := make([][]probe.Answer, len(peers)), make([]error, len(peers))
	var wg sync.WaitGroup
	for i, peer := range peers {
		wg.Go(func() { asked[i], errs[i] = a.probes.Prober.Ping(ctx, peer, count) })
	}
	wg.Wait()
	for i, peer := range peers {
		if errs[i] != nil && len(asked[i]) == 0 {
			answers.Answers = append(answers.Answers, unasked(peer, errs[i])...)
			continue
		}
		for _, one := range asked[i] {
			answers.Answers = append(answers.Answers, PingAnswer{
				Family: peer.Family.String(), Way: one.Way.String(), Address: peer.At[one.Way], Asked: one.Asked, RTTs: append([]time.Duration{}, one.RTTs...),
				Size: one.Size, Full: one.Full, Reason: one.Reason,
			})
		}
	}
	return answers, nil
}

// unasked are the ways that a peer could not be asked, and why.
func unasked(peer probe.Peer, err error) (answers []PingAnswer) {
	for _, way := range probe.Ways() {
		if at := peer.At[way]; at.IsValid() {
			answers = append(answers, PingAnswer{Family: peer.Family.String(), Way: way.String(), Address: at, RTTs: []time.Duration{}, Full: peer.Size[way], Reason: err.Error()})
		}
	}
	return answers
}

// peerCalled finds the peer that somebody means. Of two leases with one node id it is the first.
func (a *Agent) peerCalled(who string) (PeerReport, error) {
	addr, _ := netip.ParseAddr(who)
	prefix, _ := netip.ParsePrefix(who)
	addr = addr.Unmap()
	all := a.Peers().Peers
	for _, means := range []func(PeerReport) bool{
		func(p PeerReport) bool { return who == cmp.Or(p.Node, p.Lease) },
		func(p PeerReport) bool {
			return who == p.Lease || slices.ContainsFunc(p.Subnets, func(s netip.Prefix) bool { return s == prefix })
		},
		func(p PeerReport) bool { return slices.Contains(p.Public, addr) },
		func(p PeerReport) bool {
			return slices.ContainsFunc(p.Subnets, func(s netip.Prefix) bool { return s.Contains(addr) })
		},
	} {
		if i := slices.IndexFunc(all, means); i >= 0 {
			return all[i], nil
		}
	}
	return PeerReport{}, fmt.Errorf("%w: %.64q is no node id, lease or address of a peer of this host: see tulle peers", ErrUnknownPeer, who)
}
