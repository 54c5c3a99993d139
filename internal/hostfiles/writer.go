package hostfiles

import (
	"context"
	"sync"
	"time"
)

const (
	writeSlowdown = 200 // writing may take up one part in this many of the time
	writePause    = 30 * time.Second
)

// writer writes the newest of what it is given to disk, so that nobody else waits for it: the first at once, later ones at
// intervals, which are longer where a write takes long, up to writePause. What cannot be written is tried again.
type writer struct {
	every  time.Duration
	result func(error) // is told how each write went
	wake   chan struct{}

	mu      sync.Mutex
	newest  func() error // writes; nil: it has been
	next    time.Time    // no write is due before
	writing sync.Mutex
}

func newWriter(every time.Duration, result func(error)) *writer {
	return &writer{every: every, result: result, wake: make(chan struct{}, 1)}
}

// put replaces what is to be written.
func (w *writer) put(write func() error) {
	w.mu.Lock()
	w.newest = write
	w.mu.Unlock()
	w.signal()
}

// isDue reports whether what is put now is written at once.
func (w *writer) isDue() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !time.Now().Before(w.next)
}

func (w *writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Run writes until ctx ends, and then what is left.
func (w *writer) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			w.write()
			return ctx.Err()
		case <-w.wake:
		}
		w.write()
		w.mu.Lock()
		next := w.next
		w.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(next)):
		}
	}
}

// write writes what is there, if it has not been written.
func (w *writer) write() {
	w.writing.Lock()
	defer w.writing.Unlock()
	w.mu.Lock()
	newest := w.newest
	w.newest = nil
	w.mu.Unlock()
	if newest == nil {
		return
	}
	began := time.Now()
	err := newest()
	w.result(err)
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.next = now.Add(max(w.every, min(writeSlowdown*now.Sub(began), writePause)))
	if err == nil {
		return
	}
	if w.newest == nil {
		w.newest = newest
	}
	w.signal()
}
