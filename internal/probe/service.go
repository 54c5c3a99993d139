package probe

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	mathrand "math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Prober asks peers, and answers those that ask this host.
type Prober struct {
	cfg   Config
	wake  chan struct{} // there may be something to do before the time that Run waits for
	pings chan struct{} // holds one for each Ping that runs

	mu       sync.Mutex // guards what follows
	schedule *schedule
	wanted   Want
	asked    bool // wanted has not been taken in yet
	running  bool
	answers  limit
	cannot   error // why sockets are missing; nil: none is
}

// Questions of others are answered up to this rate, as a burst or each second.
const answersPerSecond = 200

// New returns a prober that does nothing until Run.
func New(cfg Config) *Prober {
	number := func() uint64 {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails
		return binary.BigEndian.Uint64(b[:])
	}
	spread := func(d time.Duration) time.Duration { return mathrand.N(d) }
	return &Prober{
		cfg:      cfg,
		wake:     make(chan struct{}, 1),
		pings:    make(chan struct{}, mostPings),
		schedule: newSchedule(number, spread),
		answers:  limit{every: time.Second / answersPerSecond, burst: answersPerSecond},
	}
}

// Run opens sockets as wanted, asks and answers until ctx ends. It is called once. Nothing but that keeps it from going on: sockets that cannot be
// opened are tried again, and Bad tells why.
func (p *Prober) Run(ctx context.Context) error {
	p.setRunning(true)
	defer p.setRunning(false)
	sockets := newSockets(p)
	defer sockets.closeAll()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.wake:
		case <-timer.C:
		}
		next := sockets.open(ctx, p.takeIn())
		if at := p.askAll(sockets); !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
	}
}

func (p *Prober) setRunning(running bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = running
}

// takeIn has the schedule take in what was wanted last, and returns this host as others ask it.
func (p *Prober) takeIn() Self {
	var self Self
	p.update(func(s *schedule) {
		if self = p.wanted.Self; p.asked {
			p.asked = false
			s.want(p.wanted, time.Now())
		}
	})
	return self
}

// askAll sends the questions that are due, and returns when there is something to do next; zero: not before something happens.
func (p *Prober) askAll(sockets *sockets) time.Time {
	for {
		var q request
		var ok bool
		var next time.Time
		p.update(func(s *schedule) {
			q, ok = s.ask(time.Now())
			next = s.wake()
		})
		if !ok {
			return next
		}
		if reason := sockets.send(q); reason != "" {
			p.update(func(s *schedule) { s.failed(q.nonce, time.Now(), reason) })
		}
	}
}

// update runs something on the schedule, and tells of changes.
func (p *Prober) update(do func(*schedule)) {
	p.mu.Lock()
	do(p.schedule)
	changed := p.schedule.changed
	p.schedule.changed = false
	p.mu.Unlock()
	if changed && p.cfg.Changed != nil {
		p.cfg.Changed()
	}
}

// hurryUp has Run look whether there is something to do.
func (p *Prober) hurryUp() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Want says who is to be asked from now on. The prober keeps w.Peers, which must not be changed any more. What is wanted is taken in a moment later.
func (p *Prober) Want(w Want) {
	p.mu.Lock()
	changed := w.Self != p.wanted.Self || !slices.Equal(w.Peers, p.wanted.Peers)
	if changed {
		p.wanted, p.asked = w, true
	}
	p.mu.Unlock()
	if changed {
		p.hurryUp()
	}
}

// Reports tells of all peers, by lease and family.
func (p *Prober) Reports() []Report {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.schedule.reports()
}

// Bad tells of the peers that are not well. It costs little: nothing is put together anew unless something has changed.
func (p *Prober) Bad() Bad {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.schedule.bad()
	if p.cannot != nil {
		if b.Blocked == nil {
			b.Blocked = p.cannot
		} else {
			b.Blocked = fmt.Errorf("%w; %w", p.cannot, b.Blocked)
		}
	}
	return b
}

// Summary counts what there is.
func (p *Prober) Summary() Summary {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.schedule.tally.Summary
}

// receive takes in a datagram that came to one of this host's addresses, and returns the answer to it, made in buf; nil: there is none.
func (p *Prober) receive(way Way, from netip.AddrPort, datagram, buf []byte) []byte {
	now := time.Now()
	m, err := parse(datagram)
	switch {
	case err != nil:
		return nil // of no interest, whoever sent it
	case m.kind == answer:
		p.mu.Lock()
		q, ok := p.schedule.find(m.nonce, way, from)
		p.mu.Unlock()
		if ok && authentic(datagram, q.key) {
			p.update(func(s *schedule) { s.heard(m.nonce, now) })
			p.hurryUp()
		}
		return nil
	}
	p.mu.Lock()
	key := p.wanted.Self.Key
	p.mu.Unlock()
	if key == (Key{}) || !authentic(datagram, key) {
		return nil
	}
	p.mu.Lock()
	may := p.answers.take(now)
	p.mu.Unlock()
	if !may {
		return nil
	}
	// As long as the question, never longer: it tells of both directions, and is of no use to somebody who asks in another's name.
	return message{kind: answer, nonce: m.nonce}.encode(buf, key, len(datagram))
}
