//go:build linux

package etcd

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	"pgregory.net/rapid"

	"tulle/internal/etcdmember/etcdmembertest"
	"tulle/internal/etcdtransport"
	"tulle/subnet"
)

// What a refreshed view says is what a listing says; where it cannot, it says so.
func TestRefresh(t *testing.T) {
	endpoints := etcdmembertest.Start(t).Endpoints()
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		s, err := Open(Config{Endpoints: endpoints, Prefix: fmt.Sprintf("/%d", round), PageSize: 8})
		if err != nil {
			rt.Fatal(err)
		}
		defer s.Close()
		w := world{rt, s}
		w.put("config", `{"Network":"10.5.0.0/16"}`)
		w.change("before")
		v, err := s.view(t.Context(), nil)
		if err != nil {
			rt.Fatal(err)
		}
		v.set() // as delivered
		old := v.clone()
		w.change("since")
		fresh, err := s.refresh(t.Context(), v)
		if err != nil {
			rt.Fatal(err)
		}
		if !fresh {
			return
		}
		listed, err := s.view(t.Context(), nil)
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(content(listed), content(v)); diff != "" {
			rt.Errorf("refreshed from revision %d to %d (-listed +refreshed):\n%s", old.revision, v.revision, diff)
		}
	})
}

// A view is refreshed, not listed anew, after what happens all the time.
func TestRefreshSees(t *testing.T) {
	endpoints := etcdmembertest.Start(t).Endpoints()
	lease := func(n int) string { return fmt.Sprintf("subnets/10.5.%d.0-24", n) }
	for name, tt := range map[string]struct {
		change func(world)
		fresh  bool
	}{
		"nothing":                {func(world) {}, true},
		"a new lease":            {func(w world) { w.put(lease(7), "{}") }, true},
		"a changed lease":        {func(w world) { w.put(lease(0), `{"BackendType":"udp"}`) }, true},
		"a broken lease":         {func(w world) { w.put(lease(0), "{") }, true},
		"another configuration":  {func(w world) { w.put("config", `{"Network":"10.6.0.0/16"}`) }, true},
		"an unknown key":         {func(w world) { w.put("logo", "") }, true},
		"other keys":             {func(w world) { w.put("claims/x", "") }, true},
		"a deleted lease":        {func(w world) { w.delete(lease(0)) }, false},
		"one came, one went":     {func(w world) { w.delete(lease(0)); w.put(lease(7), "{}") }, false},
		"one went and is back":   {func(w world) { w.delete(lease(0)); w.put(lease(0), "{}") }, true},
		"a deleted unknown key":  {func(w world) { w.delete("hint") }, false},
		"no configuration":       {func(w world) { w.delete("config") }, false},
		"a broken configuration": {func(w world) { w.put("config", "{") }, false},
		"the newest lease":       {func(w world) { w.put(lease(2), "{}") }, false},
		"more than a page": {func(w world) {
			for n := range 9 {
				w.put(lease(10+n), "{}")
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(Config{Endpoints: endpoints, Prefix: "/" + name, PageSize: 8})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			w := world{t, s}
			w.put("config", `{"Network":"10.5.0.0/16"}`)
			w.put("hint", "")
			for n := range 3 {
				w.put(lease(n), "{}")
			}
			v, err := s.view(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			tt.change(w)
			if fresh, err := s.refresh(t.Context(), v); err != nil || fresh != tt.fresh {
				t.Errorf("refresh = %v, %v, want %v", fresh, err, tt.fresh)
			}
		})
	}
}

// A view of other data is not refreshed, whatever its revision.
func TestRefreshOfOtherData(t *testing.T) {
	s, err := Open(Config{Endpoints: etcdmembertest.Start(t).Endpoints()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w := world{t, s}
	w.put("config", `{"Network":"10.5.0.0/16"}`)
	w.put("subnets/10.5.1.0-24", "{}")
	w.put("subnets/10.5.2.0-24", "{}")
	for name, falsify := range map[string]func(*view){
		"cluster":  func(v *view) { v.cluster++ },
		"term":     func(v *view) { v.term++ },
		"revision": func(v *view) { v.revision++ },
		"newest":   func(v *view) { v.newest().Revision++ },
	} {
		v, err := s.view(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		falsify(v)
		if fresh, err := s.refresh(t.Context(), v); fresh || err != nil {
			t.Errorf("other %s: refresh = %v, %v, want false", name, fresh, err)
		}
	}
}

// world is what others do to the store.
type world struct {
	t interface {
		Helper()
		Fatal(...any)
	}
	s *Store
}

func (w world) put(key, value string) {
	w.t.Helper()
	if _, err := w.s.client.Commit(context.Background(), etcdtransport.Txn{Then: []clientv3.Op{clientv3.OpPut(w.s.layout.prefix+"/"+key, value)}}); err != nil {
		w.t.Fatal(err)
	}
}

func (w world) delete(key string) {
	w.t.Helper()
	if _, err := w.s.client.Commit(context.Background(), etcdtransport.Txn{Then: []clientv3.Op{clientv3.OpDelete(w.s.layout.prefix + "/" + key)}}); err != nil {
		w.t.Fatal(err)
	}
}

// change puts and deletes keys at random.
func (w world) change(when string) {
	rt := w.t.(*rapid.T)
	keys := []string{"config", "hint", "subnets", "subnets/x", "claims/past/10.5.1.0-24"}
	for n := range 6 {
		keys = append(keys, fmt.Sprintf("subnets/10.5.%d.0-24", n))
	}
	values := []string{"{", `{"PublicIP":"192.0.2.1"}`, `{"Network":"10.5.0.0/16"}`, `{"Network":"10.6.0.0/16"}`}
	for range rapid.IntRange(0, 8).Draw(rt, when) {
		key := rapid.SampledFrom(keys).Draw(rt, "key")
		if rapid.Bool().Draw(rt, "delete") {
			w.delete(key)
		} else {
			w.put(key, rapid.SampledFrom(values).Draw(rt, "value"))
		}
	}
}

// content is all that a view says.
func content(v *view) any {
	set := v.set()
	leases := set.Leases
	set.Leases = nil
	ids := map[string]clientv3.LeaseID{}
	for key, e := range v.leases {
		ids[key] = e.id
	}
	var all []subnet.Lease
	for _, l := range leases {
		all = append(all, *l)
	}
	return fmt.Sprintf("%+v %+v %v %v %v %v", set.Revision, set.Network, set.Problems, all, ids, slices.Sorted(maps.Keys(v.other)))
}

// BenchmarkList is what a start reads: all leases, and what has changed since, which is nothing.
func BenchmarkList(b *testing.B) {
	const n = 10_000
	s, err := Open(Config{Endpoints: etcdmembertest.Start(b).Endpoints(), Prefix: "/net"})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	w := world{b, s}
	w.put("config", `{"Network":"10.0.0.0/8"}`)
	for first := 0; first < n; first += 100 {
		var t etcdtransport.Txn
		for i := range 100 {
			kv := peerKV(first + i)
			t.Then = append(t.Then, clientv3.OpPut(string(kv.Key), string(kv.Value)))
		}
		if _, err := s.client.Commit(b.Context(), t); err != nil {
			b.Fatal(err)
		}
	}
	var v *view
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			if v, err = s.view(b.Context(), nil); err != nil || len(v.leases) != n {
				b.Fatalf("%d leases, %v", len(v.leases), err)
			}
		}
	})
	b.Run("changes", func(b *testing.B) {
		for b.Loop() {
			if fresh, err := s.refresh(b.Context(), v.clone()); err != nil || !fresh {
				b.Fatalf("refresh = %v, %v", fresh, err)
			}
		}
	})
}
