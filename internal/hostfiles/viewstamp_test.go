package hostfiles

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"tulle/internal/hostfiles/hostfilestest"
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

// A file of which only the header is as it was written must be read as a whole, and so is found to be of no use, and written anew: it would be all that a
// later start without the store has.
func TestStampOfADamagedFile(t *testing.T) {
	from := Origin{ConfigKey: "/n/config", Endpoints: []string{"http://a:2379"}}
	set, other := crowd(t, 30), crowd(t, 29)
	files := map[int][]byte{}
	dir := t.TempDir()
	path := filepath.Join(dir, viewFile)
	for _, s := range []subnet.Set{set, other} {
		view := newCachedView(from, s, *s.Network, time.Time{})
		if err := view.remember(crowd(t, 3).Leases); err != nil {
			t.Fatal(err)
		}
		if err := view.write(dir); err != nil {
			t.Fatal(err)
		}
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[len(s.Leases)] = file
	}
	good, another := files[30], files[29]
	remembered := func(file []byte) bool {
		hostfilestest.Write(t, path, string(file))
		_, _, same := NewViewFile(dir, from, nil).Remembered(set)
		return same
	}
	if !remembered(good) {
		t.Fatal("the file as it was written is not remembered")
	}
	for i := range good {
		if remembered(good[:i]) {
			t.Errorf("remembered when cut to %d of %d bytes", i, len(good))
		}
		flipped := slices.Clone(good)
		flipped[i] ^= 1 << (i % 8)
		if insignificant := i >= 4 && i < gzipHeader; remembered(flipped) && !insignificant { // the time, and what made it
			t.Errorf("remembered when byte %d of %d is another", i, len(good))
		}
	}
	body := func(file []byte) []byte {
		return file[gzipHeader+2+int(binary.LittleEndian.Uint16(file[gzipHeader:])):]
	}
	head := good[:len(good)-len(body(good))]
	for name, file := range map[string][]byte{
		"another's body":    slices.Concat(head, body(another)),
		"another behind it": slices.Concat(good, another),
		"another before it": slices.Concat(another, good),
		"a byte behind it":  slices.Concat(good, []byte{0}),
		"another":           another,
	} {
		if remembered(file) {
			t.Errorf("%s: remembered", name)
		}
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
}
