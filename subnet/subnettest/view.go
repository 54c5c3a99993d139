package subnettest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"tulle/subnet"
)

// view is what one watcher has seen. The store's lock guards it.
type view struct {
	network  *subnet.Network
	doubts   []subnet.Problem
	news     chan struct{}
	hold     subnet.Holdback // used by Watch alone
	revision int64           // last delivered
}

func newView() *view { return &view{news: make(chan struct{}, 1)} }

// Watch implements subnet.Store. At the end of ctx it returns nil.
func (s *Store) Watch(ctx context.Context, deliver func(subnet.Set)) error {
	v := newView()
	s.mu.Lock()
	v.read(s.world)
	s.views[v] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.views, v)
	}()
	var again <-chan time.Time
	for {
		confirm := false
		select {
		case <-ctx.Done():
			return nil
		case <-again:
			again, confirm = nil, true
		case <-v.news:
		}
		s.mu.Lock()
		set := v.set(s.world)
		s.mu.Unlock()
		set = v.settle(set, confirm)
		switch {
		case v.hold.Doubt() == "":
			again = nil
		case again == nil:
			again = time.After(subnet.HoldbackTime)
		}
		deliver(set)
	}
}

// settle is what to deliver of a complete read.
func (v *view) settle(set subnet.Set, confirm bool) subnet.Set {
	back := set.Revision < v.revision
	v.revision = set.Revision
	if confirm && !back {
		return v.hold.Confirm(set)
	}
	set = v.hold.Admit(set, back)
	if doubt := v.hold.Doubt(); doubt != "" {
		set.Problems = append(set.Problems, subnet.Problem{Key: leasesDir, Reason: doubt})
	}
	return set
}

// read takes in what the store holds.
func (v *view) read(w *world) { v.changed(configKey, w.keys[configKey]) }

// changed takes in a new value of a key, nil if it was deleted.
func (v *view) changed(key string, r *record) {
	signal(v.news)
	if key != configKey {
		return
	}
	v.doubts = nil
	if r == nil {
		if v.network != nil {
			v.doubt("deleted; the last good value stays in force")
		}
		return
	}
	network, doubts, err := subnet.ParseNetwork([]byte(r.value), r.modified)
	if err != nil {
		v.doubt(err.Error())
		return
	}
	v.network = &network
	for _, d := range doubts {
		v.doubt(d)
	}
}

func (v *view) doubt(reason string) {
	v.doubts = append(v.doubts, subnet.Problem{Key: configKey, Reason: reason})
}

func (v *view) set(w *world) subnet.Set {
	set := subnet.Set{Revision: w.revision, Network: v.network, Problems: slices.Clone(v.doubts)}
	for key, r := range w.keys {
		if !strings.HasPrefix(key, strings.TrimSuffix(leasesDir, "/")) {
			continue
		}
		lease, err := decode(key, r)
		if err != nil {
			set.Problems = append(set.Problems, subnet.Problem{Key: key, Reason: err.Error()})
			continue
		}
		set.Leases = append(set.Leases, lease)
	}
	slices.SortFunc(set.Leases, func(a, b subnet.Lease) int { return subnet.CompareSubnets(a.Subnets, b.Subnets) })
	slices.SortStableFunc(set.Problems, func(a, b subnet.Problem) int { return cmp.Compare(a.Key, b.Key) })
	return set
}

func decode(key string, r *record) (subnet.Lease, error) {
	last, ok := strings.CutPrefix(key, leasesDir)
	if !ok {
		return subnet.Lease{}, fmt.Errorf("not a lease: only keys below %s are", leasesDir)
	}
	subnets, err := subnet.ParseKey(last)
	if err != nil {
		return subnet.Lease{}, err
	}
	lease := subnet.Lease{Subnets: subnets, Reserved: r.expiry == nil, Created: r.created, Revision: r.modified}
	if err := json.Unmarshal([]byte(r.value), &lease.Attrs); err != nil {
		return subnet.Lease{}, err
	}
	return lease, nil
}
