package etcd

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/subnet"
	"tulle/subnet/flannel"
)

// view is what is known of the store: all keys of the layout's span as they were at a revision.
type view struct {
	moment
	layout   layout
	network  *subnet.Network     // the last good configuration
	stored   bool                // it is the one that is stored
	problems []subnet.Problem    // about the configuration
	listed   []subnet.Problem    // the first of broken; nil: they have changed since they were listed
	leases   map[string]*entry   // by key; views share them, so they never change
	broken   map[string]string   // reason by key
	other    map[string]struct{} // keys of neither kind
	list     list
}

// moment is a time in the history of an etcd.
type moment struct {
	revision      int64
	cluster, term uint64
}

func momentOf(h *pb.ResponseHeader) moment { return moment{h.Revision, h.ClusterId, h.RaftTerm} }

// precedes reports whether both can be of the same history, in which other is not the earlier.
func (m moment) precedes(other moment) bool {
	return other.cluster == m.cluster && other.term >= m.term && other.revision >= m.revision
}

// entry is a lease and the etcd lease that its key hangs on.
type entry struct {
	subnet.Lease
	id clientv3.LeaseID
}

func newView(l layout) *view {
	return &view{layout: l, leases: map[string]*entry{}, broken: map[string]string{}, other: map[string]struct{}{}}
}

// clone returns a view that changes by itself.
func (v *view) clone() *view {
	c := *v
	c.leases, c.broken, c.other = maps.Clone(v.leases), maps.Clone(v.broken), maps.Clone(v.other)
	c.list.changed = slices.Clone(v.list.changed)
	return &c
}

// size is the number of keys.
func (v *view) size() int { return len(v.leases) + len(v.broken) + len(v.other) }

func (v *view) put(kv *mvccpb.KeyValue) {
	key := string(kv.Key)
	v.drop(key)
	if !strings.HasPrefix(key, strings.TrimSuffix(v.layout.leases(), "/")) {
		v.other[key] = struct{}{}
		if key == v.layout.config() {
			v.configure(kv)
		}
		return
	}
	lease, err := v.layout.decode(kv)
	if err != nil {
		v.broken[key], v.listed = err.Error(), nil
		return
	}
	v.leases[key] = &entry{lease, clientv3.LeaseID(kv.Lease)}
	v.list.touch(key, lease.Subnets)
}

// drop forgets what is known of a key.
func (v *view) drop(key string) {
	if _, ok := v.broken[key]; ok {
		delete(v.broken, key)
		v.listed = nil
	}
	delete(v.other, key)
	if e, ok := v.leases[key]; ok {
		delete(v.leases, key)
		v.list.touch(key, e.Subnets)
	}
}

func (v *view) delete(key string) {
	v.drop(key)
	if key == v.layout.config() {
		v.unconfigure()
	}
}

// unconfigure takes note that no configuration is stored.
func (v *view) unconfigure() {
	v.problems, v.stored = nil, false
	if v.network != nil {
		v.addProblem("the network configuration is deleted; the last good value stays in force until there is another: tulle config set")
	}
}

func (v *view) configure(kv *mvccpb.KeyValue) {
	network, problems, err := flannel.ParseNetwork(kv.Value, subnet.Revision(kv.ModRevision))
	if v.problems, v.stored = nil, err == nil; err != nil {
		v.addProblem(err.Error())
		if v.network != nil {
			v.addProblem(fmt.Sprintf("the last good value, of revision %d, stays in force", v.network.Revision))
		}
		return
	}
	v.network = &network
	for _, p := range problems {
		v.addProblem(p)
	}
}

func (v *view) addProblem(reason string) {
	v.problems = append(v.problems, subnet.Problem{Key: v.layout.config(), Reason: reason})
}

// newest returns the lease that was changed last, nil if there is none.
func (v *view) newest() *subnet.Lease {
	var newest *subnet.Lease
	for _, e := range v.leases {
		if newest == nil || e.Revision > newest.Revision {
			newest = &e.Lease
		}
	}
	return newest
}

// set returns the view for others to keep.
func (v *view) set() subnet.Set {
	if v.listed == nil {
		v.listed, _ = subnet.ListBroken(maps.All(v.broken))
	}
	return subnet.Set{
		Revision: subnet.Revision(v.revision),
		Network:  v.network,
		Leases:   v.list.of(v.leases),
		Problems: slices.Concat(v.problems, v.listed),
		Unlisted: len(v.broken) - len(v.listed),
	}
}
