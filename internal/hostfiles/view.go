package hostfiles

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tulle/internal/atomicfile"
	"tulle/internal/regularfile"
	"tulle/internal/sealed"
	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

// viewFile holds, below the state directory, the last view of the store, for a start without it.
const viewFile = "view.json.gz"

const (
	viewFormat = 1
	maxView    = 256 << 20 // bytes, unpacked: a view of 10,000 leases has 3 MB
	maxPacked  = 64 << 20  // bytes in the file: 500 kB then
)

// cachedView is a view of the store as it is on disk.
type cachedView struct {
	header
	Time      string          `json:"time"`      // when it was read, for people: the clock may have been set since
	ConfigKey string          `json:"configKey"` // tells the prefix that it was read from
	Endpoints []string        `json:"endpoints"` // and these the cluster
	Revision  subnet.Revision `json:"revision"`
	Network   cachedNetwork   `json:"network"` // in force, which the store's need not be
	Leases    []cachedLease   `json:"leases"`
	Former    []cachedLease   `json:"former,omitempty"` // that are gone; earlier versions know none

	stamp stamp
}

// Origin is the store that a view is of.
type Origin struct {
	ConfigKey string   // of the network configuration
	Endpoints []string // of the cluster
}

// View is a view of the store that an earlier run has left.
type View struct {
	Set    subnet.Set
	Former []*subnet.Lease // that were gone by then
	Time   string          // when it was read, for people
}

// ReadView reads the view below dir. Without one the error wraps fs.ErrNotExist; one of another store is an error too.
func ReadView(dir string, from Origin) (*View, error) {
	cached, err := readView(dir)
	if err != nil {
		return nil, err
	}
	if err := cached.sameStore(from); err != nil {
		return nil, err
	}
	view := &View{Time: cached.Time}
	if view.Set, err = cached.set(); err != nil {
		return nil, err
	}
	view.Former, err = leasesOf(cached.Former)
	return view, err
}

// header is what every version can read.
type header struct {
	Format int `json:"format"`
}

type cachedNetwork struct {
	Pools    ip.Dual[cachedPool] `json:"pools"`
	Type     string              `json:"type"`
	Options  json.RawMessage     `json:"options,omitempty"`
	Revision subnet.Revision     `json:"revision"`
}

type cachedPool struct {
	Network   netip.Prefix `json:"network"`
	SubnetLen int          `json:"subnetLen"`
	Min       netip.Addr   `json:"min"`
	Max       netip.Addr   `json:"max"`
}

type cachedLease struct {
	Subnets  string          `json:"subnets"` // as in the key
	Attrs    flannel.Attrs   `json:"attrs"`   // as in the value
	Reserved bool            `json:"reserved,omitempty"`
	Created  subnet.Revision `json:"created"`
	Revision subnet.Revision `json:"revision"`
	Standing cachedStanding  `json:"standing,omitzero"`
}

type cachedStanding struct {
	Subnets subnet.Revision `json:"subnets"`
	Attrs   subnet.Revision `json:"attrs"`
	Gone    subnet.Revision `json:"gone,omitempty"`
}

func cacheLease(l *subnet.Lease) cachedLease {
	return cachedLease{subnet.KeyOf(l.Subnets), flannel.Attrs(l.Attrs), l.Reserved, l.Created, l.Revision, cachedStanding(l.Standing)}
}

func (k cachedLease) lease() (*subnet.Lease, error) {
	subnets, err := subnet.ParseKey(k.Subnets)
	if err != nil {
		return nil, fmt.Errorf("lease %q: %w", k.Subnets, err)
	}
	return &subnet.Lease{
		Subnets: subnets, Attrs: subnet.Attrs(k.Attrs), Reserved: k.Reserved, Created: k.Created, Revision: k.Revision, Standing: subnet.Standing(k.Standing),
	}, nil
}

// set returns the view as the store would deliver it.
func (k *cachedView) set() (subnet.Set, error) {
	network := subnet.Network{Backend: subnet.Backend{Type: k.Network.Type, Options: k.Network.Options}, Revision: k.Network.Revision}
	for _, f := range ip.Families() {
		network.Pools.Set(f, subnet.Pool(k.Network.Pools.Of(f)))
	}
	set := subnet.Set{Revision: k.Revision, Network: &network, Leases: make([]*subnet.Lease, 0, len(k.Leases))}
	var err error
	set.Leases, err = leasesOf(k.Leases)
	return set, err
}

func leasesOf(kept []cachedLease) ([]*subnet.Lease, error) {
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

// remember adds what the store does not tell: the leases that are gone, and since when the others have stood. If that is too much for the
// stamp, the view must be read at the next start, whatever the store shows by then: no view of the store has its sum.
func (k *cachedView) remember(former []*subnet.Lease) error {
	slices.SortFunc(former, subnet.CompareSubnetClaims)
	for _, l := range former {
		k.Former = append(k.Former, cacheLease(l))
	}
	memory := cachedMemory{Former: k.Former, Standing: map[int]cachedStanding{}}
	for i, l := range k.Leases {
		if l.Standing != (cachedStanding{}) {
			memory.Standing[i] = l.Standing
		}
	}
	packed, err := memory.pack()
	if err != nil {
		return err
	}
	if len(packed) > mostMemory {
		k.stamp.sum = [len(k.stamp.sum)]byte{}
		return nil
	}
	k.stamp.memory = packed
	return nil
}

func newCachedView(from Origin, set subnet.Set, network subnet.Network, read time.Time) cachedView {
	k := cachedView{
		header: header{viewFormat}, Time: read.UTC().Format(time.RFC3339), ConfigKey: from.ConfigKey, Endpoints: from.Endpoints, Revision: set.Revision,
		Network: cachedNetwork{Type: network.Backend.Type, Options: network.Backend.Options, Revision: network.Revision},
		Leases:  make([]cachedLease, 0, len(set.Leases)),
	}
	k.stamp = stamp{revision: set.Revision, sum: sumView(from, set, network)}
	for _, f := range ip.Families() {
		k.Network.Pools.Set(f, cachedPool(network.Pools.Of(f)))
	}
	for _, l := range set.Leases {
		k.Leases = append(k.Leases, cacheLease(l))
	}
	return k
}

func (k *cachedView) write(dir string) error {
	data, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("encode view: %w", err)
	}
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	if err != nil {
		return fmt.Errorf("pack view: %w", err)
	}
	if _, err := w.Write(sealed.Seal(data)); err != nil {
		return fmt.Errorf("pack view: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("pack view: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(dir, viewFile), k.stamp.into(packed.Bytes()), 0o600); err != nil {
		return fmt.Errorf("cache view: %w", err)
	}
	return nil
}

// readView reads the view below dir. Without one the error wraps fs.ErrNotExist.
func readView(dir string) (*cachedView, error) {
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

func unpack(packed []byte, most int64) (*cachedView, error) {
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
	if err := sealed.Check(data); err != nil {
		return nil, err
	}
	var k cachedView
	err = json.Unmarshal(data, &k.header) // the rest may be of another form then
	switch {
	case err != nil:
		return nil, err
	case k.Format != viewFormat:
		return nil, fmt.Errorf("its format is %d, and this version knows %d", k.Format, viewFormat)
	}
	return &k, json.Unmarshal(data, &k)
}

// sameStore goes by the configuration key and by the endpoints: while etcd is silent, nothing else tells one cluster from
// another. One endpoint in common is enough, since members are replaced one by one.
func (k *cachedView) sameStore(from Origin) error {
	if k.ConfigKey != from.ConfigKey {
		return fmt.Errorf("the view is of %s, not of %s", k.ConfigKey, from.ConfigKey)
	}
	if !slices.ContainsFunc(k.Endpoints, func(e string) bool { return slices.Contains(from.Endpoints, e) }) {
		return fmt.Errorf("the view is of the etcd at %s, not of that at %s", strings.Join(k.Endpoints, ","), strings.Join(from.Endpoints, ","))
	}
	return nil
}
