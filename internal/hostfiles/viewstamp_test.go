package hostfiles

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"tulle/subnet"
)

func TestStamp(t *testing.T) {
	dir := t.TempDir()
	from := Origin{ConfigKey: "/n/config", Endpoints: []string{"http://a:2379"}}
	set := crowd(t, 3)
	view := newCachedView(from, set, *set.Network, time.Time{})
	if err := view.write(dir); err != nil {
		t.Fatal(err)
	}
	shown := func(change func(*Origin, *subnet.Set)) bool {
		from, set := from, set
		set.Leases = slices.Clone(set.Leases)
		change(&from, &set)
		_, _, same := NewViewFile(dir, from, nil).Remembered(set)
		return same
	}
	if !shown(func(_ *Origin, set *subnet.Set) { set.Revision++ }) {
		t.Error("the same leases are not the same view")
	}
	for name, change := range map[string]func(*Origin, *subnet.Set){
		"other endpoints": func(o *Origin, _ *subnet.Set) { o.Endpoints = []string{"http://b:2379"} },
		"other prefix":    func(o *Origin, _ *subnet.Set) { o.ConfigKey = "/m/config" },
		"older":           func(_ *Origin, set *subnet.Set) { set.Revision-- },
		"one less":        func(_ *Origin, set *subnet.Set) { set.Leases = set.Leases[1:] },
		"one changed": func(_ *Origin, set *subnet.Set) {
			l := *set.Leases[0]
			l.Revision++
			set.Leases[0] = &l
		},
		"another network": func(_ *Origin, set *subnet.Set) {
			n := *set.Network
			n.Revision++
			set.Network = &n
		},
	} {
		if shown(change) {
			t.Errorf("%s: the same view", name)
		}
	}
	leases, former, same := NewViewFile(dir, from, nil).Remembered(set)
	if !same || !slices.Equal(leases, set.Leases) || len(former) > 0 {
		t.Errorf("%v, former %v, same %v, want the leases as they are", leases, former, same)
	}
	view.stamp = stamp{}
	if err := view.write(dir); err != nil {
		t.Fatal(err)
	}
	if shown(func(*Origin, *subnet.Set) {}) {
		t.Error("a view with another stamp is the same")
	}
	if err := os.WriteFile(filepath.Join(dir, viewFile), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if shown(func(*Origin, *subnet.Set) {}) {
		t.Error("garbage is the same view")
	}
}

// What is remembered beside the leases comes with the stamp as long as it fits, and is read with the view otherwise.
func TestStampRemembers(t *testing.T) {
	from := Origin{ConfigKey: "/n/config", Endpoints: []string{"http://a:2379"}}
	set := crowd(t, 3)
	ranked := set
	ranked.Leases = slices.Clone(set.Leases)
	stood := *set.Leases[1]
	stood.Standing = subnet.Standing{Subnets: 7, Attrs: 9}
	ranked.Leases[1] = &stood
	for _, gone := range []int{0, 1, 100, 10_000} {
		dir := t.TempDir()
		former := []*subnet.Lease{}
		for _, l := range crowd(t, gone).Leases {
			l.Standing.Gone = 5
			former = append(former, l)
		}
		view := newCachedView(from, ranked, *set.Network, time.Time{})
		if err := view.remember(slices.Clone(former)); err != nil {
			t.Fatal(err)
		}
		if err := view.write(dir); err != nil {
			t.Fatal(err)
		}
		if whole, err := ReadView(dir, from); err != nil || !reflect.DeepEqual(whole.Set.Leases, ranked.Leases) || len(whole.Former) != gone {
			t.Errorf("%d gone: read as a whole: %v", gone, err)
		}
		file := NewViewFile(dir, from, nil)
		leases, remembered, same := file.Remembered(set)
		if fits := gone < 10_000; same != fits {
			t.Errorf("%d gone: remembered: %v, want %v", gone, same, fits)
		} else if fits && (!reflect.DeepEqual(leases, ranked.Leases) || !reflect.DeepEqual(remembered, former)) {
			t.Errorf("%d gone: remembered %v and %v", gone, leases, remembered)
		}
		if set.Leases[1].Standing != (subnet.Standing{}) {
			t.Fatal("a lease of the store has been changed")
		}
		other := set
		other.Leases = set.Leases[1:]
		if _, _, same := file.Remembered(other); same {
			t.Errorf("%d gone: another view is the same", gone)
		}
	}

	// A header that was damaged is of no use, whatever it says.
	view := newCachedView(from, ranked, *set.Network, time.Time{})
	if err := view.remember(nil); err != nil {
		t.Fatal(err)
	}
	view.stamp.memory[len(view.stamp.memory)/2] ^= 1
	dir := t.TempDir()
	if err := view.write(dir); err != nil {
		t.Fatal(err)
	}
	if _, _, same := NewViewFile(dir, from, nil).Remembered(set); same {
		t.Error("what is remembered was damaged, and counts")
	}
}
