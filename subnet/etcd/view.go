package etcd

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/subnet"
)

// view is what is known of the store: all keys as they were at a revision.
type view struct {
	layout   layout
	revision int64
	network  *subnet.Network
	doubts   []subnet.Problem  // about the configuration
	leases   map[string]entry  // by key
	broken   map[string]string // reason by key
	list     list
}

// entry is a lease and the etcd lease that its key hangs on.
type entry struct {
	subnet.Lease
	id clientv3.LeaseID
}

func newView(l layout) *view {
	return &view{layout: l, leases: map[string]entry{}, broken: map[string]string{}}
}

// replace makes the view what was listed at a revision. Only the last good configuration survives.
func (v *view) replace(kvs []*mvccpb.KeyValue, revision int64) {
	clear(v.leases)
	clear(v.broken)
	v.list = list{}
	configured := false
	for _, kv := range kvs {
		configured = configured || string(kv.Key) == v.layout.config()
		v.put(kv)
	}
	if !configured {
		v.delete(v.layout.config())
	}
	v.revision = revision
}

func (v *view) put(kv *mvccpb.KeyValue) {
	key := string(kv.Key)
	if key == v.layout.config() {
		v.configure(kv)
		return
	}
	if !strings.HasPrefix(key, strings.TrimSuffix(v.layout.leases(), "/")) {
		return
	}
	lease, err := v.layout.decode(kv)
	v.drop(key)
	if err != nil {
		v.broken[key] = err.Error()
		return
	}
	v.leases[key] = entry{lease, clientv3.LeaseID(kv.Lease)}
	v.list.changed = append(v.list.changed, listed{key, lease.Subnets})
}

// drop forgets what is known of a lease key.
func (v *view) drop(key string) {
	delete(v.broken, key)
	if e, ok := v.leases[key]; ok {
		delete(v.leases, key)
		v.list.changed = append(v.list.changed, listed{key, e.Subnets})
	}
}

func (v *view) delete(key string) {
	v.drop(key)
	if key != v.layout.config() {
		return
	}
	v.doubts = nil
	if v.network != nil {
		v.doubt("deleted; the last good value stays in force until there is another: tulle config set")
	}
}

func (v *view) configure(kv *mvccpb.KeyValue) {
	v.doubts = nil
	network, doubts, err := subnet.ParseNetwork(kv.Value, kv.ModRevision)
	if err != nil {
		v.doubt(err.Error())
		if v.network != nil {
			v.doubt(fmt.Sprintf("the last good value, of revision %d, stays in force", v.network.Revision))
		}
		return
	}
	v.network = &network
	for _, d := range doubts {
		v.doubt(d)
	}
}

func (v *view) doubt(reason string) {
	v.doubts = append(v.doubts, subnet.Problem{Key: v.layout.config(), Reason: reason})
}

// newest returns the lease that was changed last.
func (v *view) newest() (newest subnet.Lease, ok bool) {
	for _, e := range v.leases {
		if e.Revision > newest.Revision {
			newest, ok = e.Lease, true
		}
	}
	return newest, ok
}

// set returns the view for others to keep.
func (v *view) set() subnet.Set {
	set := subnet.Set{
		Revision: v.revision,
		Network:  v.network,
		Leases:   v.list.of(v.leases),
		Problems: make([]subnet.Problem, 0, len(v.broken)),
	}
	for key, reason := range v.broken {
		set.Problems = append(set.Problems, subnet.Problem{Key: key, Reason: reason})
	}
	slices.SortFunc(set.Problems, func(a, b subnet.Problem) int { return cmp.Compare(a.Key, b.Key) })
	set.Problems = append(slices.Clone(v.doubts), set.Problems...)
	return set
}
