package agent

import (
	"context"
	"sync"
	"time"
)

// shelf writes the newest of what it is given to disk, so that nobody else waits for it: the first at once, later ones at
// intervals. What cannot be written is tried again.
type shelf struct {
	every  time.Duration
	result func(error) // is told how each write went
	wake   chan struct{}

	mu      sync.Mutex
	newest  func() error // writes; nil: it has been
	writing sync.Mutex
}

func newShelf(every time.Duration, result func(error)) *shelf {
	return &shelf{every: every, result: result, wake: make(chan struct{}, 1)}
}

// put replaces what is to be written.
func (s *shelf) put(write func() error) {
	s.mu.Lock()
	s.newest = write
	s.mu.Unlock()
	s.signal()
}

func (s *shelf) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run writes until ctx ends, and then what is left.
func (s *shelf) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			s.write()
			return ctx.Err()
		case <-s.wake:
		}
		s.write()
		select {
		case <-ctx.Done():
		case <-time.After(s.every):
		}
	}
}

// write writes what is there, if it has not been written.
func (s *shelf) write() {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	newest := s.newest
	s.newest = nil
	s.mu.Unlock()
	if newest == nil {
		return
	}
	err := newest()
	s.result(err)
	if err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.newest == nil {
		s.newest = newest
	}
	s.signal()
}
