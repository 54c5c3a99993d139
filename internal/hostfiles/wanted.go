package hostfiles

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"tulle/internal/atomicfile"
	"tulle/internal/regularfile"
	"tulle/ip"
)

// wantedFile holds, below the run directory, what the last pass wanted: the plan can be shown while the daemon is stopped.
const wantedFile = "wanted.json"

// maxWanted bounds it, in bytes: that of ten thousand peers has a few million.
const maxWanted = 256 << 20

// wantedEvery spaces out its writes: what is wanted of many peers takes long to write, and is not read but while the daemon is stopped.
const wantedEvery = time.Second

// Wanted is what a pass wanted the kernel to look like.
type Wanted struct {
	Time  time.Time
	Scope ip.Scope
	State ip.State
}

// ReadWanted reads what the last pass on this host wanted. Without one the error wraps fs.ErrNotExist.
func ReadWanted(runDir string) (Wanted, error) {
	path := filepath.Join(runDir, wantedFile)
	data, err := regularfile.Read(path, maxWanted)
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

// WantedFile writes what is wanted when it changes.
type WantedFile struct {
	*writer
	dir    string
	scopes []ip.Scope // of the parts that it consists of
	states []ip.State
	late   bool // the file is behind
	failed atomic.Pointer[error]
}

// NewWantedFile returns the file below dir. changed is called when writing begins to fail, or ends to.
func NewWantedFile(dir string, changed func()) *WantedFile {
	w := &WantedFile{dir: dir}
	w.writer = newWriter(wantedEvery, func(err error) {
		if last := w.failed.Swap(&err); (last != nil && *last != nil) != (err != nil) {
			changed()
		}
	})
	return w
}

// Set says what a part is now, and leaves the file as it is. The state may have been changed in place.
func (w *WantedFile) Set(part int, scope ip.Scope, state ip.State) {
	if more := part + 1 - len(w.states); more > 0 {
		w.scopes, w.states = append(w.scopes, make([]ip.Scope, more)...), append(w.states, make([]ip.State, more)...)
	}
	w.scopes[part], w.states[part], w.late = scope, state, true
}

// Now returns what is wanted now, for others to keep.
func (w *WantedFile) Now() Wanted {
	now := Wanted{Time: time.Now(), State: ip.Sum(w.states...).Clone()}
	for _, scope := range w.scopes {
		scope.Paths, scope.Kinds, scope.Uplinks = nil, nil, nil
		now.Scope = now.Scope.Plus(scope)
	}
	return now
}

// Update has the file written if it is behind, and it is time for that. Since boot, the first is on disk when Update returns.
func (w *WantedFile) Update() {
	if w.isDue() {
		w.update()
	}
}

func (w *WantedFile) update() {
	if !w.late {
		return
	}
	w.late = false
	now := w.Now()
	w.put(func() error { return now.save(w.dir) })
	if _, err := os.Lstat(filepath.Join(w.dir, wantedFile)); errors.Is(err, fs.ErrNotExist) {
		w.write()
	}
}

// Flush writes the file now if it is behind.
func (w *WantedFile) Flush() {
	w.update()
	w.write()
}

// Trouble is why the file could not be written, nil if it could.
func (w *WantedFile) Trouble() error {
	if err := w.failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (w Wanted) save(dir string) error {
	data, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("encode wanted state: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(dir, wantedFile), data, 0o600); err != nil {
		return fmt.Errorf("write wanted state: %w", err)
	}
	return nil
}
