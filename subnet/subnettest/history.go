package subnettest

import "tulle/subnet"

// history is what the store remembers of changes to the configuration. Those of leases it need not know: a watcher that follows them one
// by one and one that reads all at the end see the same.
type history struct {
	epoch     int             // counts restores: revisions are told apart only within one
	compacted subnet.Revision // what was before this revision is forgotten
	configs   []change
}

// change is a new value of the configuration, nil if it was deleted.
type change struct {
	revision subnet.Revision
	value    *string
}

// Compact makes the store forget all that was before its present revision: a watcher that is behind must read everything anew.
func (w *world) Compact() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.compacted = w.revision
	for len(w.configs) > 0 && w.configs[0].revision < w.compacted {
		w.configs = w.configs[1:]
	}
}

// remember takes note of what the configuration is from the present revision on. The lock is held, here and below.
func (w *world) remember() {
	c := change{revision: w.revision}
	if r := w.keys[configKey]; r != nil {
		value := r.value
		c.value = &value
	}
	w.configs = append(w.configs, c)
}

// begin forgets all that was before a restore.
func (w *world) begin() {
	w.history = history{epoch: w.epoch + 1, compacted: w.revision}
}

// follow takes in, change by change, what has happened since the view was last here. If that is forgotten, or the store has
// another history by now, it reads everything anew.
func (v *view) follow(w *world) {
	if v.epoch != w.epoch || v.seen+1 < w.compacted {
		v.read(w)
		return
	}
	for _, c := range w.configs {
		if c.revision > v.seen {
			v.configure(c.value, c.revision)
		}
	}
	v.seen = w.revision
}

// read takes in what the store holds.
func (v *view) read(w *world) {
	v.epoch, v.seen = w.epoch, w.revision
	if r := w.keys[configKey]; r != nil {
		v.configure(&r.value, r.modified)
	} else {
		v.configure(nil, w.revision)
	}
}
