package docker

import (
	"fmt"
	"maps"
	"slices"

	"tulle/internal/atomicfile"
)

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
