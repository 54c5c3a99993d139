// Package web is the page of tulle web: hosts, who cannot reach whom, addresses and what is wrong, live, to look at and never to change.
package web

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"tulle/internal/agent"
	"tulle/subnet"
)

// Store is what the page reads.
type Store interface {
	// Watch is that of subnet.Store.
	Watch(ctx context.Context, deliver func(subnet.Set)) error
	// Config, ConfigKey and Complaints are those of subnet.Operator.
	Config(ctx context.Context) (text []byte, revision subnet.Revision, err error)
	ConfigKey() string
	Complaints(ctx context.Context) (list []subnet.Complaint, unreadable []subnet.Problem, err error)
}

// Daemon is this host's tulled.
type Daemon interface {
	Status(ctx context.Context) (agent.Status, error)
	Peers(ctx context.Context) (agent.PeerReports, error)
}

// Config is what a page is made for.
type Config struct {
	Store  Store
	Daemon Daemon
	// Host is the name by which the page may be asked for, besides localhost and the address that a request comes to. An address, or none, adds nothing.
	Host string
}

const (
	interval = time.Second     // of changes on a page, at least
	lookup   = 3 * time.Second // how often the store is asked what it does not tell by itself, and tulled, while somebody looks
	patience = 5 * time.Second // for their answers
)

// Server follows the store and serves the page.
type Server struct {
	config Config
	wake   chan struct{} // something may have changed

	mu      sync.Mutex
	set     *subnet.Set // the newest; nil: none yet
	viewers map[*viewer]bool
	current sections
	fresh   chan struct{} // closed when current is of what was asked for just now
}

// sections are those of a model, each as JSON.
type sections map[string]json.RawMessage

// New returns a server that has not heard anything yet.
func New(c Config) (*Server, error) {
	s := &Server{config: c, wake: make(chan struct{}, 1), viewers: map[*viewer]bool{}, fresh: make(chan struct{})}
	var err error
	s.current, err = sectionsOf(modelOf(facts{configKey: c.Store.ConfigKey(), here: here{err: errors.New("not asked yet")}}))
	return s, err
}

// Run follows the store until ctx ends. Nothing but the watch costs anything while nobody looks.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var watchErr error
	wg.Go(func() {
		defer cancel()
		watchErr = s.config.Store.Watch(ctx, func(set subnet.Set) {
			s.mu.Lock()
			s.set = &set
			s.mu.Unlock()
			signal(s.wake)
		})
	})
	err := s.follow(ctx)
	cancel()
	wg.Wait()
	if watchErr != nil {
		return fmt.Errorf("watch the store: %w", watchErr)
	}
	return err
}

func (s *Server) follow(ctx context.Context) error {
	last := facts{configKey: s.config.Store.ConfigKey()}
	for {
		if s.watched() {
			last = s.gather(ctx, last)
			current, err := sectionsOf(modelOf(last))
			if err != nil {
				return err
			}
			s.publish(current)
			if !pause(ctx, interval) {
				return nil
			}
		}
		look := time.NewTimer(lookup - interval)
		select {
		case <-ctx.Done():
			look.Stop()
			return nil
		case <-s.wake:
		case <-look.C:
		}
		look.Stop()
	}
}

// gather asks for everything. What does not answer is as it was, with the reason.
func (s *Server) gather(ctx context.Context, last facts) facts {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	f := last
	var configErr, complaintsErr error
	var wg sync.WaitGroup
	wg.Go(func() {
		if text, _, err := s.config.Store.Config(ctx); err != nil {
			configErr = err
		} else {
			f.config = text
		}
	})
	wg.Go(func() {
		if list, unreadable, err := s.config.Store.Complaints(ctx); err != nil {
			complaintsErr = err
		} else {
			f.complaints, f.unreadable = list, unreadable
		}
	})
	wg.Go(func() {
		f.here = here{}
		if f.here.status, f.here.err = s.config.Daemon.Status(ctx); f.here.err == nil {
			f.here.peers, f.here.err = s.config.Daemon.Peers(ctx)
		}
	})
	wg.Wait()
	f.storeErr = cmp.Or(configErr, complaintsErr) // either says what is wrong
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set != nil {
		f.set, f.heard = *s.set, true
	}
	return f
}

func sectionsOf(m model) (sections, error) {
	text, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode the page: %w", err)
	}
	var all sections
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("encode the page: %w", err)
	}
	return all, nil
}

// publish has all who look see what is new.
func (s *Server) publish(current sections) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.fresh)
	s.fresh = make(chan struct{})
	if maps.EqualFunc(s.current, current, sameText) {
		return
	}
	s.current = current
	for v := range s.viewers {
		signal(v.changed)
	}
}

func sameText(a, b json.RawMessage) bool { return string(a) == string(b) }

func (s *Server) sections() sections {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// asked returns the sections for somebody who begins to look: what was known when the last one looked may be old.
func (s *Server) asked(ctx context.Context) sections {
	if s.watched() {
		return s.sections()
	}
	if v := s.join(); v != nil {
		defer s.leave(v)
	}
	s.mu.Lock()
	fresh := s.fresh
	s.mu.Unlock()
	late := time.NewTimer(2 * interval)
	defer late.Stop()
	select {
	case <-ctx.Done():
	case <-fresh:
	case <-late.C:
	}
	return s.sections()
}

// watched reports whether somebody looks.
func (s *Server) watched() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.viewers) > 0
}

// pause waits, and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
