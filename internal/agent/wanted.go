package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"tulle/internal/atomicfile"
	"tulle/ip"
)

// wantedFile holds, below the run directory, what the last pass wanted: the plan can be shown while the daemon is stopped.
const wantedFile = "wanted.json"

// Wanted is what a pass wanted the kernel to look like.
type Wanted struct {
	Time  time.Time
	Scope ip.Scope
	State ip.State
}

// ReadWanted reads what the last pass on this host wanted. Without one the error wraps fs.ErrNotExist.
func ReadWanted(runDir string) (Wanted, error) {
	path := filepath.Join(runDir, wantedFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Wanted{}, fmt.Errorf("tulled has not held a lease here since boot: start it, or name its --run-dir: %w", err)
	}
	if err != nil {
		return Wanted{}, fmt.Errorf("read wanted state: %w", err)
	}
	var w Wanted
	if err := json.Unmarshal(data, &w); err != nil {
		return Wanted{}, fmt.Errorf("read wanted state %s: %w", path, err)
	}
	return w, nil
}

// wanted writes the file when its content changes.
type wanted struct {
	dir   string
	scope ip.Scope
	last  ip.State
	late  bool // the file is behind: passes over a few leases leave it to others
}

// later takes note of what is wanted now, and leaves the file as it is.
func (w *wanted) later(state ip.State) { w.last, w.late = state, true }

// flush writes the file if it is behind.
func (w *wanted) flush() error {
	if !w.late {
		return nil
	}
	w.late = false
	return w.save(w.scope, w.last)
}

func (w *wanted) write(scope ip.Scope, state ip.State) error {
	if !w.late && w.last.Equal(state) {
		return nil
	}
	w.late = false
	return w.save(scope, state)
}

func (w *wanted) save(scope ip.Scope, state ip.State) error {
	scope.Paths = nil
	data, err := json.Marshal(Wanted{Time: time.Now(), Scope: scope, State: state})
	if err != nil {
		return fmt.Errorf("encode wanted state: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(w.dir, wantedFile), data, 0o600); err != nil {
		return fmt.Errorf("write wanted state: %w", err)
	}
	w.scope, w.last = scope, state
	return nil
}
