package subnettest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tulle/subnet"
	"tulle/subnet/flannel"
)

// view is what one watcher has seen. The store's lock guards it.
type view struct {
	network  *subnet.Network
	warnings []subnet.Problem
	changed  chan struct{}
	hold     subnet.Holdback // used by Watch alone
	revision subnet.Revision // last delivered
	epoch    int             // of the history that it follows
	seen     subnet.Revision // revision up to which it has followed
}

func newView() *view { return &view{changed: make(chan struct{}, 1)} }

// Watch implements subnet.Store. At the end of ctx it returns nil.
func (s *Store) Watch(ctx context.Context, deliver func(subnet.Set)) error {
	v := newView()
	s.mu.Lock()
	v.read(s.world)
	signal(v.changed)
	s.views = append(s.views, v)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.views = slices.DeleteFunc(s.views, func(o *view) bool { return o == v })
	}()
	var again <-chan time.Time
	for {
		set, confirm, ok := s.awaitChange(ctx, v, again)
		if !ok {
			return nil
		}
		set = v.admit(set, confirm)
		switch {
		case v.hold.Reason() == "":
			again = nil
		case again == nil || confirm:
			again = time.After(subnet.HoldbackTime)
		}
		deliver(set)
	}
}

// awaitChange waits until there is something new to see, or it is time to look again, and for the connection to see it; not ok at the end of ctx.
func (s *Store) awaitChange(ctx context.Context, v *view, again <-chan time.Time) (set subnet.Set, confirm, ok bool) {
	fresh := false
	for {
		s.mu.Lock()
		connection, moved := s.connection, s.moved
		if (fresh || confirm) && s.open() && !(connection.NoEvents && !confirm) && !connection.Stopped {
			v.follow(s.world)
			set = v.set(s.world)
			s.mu.Unlock()
			return set, confirm, s.age(ctx, connection)
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return set, false, false
		case <-again:
			again, confirm = nil, true
		case <-v.changed:
			fresh = true
		case <-moved:
		}
	}
}

// age waits for as long as the connection delays a view; false at the end of ctx.
func (s *Store) age(ctx context.Context, connection Connection) bool {
	if connection.Latency != nil {
		connection.Lag += connection.Latency()
	}
	if connection.Lag == 0 {
		return true
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(connection.Lag):
		return true
	}
}

// admit is what to deliver of a complete read.
func (v *view) admit(set subnet.Set, confirm bool) subnet.Set {
	back := set.Revision < v.revision
	v.revision = set.Revision
	if confirm && !back {
		return v.hold.Confirm(set)
	}
	set = v.hold.Admit(set, back)
	if addProblem := v.hold.Reason(); addProblem != "" {
		set.Problems = append(set.Problems, subnet.Problem{Key: leasesDir, Reason: addProblem})
	}
	return set
}

// configure takes in a value of the configuration, nil if it was deleted.
func (v *view) configure(value *string, revision subnet.Revision) {
	v.warnings = nil
	if value == nil {
		if v.network != nil {
			v.addProblem("the network configuration is deleted; the last good value stays in force")
		}
		return
	}
	network, warnings, err := flannel.ParseNetwork([]byte(*value), revision)
	if err != nil {
		v.addProblem(err.Error())
		return
	}
	v.network = &network
	for _, d := range warnings {
		v.addProblem(d)
	}
}

func (v *view) addProblem(reason string) {
	v.warnings = append(v.warnings, subnet.Problem{Key: configKey, Reason: reason})
}

func (v *view) set(w *world) subnet.Set {
	if w.leases == nil {
		w.leases = w.parse()
	}
	set := *w.leases
	set.Network, set.Problems = v.network, slices.Concat(v.warnings, set.Problems)
	return set
}

// parse takes the keys for leases.
func (w *world) parse() *subnet.Set {
	set, broken := subnet.Set{Revision: w.revision}, map[string]string{}
	for key, r := range w.keys {
		if !strings.HasPrefix(key, strings.TrimSuffix(leasesDir, "/")) {
			continue
		}
		if r.err != nil {
			broken[key] = r.err.Error()
			continue
		}
		if reserved := r.expiry == nil; r.lease.Reserved != reserved {
			lease := *r.lease
			lease.Reserved = reserved
			r.lease = &lease
		}
		set.Leases = append(set.Leases, r.lease)
	}
	slices.SortFunc(set.Leases, func(a, b *subnet.Lease) int { return subnet.CompareSubnets(a.Subnets, b.Subnets) })
	set.Problems, set.Unlisted = subnet.ListBroken(maps.All(broken))
	set.Leases = slices.Clip(set.Leases)
	return &set
}

func decode(key string, r *record) (subnet.Lease, error) {
	last, ok := strings.CutPrefix(key, leasesDir)
	if !ok {
		return subnet.Lease{}, fmt.Errorf("not a lease: only keys below %s are", leasesDir)
	}
	lease, err := flannel.DecodeLease(last, []byte(r.value))
	if err != nil {
		return subnet.Lease{}, err
	}
	lease.Reserved, lease.Created, lease.Revision = r.expiry == nil, r.created, r.modified
	return lease, nil
}
