package docker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"tulle/internal/atomicfile"
	"tulle/subnet"
)

// Change is one key of daemon.json and what becomes of it. A nil value is none.
type Change struct {
	Key  string
	From json.RawMessage
	To   json.RawMessage
}

func (c Change) String() string {
	switch {
	case c.From == nil:
		return fmt.Sprintf("%s = %s", c.Key, c.To)
	case c.To == nil:
		return fmt.Sprintf("%s taken out, was %s", c.Key, compact(c.From))
	default:
		return fmt.Sprintf("%s = %s, was %s", c.Key, c.To, compact(c.From))
	}
}

// compact prints a value in one line.
func compact(value json.RawMessage) string {
	var b bytes.Buffer
	if json.Compact(&b, value) != nil {
		return string(value)
	}
	return b.String()
}

// ConflictError tells of settings that somebody else has made and that stand in the way.
type ConflictError struct {
	Path      string
	Conflicts []Change
}

func (e *ConflictError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s has settings that do not go with the lease:", e.Path)
	for _, c := range e.Conflicts {
		fmt.Fprintf(&b, "\n  %s is %s, must %s", c.Key, compact(c.From), must(c.To))
	}
	b.WriteString("\nChange them, or replace them with --force; tulle docker unconfigure brings them back.")
	return b.String()
}

func must(value json.RawMessage) string {
	if value == nil {
		return "not be set"
	}
	return "be " + string(value)
}

// Configure puts the settings into the file and leaves everything else in it as it is, to the byte. A value that
// stands there already, and that Configure has not put there, is a *ConflictError unless force is set. A file
// that Docker could not read either is refused. On any error the file is what it was.
func (f File) Configure(settings []Setting, lease subnet.Subnets, force bool) ([]Change, error) {
	d, mode, existed, err := f.read()
	if err != nil {
		return nil, err
	}
	old, err := f.readRecord()
	if err != nil {
		return nil, err
	}
	without, err := displaced(d, lease)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.path, err)
	}
	settings = append(slices.Clone(settings), without...)
	obsolete, err := f.obsolete(old, settings)
	if err != nil {
		return nil, err
	}

	next := &record{Existed: existed, Settings: map[string]json.RawMessage{}}
	if old != nil {
		next.Existed, next.Settings = old.Existed, maps.Clone(old.Settings)
	}
	var changes, conflicts []Change
	edited := d
	for _, s := range append(obsolete, settings...) {
		have, err := edited.get(s.Key)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", f.path, err)
		}
		ours, touched := old.get(s.Key)
		mine := touched && same(ours, have)
		leaving := slices.ContainsFunc(obsolete, func(o Setting) bool { return o.Key == s.Key })
		if leaving {
			delete(next.Settings, s.Key)
		}
		if same(have, s.Value) || leaving && !mine {
			continue
		}
		change := Change{Key: s.Key, From: have, To: s.Value}
		if have != nil && !mine {
			conflicts = append(conflicts, change)
		}
		if edited, err = edited.set(s.Key, s.Value); err != nil {
			return nil, fmt.Errorf("edit %s: %w", f.path, err)
		}
		if !leaving {
			next.Settings[s.Key] = s.Value
		}
		changes = append(changes, change)
	}
	if len(conflicts) > 0 && !force {
		return nil, &ConflictError{Path: f.path, Conflicts: conflicts}
	}
	if len(changes) == 0 {
		return nil, nil
	}
	if old == nil && existed {
		if err := atomicfile.Write(f.Backup(), d.text, mode); err != nil {
			return nil, err
		}
	}
	return changes, f.write(edited, mode, next)
}

// obsolete lists what an earlier Configure set and what is no longer asked for, with the values from before.
func (f File) obsolete(old *record, settings []Setting) ([]Setting, error) {
	if old == nil {
		return nil, nil
	}
	former, err := f.former(old)
	if err != nil {
		return nil, err
	}
	var list []Setting
	for _, key := range slices.Sorted(maps.Keys(old.Settings)) {
		if slices.ContainsFunc(settings, func(s Setting) bool { return s.Key == key }) {
			continue
		}
		// What was taken out stays out: it did not go with a lease before.
		if value, _ := old.get(key); value == nil {
			continue
		}
		value, err := former.get(key)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", f.Backup(), err)
		}
		list = append(list, Setting{key, value})
	}
	return list, nil
}

// Configured reports whether the file has settings of Configure's.
func (f File) Configured() (bool, error) {
	r, err := f.readRecord()
	return r != nil, err
}

// Unconfigure undoes every Configure: the file becomes what it was, to the byte, and goes away if there was none. If
// somebody has edited it since, their edits stay, and only what Configure set and they left alone is put back.
func (f File) Unconfigure() ([]Change, error) {
	r, err := f.readRecord()
	if r == nil || err != nil {
		return nil, err
	}
	d, mode, existed, err := f.read()
	if err != nil {
		return nil, err
	}
	former, err := f.former(r)
	if err != nil {
		return nil, err
	}
	var changes []Change
	restored := d
	for _, key := range slices.Sorted(maps.Keys(r.Settings)) {
		have, err := restored.get(key)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", f.path, err)
		}
		was, err := former.get(key)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", f.Backup(), err)
		}
		if ours, _ := r.get(key); !same(have, ours) || same(have, was) {
			continue
		}
		changes = append(changes, Change{Key: key, From: have, To: was})
		if restored, err = restored.set(key, was); err != nil {
			return nil, fmt.Errorf("edit %s: %w", f.path, err)
		}
	}
	untouched := existed && digest(d.text) == r.Written
	switch {
	case untouched && r.Existed:
		err = atomicfile.Write(f.path, former.text, mode)
	case untouched:
		err = remove(f.path)
	case len(changes) > 0:
		err = atomicfile.Write(f.path, restored.text, mode)
	}
	if err != nil {
		return nil, err
	}
	return changes, remove(f.recordPath(), f.Backup())
}
