package subnettest

import (
	"context"
	"errors"
	"time"

	"tulle/subnet"
)

// errAway is what a request to a store out of reach comes to.
var errAway = errors.New("the store does not answer")

// requestTimeout is how long a request waits for a store out of reach.
const requestTimeout = 5 * time.Second

// Connection is what lies between one host and the store. The zero Connection is a good one.
type Connection struct {
	Stopped   bool                 // the host's process does not run
	Cut       bool                 // nothing gets through
	NoEvents  bool                 // requests get through, news of changes does not
	NoAnswers bool                 // requests take effect, and their answers are lost
	Lag       time.Duration        // views are delivered as they were so long ago
	Latency   func() time.Duration // of each request; nil: none
}

// SetConnection changes the connection of this host.
func (s *Store) SetConnection(c Connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	healed := s.connection.Cut && !c.Cut || s.connection.NoEvents && !c.NoEvents
	s.connection = c
	s.connectionChanged()
	if healed {
		s.changedAll()
	}
}

// OpenAfar is Another as the suite takes it.
func (s *Store) OpenAfar() Far {
	far := s.Another()
	return Far{Store: far, Cut: func() { far.SetConnection(Connection{Cut: true}) }, Mend: func() { far.SetConnection(Connection{}) }, Sleep: far.Sleep}
}

// Connection returns the connection of this host.
func (s *Store) Connection() Connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connection
}

// SetDown takes the whole store away from all hosts, or gives it back. Leases do not expire meanwhile, and then have
// their whole time again, as they do when etcd gets a new leader.
func (w *world) SetDown(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = down
	for _, r := range w.keys {
		if r.expiry != nil {
			r.expiry.Stop()
			if !down {
				r.lastFor(r.ttl)
			}
		}
	}
	w.connectionChanged()
}

// connectionChanged wakes all that wait for a connection. The lock is held, here and below.
func (w *world) connectionChanged() {
	close(w.moved)
	w.moved = make(chan struct{})
}

// open reports whether a host's requests get through.
func (s *Store) open() bool { return !s.connection.Cut && !s.down }

// request waits until a request has gone through, or fails for want of an answer. The lock is not held. A process that
// is stopped notices nothing, not even the time.
func (s *Store) request(ctx context.Context) error {
	if err := s.travel(ctx); err != nil {
		return err
	}
	patience := time.After(requestTimeout)
	for {
		s.mu.Lock()
		stopped, open, moved := s.connection.Stopped, s.open(), s.moved
		s.mu.Unlock()
		if !stopped && open {
			return ctx.Err()
		}
		late := patience
		if stopped {
			late = nil
		}
		select {
		case <-moved:
		case <-late:
			return errAway
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// travel takes the time that the connection takes.
func (s *Store) travel(ctx context.Context) error {
	latency := s.Connection().Latency
	if latency == nil {
		return ctx.Err()
	}
	select {
	case <-time.After(latency()):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answer waits for the answer to a request that took effect.
func (s *Store) answer(ctx context.Context) error {
	if !s.Connection().NoAnswers {
		return nil
	}
	select {
	case <-time.After(requestTimeout):
		return errAway
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Backup is what the store held at some time.
type Backup struct {
	revision subnet.Revision
	keys     map[string]record
}

// Backup returns what the store holds.
func (w *world) Backup() Backup {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := Backup{revision: w.revision, keys: map[string]record{}}
	for key, r := range w.keys {
		b.keys[key] = *r
	}
	return b
}

// Restore makes the store hold what it held, at the revision that it had. Leases have their whole time again. The zero
// Backup is an empty store.
func (w *world) Restore(b Backup) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key := range w.keys {
		w.forget(key)
	}
	w.revision = b.revision
	for key, old := range b.keys {
		r := old
		r.expiry = nil
		w.keys[key] = &r
		if r.ttl > 0 {
			w.expireAfter(key, &r, r.ttl)
		}
	}
	w.leases = nil
	w.begin()
	w.changedAll()
}

// Wipe deletes all keys in one step.
func (w *world) Wipe() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key := range w.keys {
		w.forget(key)
	}
	w.revision++
	w.remember()
	w.leases = nil
	w.changedAll()
}

func (w *world) forget(key string) {
	if r := w.keys[key]; r.expiry != nil {
		r.expiry.Stop()
	}
	delete(w.keys, key)
}

// changedAll tells all that anything may have changed.
func (w *world) changedAll() {
	for _, v := range w.views {
		signal(v.changed)
	}
	for _, h := range w.live {
		h.notify()
		h.hearAll()
	}
	w.tellAskers()
	w.observe()
}
