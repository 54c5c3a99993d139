package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"tulle/ip"
)

const (
	mostPings     = 4   // at the same time
	mostQuestions = 100 // small ones of one ping, each way
	pingEvery     = onward
)

// Answer is what came of asking a peer one way.
type Answer struct {
	Way    Way
	Asked  int             // small questions
	RTTs   []time.Duration // of those that were answered, in their order
	Size   int             // bytes of the largest IP packet that arrived; 0: none did
	Full   int             // bytes of the largest that should
	Reason string          // why the last question that could not be sent could not; empty: all could
}

// Ping asks a peer now, whether or not it is wanted: count small questions each way, one every 200 ms at the most, and then for the largest size. All
// ways are asked at the same time. It shares the limit of all questions, so it may take longer, up to a minute where sizes are lost. When ctx ends, it
// returns what it has, and the cause.
func (p *Prober) Ping(ctx context.Context, peer Peer, count int) ([]Answer, error) {
	if count < 1 || count > mostQuestions {
		return nil, fmt.Errorf("count is %d: want 1 to %d", count, mostQuestions)
	}
	select {
	case p.pings <- struct{}{}:
		defer func() { <-p.pings }()
	default:
		return nil, fmt.Errorf("%d pings run already: try again when one has ended", mostPings)
	}
	p.mu.Lock()
	running := p.running
	p.mu.Unlock()
	if !running {
		return nil, errors.New("nobody is asked: probing does not run")
	}
	var asked sync.WaitGroup
	var answers [ways]*Answer
	for _, way := range Ways() {
		if peer.At[way] == (netip.AddrPort{}) {
			continue
		}
		answers[way] = &Answer{Way: way}
		asked.Go(func() { p.pingOne(ctx, peer, count, answers[way]) })
	}
	asked.Wait()
	var out []Answer
	for _, a := range answers {
		if a != nil {
			out = append(out, *a)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("the peer has no address to ask")
	}
	return out, context.Cause(ctx)
}

// pingOne asks one way, until ctx ends.
func (p *Prober) pingOne(ctx context.Context, peer Peer, count int, a *Answer) {
	small := smallPacket(peer.Family)
	a.Full = min(max(peer.Size[a.Way], small), maxPacket)
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	ask := func(size int) bool {
		o := p.order(ctx, request{way: a.Way, family: peer.Family, key: peer.Key, to: peer.At[a.Way], size: size})
		if o.reason != "" {
			a.Reason = o.reason
		}
		if size == small {
			a.Asked++
			if o.heard {
				a.RTTs = append(a.RTTs, o.took)
			}
		}
		if o.heard {
			a.Size = max(a.Size, size)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
		return o.heard
	}
	for range count {
		if ask(small); ctx.Err() != nil {
			return
		}
	}
	if a.Size == 0 || a.Full == small {
		return
	}
	for range fullLosses {
		if ask(a.Full) || ctx.Err() != nil {
			return
		}
	}
	for s := narrowing(peer.Family, a.Full, p.guessed(a.Way, peer.Family)); !s.done && ctx.Err() == nil; {
		if size := s.next(); ask(size) {
			s.heard(size)
		} else {
			s.missed(size)
		}
	}
	if ctx.Err() != nil && a.Reason == "" {
		a.Reason = "there was no time to find the largest size"
	}
}

func (p *Prober) guessed(way Way, f ip.Family) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.schedule.guess[way].Of(f)
}

// order has a question be asked, and waits for what becomes of it.
func (p *Prober) order(ctx context.Context, q request) outcome {
	result := make(chan outcome, 1)
	o := &order{request: q, result: func(o outcome) { result <- o }}
	p.update(func(s *schedule) { s.orders = append(s.orders, o) })
	p.hurryUp()
	select {
	case out := <-result:
		return out
	case <-ctx.Done():
		p.update(func(s *schedule) {
			s.orders = slices.DeleteFunc(s.orders, func(other *order) bool { return other == o })
		})
		return outcome{}
	}
}
