package docker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

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
// that Docker could not read either is refused. On any error the file is what it was, except one that says otherwise: that
// the new content may not survive a power cut.
func (f File) Configure(settings []Setting, lease subnet.Subnets, force bool) ([]Change, error) {
	return f.configure(settings, lease, force, "have dockerd take its options from its command line: tulle docker configure --env-file FILE")
}

// configure is Configure, with what an operator can do instead where the file cannot be replaced; empty for nothing.
func (f File) configure(settings []Setting, lease subnet.Subnets, force bool, instead string) ([]Change, error) {
	if err := f.begin(); err != nil {
		return nil, err
	}
	d, existed, err := f.read()
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
	r := newRevision(d, old, existed)
	r.next.give(lease)
	for _, s := range obsolete {
		err = errors.Join(err, r.release(s))
	}
	for _, s := range settings {
		err = errors.Join(err, r.put(s))
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("edit %s: %w", f.path, err)
	case len(r.conflicts) > 0 && !force:
		return nil, &ConflictError{Path: f.path, Conflicts: r.conflicts}
	case len(r.changes) == 0:
		return nil, nil
	}
	var backup []byte
	if old == nil {
		if backup, err = f.toKeep(d, existed); err != nil {
			return nil, err
		}
	}
	if err := f.write(r.document, backup, r.next, instead); err != nil {
		return nil, err
	}
	return r.changes, nil
}

// revision is a document on its way to new settings.
type revision struct {
	document
	old, next          *record
	changes, conflicts []Change
}

func newRevision(d document, old *record, existed bool) *revision {
	next := &record{Existed: existed, Settings: map[string]json.RawMessage{}}
	if old != nil {
		next.Existed, next.Settings = old.Existed, maps.Clone(old.Settings)
		next.Given, next.Former = slices.Clone(old.Given), old.Former
	}
	return &revision{document: d, old: old, next: next}
}

// give notes the subnets of a lease.
func (r *record) give(lease subnet.Subnets) {
	for _, p := range leased(lease) {
		if !slices.Contains(r.Given, p) {
			r.Given = append(r.Given, p)
		}
	}
}

// put makes the document hold s.
func (r *revision) put(s Setting) error {
	have, mine, err := r.look(s.Key)
	if err != nil || same(have, s.Value) {
		return err
	}
	if have != nil && !mine {
		r.conflicts = append(r.conflicts, Change{s.Key, have, s.Value})
	}
	r.next.Settings[s.Key] = s.Value
	return r.change(Change{s.Key, have, s.Value})
}

// release puts back what was there before, unless somebody has changed it since.
func (r *revision) release(s Setting) error {
	have, mine, err := r.look(s.Key)
	delete(r.next.Settings, s.Key)
	if err != nil || !mine || same(have, s.Value) {
		return err
	}
	return r.change(Change{s.Key, have, s.Value})
}

// look returns the value of a key, and whether it is one that Configure has put there.
func (r *revision) look(key string) (have json.RawMessage, mine bool, err error) {
	have, err = r.get(key)
	ours, touched := r.old.get(key)
	return have, touched && same(ours, have), err
}

func (r *revision) change(c Change) (err error) {
	r.changes = append(r.changes, c)
	r.document, err = r.set(c.Key, c.To)
	return err
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
