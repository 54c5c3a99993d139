package hostfiles

import (
	"os"
	"path/filepath"
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
		return NewViewFile(dir, from, nil).Holds(set)
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
