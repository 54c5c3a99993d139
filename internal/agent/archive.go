package agent

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"tulle/subnet"
)

// keepEvery spaces out the writes of a view that keeps changing.
const keepEvery = 10 * time.Second

// archive keeps the newest view on disk.
type archive struct {
	dir  string
	log  *slog.Logger
	nag  nag
	wake chan struct{}

	mu     sync.Mutex
	newest func() keptView // makes what is to be written; nil: it has been
	last   offered
}

// offered is what the last view was made from.
type offered struct {
	network *subnet.Network
	leases  []*subnet.Lease
}

func newArchive(dir string, log *slog.Logger) *archive {
	return &archive{dir: dir, log: log, nag: nag{}, wake: make(chan struct{}, 1)}
}

// offer hands over a view that is in force. One like the last is passed over.
func (v *archive) offer(cfg Config, set subnet.Set, network *subnet.Network) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.last.network == network && slices.EqualFunc(v.last.leases, set.Leases, sameVersion) {
		return
	}
	v.last = offered{network, set.Leases}
	read := time.Now()
	v.newest = func() keptView { return newKeptView(cfg, set, *network, read) }
	v.poke()
}

func (v *archive) poke() {
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

func sameVersion(a, b *subnet.Lease) bool {
	return a == b || a.Subnets == b.Subnets && a.Created == b.Created && a.Revision == b.Revision
}

// run writes the first view at once and later ones at intervals. When ctx ends it writes what is left.
func (v *archive) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			v.write()
			return ctx.Err()
		case <-v.wake:
		}
		v.write()
		select {
		case <-ctx.Done():
		case <-time.After(keepEvery):
		}
	}
}

// write says so if it fails, and will try again; the host works without.
func (v *archive) write() {
	v.mu.Lock()
	newest := v.newest
	v.newest = nil
	v.mu.Unlock()
	if newest == nil {
		return
	}
	view := newest()
	err := view.write(v.dir)
	if err == nil {
		return
	}
	if v.nag.due("write", lasting) {
		v.log.Warn("view not kept: this host could not start without the store", "err", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.newest == nil {
		v.newest = newest
	}
	v.poke()
}
