package hostfiles

import (
	"slices"
	"time"

	"tulle/subnet"
)

// ViewEvery spaces out the writes of a view that keeps changing.
const ViewEvery = time.Minute

// ViewFile keeps the newest view of a store on disk.
type ViewFile struct {
	*writer
	dir  string
	from Origin
	last offered
}

// offered is what the last view was made from.
type offered struct {
	network *subnet.Network
	leases  []*subnet.Lease
}

// NewViewFile returns the file below dir. result is told how each write went.
func NewViewFile(dir string, from Origin, result func(error)) *ViewFile {
	return &ViewFile{writer: newWriter(ViewEvery, result), dir: dir, from: from}
}

// Remembered reports whether a view of the store is the one on disk, in a file that is as it was written: then there is nothing to compare. It returns its leases with their standing,
// and those that were gone.
func (v *ViewFile) Remembered(set subnet.Set) (leases, former []*subnet.Lease, ok bool) {
	stamp, rest, err := readStamp(v.dir)
	if err != nil || set.Revision < stamp.revision || stamp.sum != stamp.of(sumView(v.from, set, *set.Network), rest) {
		return nil, nil, false
	}
	leases, former, err = stamp.remembered(set.Leases)
	return leases, former, err == nil
}

// Read reads what is on disk, as ReadView does.
func (v *ViewFile) Read() (*View, error) { return ReadView(v.dir, v.from) }

// Written takes note of what is on disk: the same need not be written again.
func (v *ViewFile) Written(set subnet.Set) { v.last = offered{set.Network, set.Leases} }

// Offer hands over a view that is in force, and what is remembered beside it. One like the last is passed over.
func (v *ViewFile) Offer(set subnet.Set, network *subnet.Network, memory *subnet.Memory) {
	same := v.last.network != nil && (v.last.network == network || v.last.network.Same(*network))
	if same && slices.EqualFunc(v.last.leases, set.Leases, sameVersion) {
		return
	}
	v.last = offered{network, set.Leases}
	read, former := time.Now(), memory.Former()
	v.put(func() error {
		view := newCachedView(v.from, set, *network, read)
		if err := view.remember(former); err != nil {
			return err
		}
		return view.write(v.dir)
	})
}

// Flush writes what was offered last, if it has not been written.
func (v *ViewFile) Flush() { v.write() }

func sameVersion(a, b *subnet.Lease) bool {
	return a == b || a.Subnets == b.Subnets && a.Created == b.Created && a.Revision == b.Revision && a.Standing == b.Standing
}
