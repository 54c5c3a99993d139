package agent

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tulle/internal/atomicfile"
	"tulle/internal/regularfile"
	"tulle/ip"
	"tulle/subnet"
)

// viewFile holds, below the state directory, the last view of the store, for a start without it.
const viewFile = "view.json.gz"

const (
	viewFormat = 1
	maxView    = 256 << 20 // bytes, unpacked: a view of 10,000 leases has 3 MB
	maxPacked  = 64 << 20  // bytes in the file: 500 kB then
)

// keptView is a view of the store as it is kept on disk.
type keptView struct {
	header
	Time      string      `json:"time"`      // when it was read, for people: the clock may have been set since
	ConfigKey string      `json:"configKey"` // tells the prefix that it was read from
	Endpoints []string    `json:"endpoints"` // and these the cluster
	Revision  int64       `json:"revision"`
	Network   keptNetwork `json:"network"` // in force, which the store's need not be
	Leases    []keptLease `json:"leases"`
	Former    []keptLease `json:"former,omitempty"` // that are gone; earlier versions know none

	stamp stamp
}

// header is what every version can read.
type header struct {
	Format int `json:"format"`
}

type keptNetwork struct {
	Pools    ip.Dual[keptPool] `json:"pools"`
	Type     string            `json:"type"`
	Options  json.RawMessage   `json:"options,omitempty"`
	Revision int64             `json:"revision"`
}

type keptPool struct {
	Network   netip.Prefix `json:"network"`
	SubnetLen int          `json:"subnetLen"`
	Min       netip.Addr   `json:"min"`
	Max       netip.Addr   `json:"max"`
}

type keptLease struct {
	Subnets  string       `json:"subnets"` // as in the key
	Attrs    subnet.Attrs `json:"attrs"`   // as in the value
	Reserved bool         `json:"reserved,omitempty"`
	Created  int64        `json:"created"`
	Revision int64        `json:"revision"`
	Standing keptStanding `json:"standing,omitzero"`
}

type keptStanding struct {
	Subnets int64 `json:"subnets"`
	Attrs   int64 `json:"attrs"`
	Gone    int64 `json:"gone,omitempty"`
}

func keepLease(l *subnet.Lease) keptLease {
	return keptLease{subnet.KeyOf(l.Subnets), l.Attrs, l.Reserved, l.Created, l.Revision, keptStanding(l.Standing)}
}

func (k keptLease) lease() (*subnet.Lease, error) {
	subnets, err := subnet.ParseKey(k.Subnets)
	if err != nil {
		return nil, fmt.Errorf("lease %q: %w", k.Subnets, err)
	}
	return &subnet.Lease{
		Subnets: subnets, Attrs: k.Attrs, Reserved: k.Reserved, Created: k.Created, Revision: k.Revision, Standing: subnet.Standing(k.Standing),
	}, nil
}

// set returns the view as the store would deliver it.
func (k *keptView) set() (subnet.Set, error) {
	network := subnet.Network{Backend: subnet.Backend{Type: k.Network.Type, Options: k.Network.Options}, Revision: k.Network.Revision}
	for _, f := range ip.Families() {
		network.Pools.Set(f, subnet.Pool(k.Network.Pools.Of(f)))
	}
	set := subnet.Set{Revision: k.Revision, Network: &network, Leases: make([]*subnet.Lease, 0, len(k.Leases))}
	var err error
	set.Leases, err = leasesOf(k.Leases)
	return set, err
}

func leasesOf(kept []keptLease) ([]*subnet.Lease, error) {
	leases := make([]*subnet.Lease, 0, len(kept))
	for _, one := range kept {
		l, err := one.lease()
		if err != nil {
			return nil, err
		}
		leases = append(leases, l)
	}
	return leases, nil
}

// remember adds what the store does not tell: the leases that are gone. A view with more than the store's own must be read at
// the next start, whatever the store shows by then: no view of the store has its sum.
func (k *keptView) remember(former []*subnet.Lease) {
	more := len(former) > 0
	slices.SortFunc(former, subnet.CompareSubnetClaims)
	for _, l := range former {
		k.Former = append(k.Former, keepLease(l))
	}
	for _, l := range k.Leases {
		more = more || l.Standing != (keptStanding{})
	}
	if more {
		k.stamp.sum = [len(k.stamp.sum)]byte{}
	}
}

func newKeptView(cfg Config, set subnet.Set, network subnet.Network, read time.Time) keptView {
	k := keptView{
		header: header{viewFormat}, Time: read.UTC().Format(time.RFC3339), ConfigKey: cfg.ConfigKey, Endpoints: cfg.Endpoints, Revision: set.Revision,
		Network: keptNetwork{Type: network.Backend.Type, Options: network.Backend.Options, Revision: network.Revision},
		Leases:  make([]keptLease, 0, len(set.Leases)),
	}
	k.stamp = stamp{set.Revision, sumView(cfg, set, network)}
	for _, f := range ip.Families() {
		k.Network.Pools.Set(f, keptPool(network.Pools.Of(f)))
	}
	for _, l := range set.Leases {
		k.Leases = append(k.Leases, keepLease(l))
	}
	return k
}

func (k *keptView) write(dir string) error {
	data, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("encode view: %w", err)
	}
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	if err != nil {
		return fmt.Errorf("pack view: %w", err)
	}
	w.Extra = k.stamp.encode()
	if _, err := w.Write(seal(data)); err != nil {
		return fmt.Errorf("pack view: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("pack view: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(dir, viewFile), packed.Bytes(), 0o600); err != nil {
		return fmt.Errorf("keep view: %w", err)
	}
	return nil
}

// readView reads the view below dir. Without one the error wraps fs.ErrNotExist.
func readView(dir string) (*keptView, error) {
	packed, err := regularfile.Read(filepath.Join(dir, viewFile), maxPacked)
	if err != nil {
		return nil, fmt.Errorf("read view: %w", err)
	}
	k, err := unpack(packed, maxView)
	if err != nil {
		return nil, fmt.Errorf("read view: %s is of no use: %w", filepath.Join(dir, viewFile), err)
	}
	return k, nil
}

func unpack(packed []byte, most int64) (*keptView, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("it has more than %d bytes when unpacked", most)
	}
	if err != nil {
		return nil, err
	}
	if err := unseal(data); err != nil {
		return nil, err
	}
	var k keptView
	err = json.Unmarshal(data, &k.header) // the rest may be of another form then
	switch {
	case err != nil:
		return nil, err
	case k.Format != viewFormat:
		return nil, fmt.Errorf("its format is %d, and this version knows %d", k.Format, viewFormat)
	}
	return &k, json.Unmarshal(data, &k)
}

// kept is the view on disk, unread.
type kept struct {
	cfg  Config
	mine subnet.Lease // as recorded
}

// shows reports whether a view of the store is the one on disk: then there is nothing to compare.
func (k *kept) shows(set subnet.Set) bool {
	stamp, err := readStamp(k.cfg.StateDir)
	return err == nil && stamp.sum == sumView(k.cfg, set, *set.Network) && set.Revision >= stamp.revision
}

// fallback is what a start without the store works from: a view of the past, which grants the recorded lease.
type fallback struct {
	set    subnet.Set
	former []*subnet.Lease // that were gone by then
	time   string
}

// open returns nil, and says why, if there is nothing to work from.
func (k *kept) open() *fallback {
	f, err := k.read()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.cfg.Log.Warn("kept view passed over: without the store there is nothing to start from", "err", err)
	}
	return f
}

func (k *kept) read() (*fallback, error) {
	view, err := readView(k.cfg.StateDir)
	if err != nil {
		return nil, err
	}
	if err := view.sameStore(k.cfg); err != nil {
		return nil, err
	}
	set, err := view.set()
	if err != nil {
		return nil, err
	}
	if k.mine.Attrs.Elsewhere(subnet.Attrs{Hardware: k.cfg.Hardware}) {
		return nil, fmt.Errorf("%s was recorded on other hardware, which may be using it", subnet.KeyOf(k.mine.Subnets))
	}
	if err := ours(set, k.mine, k.cfg.Node); err != nil {
		return nil, err
	}
	former, err := leasesOf(view.Former)
	if err != nil {
		return nil, err
	}
	return &fallback{set: set, former: former, time: view.Time}, nil
}

// sameStore goes by the configuration key and by the endpoints: while etcd is silent, nothing else tells one cluster from
// another. One endpoint in common is enough, since members are replaced one by one.
func (k *keptView) sameStore(cfg Config) error {
	if k.ConfigKey != cfg.ConfigKey {
		return fmt.Errorf("the view is of %s, not of %s", k.ConfigKey, cfg.ConfigKey)
	}
	if !slices.ContainsFunc(k.Endpoints, func(e string) bool { return slices.Contains(cfg.Endpoints, e) }) {
		return fmt.Errorf("the view is of the etcd at %s, not of that at %s", strings.Join(k.Endpoints, ","), strings.Join(cfg.Endpoints, ","))
	}
	return nil
}

// ours checks that a recorded lease is the node's and that the view grants it: whoever came later with a lease that overlaps
// it harms himself alone.
func ours(set subnet.Set, mine subnet.Lease, node string) error {
	if mine.Attrs.Node != node {
		return fmt.Errorf("there is no record of a lease of node %s", node)
	}
	// What no host uses takes nothing from this one, and neither does a lease that names it.
	usable, _ := subnet.Judge(*set.Network, set.Leases, subnet.Self{Node: node})
	mine.Created = math.MaxInt64
	for _, l := range set.Leases {
		if l.Attrs.Node == node && l.Subnets == mine.Subnets {
			mine = *l
		}
	}
	for _, l := range usable {
		if subnet.CompareSubnetClaims(l, &mine) < 0 && len(subnet.Overlap(l.Subnets, mine.Subnets)) > 0 {
			return subnet.LostTo(mine.Subnets, *l)
		}
	}
	for _, f := range set.Network.Families() {
		if network := set.Network.Pools.Of(f).Network; !ip.Contains(network, mine.Subnets.Of(f)) {
			return fmt.Errorf("the recorded lease %s has no %s subnet in %s", subnet.KeyOf(mine.Subnets), f, network)
		}
	}
	return nil
}
