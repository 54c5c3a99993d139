package agent

import (
	"log/slog"
	"slices"
	"time"

	"tulle/subnet"
)

// keepEvery spaces out the writes of a view that keeps changing.
const keepEvery = time.Minute

// archive keeps the newest view on disk.
type archive struct {
	*shelf
	dir  string
	last offered
}

// offered is what the last view was made from.
type offered struct {
	network *subnet.Network
	leases  []*subnet.Lease
}

func newArchive(dir string, log *slog.Logger) *archive {
	broken := nag{}
	return &archive{dir: dir, shelf: newShelf(keepEvery, func(err error) {
		if err != nil && broken.due("write", lasting) {
			log.Warn("view not kept: this host could not start without the store", "err", err)
		}
	})}
}

// read takes note of what is on disk: the same need not be written again.
func (v *archive) read(set subnet.Set) { v.last = offered{set.Network, set.Leases} }

// offer hands over a view that is in force, and what is remembered beside it. One like the last is passed over.
func (v *archive) offer(cfg Config, set subnet.Set, network *subnet.Network, memory *subnet.Memory) {
	same := v.last.network != nil && (v.last.network == network || sameNetwork(*v.last.network, *network))
	if same && slices.EqualFunc(v.last.leases, set.Leases, sameVersion) {
		return
	}
	v.last = offered{network, set.Leases}
	read, former := time.Now(), memory.Former()
	v.put(func() error {
		view := newKeptView(cfg, set, *network, read)
		view.remember(former)
		return view.write(v.dir)
	})
}

func sameVersion(a, b *subnet.Lease) bool {
	return a == b || a.Subnets == b.Subnets && a.Created == b.Created && a.Revision == b.Revision && a.Standing == b.Standing
}
