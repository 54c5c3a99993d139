// Package logtail keeps the end of a log in memory, for who asks later.
package logtail

import (
	"bytes"
	"sync"
)

// Tail keeps the last lines that were written to it.
type Tail struct {
	mu   sync.Mutex
	size int
	kept []byte
}

// New returns a tail of so many bytes of whole lines.
func New(size int) *Tail { return &Tail{size: size} }

// Write takes whole lines, as slog writes them. It never fails.
func (t *Tail) Write(lines []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, lines...)
	if len(t.kept) > 2*t.size { // a copy is made once for many lines
		t.kept = append(make([]byte, 0, 2*t.size), t.last()...)
	}
	return len(lines), nil
}

// Lines returns what is kept.
func (t *Tail) Lines() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.last())
}

// last is the whole lines of the last bytes.
func (t *Tail) last() []byte {
	if len(t.kept) <= t.size {
		return t.kept
	}
	cut := t.kept[len(t.kept)-t.size-1:] // with the end of the line before, if one ends there
	return cut[bytes.IndexByte(cut, '\n')+1:]
}
