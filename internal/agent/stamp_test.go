package agent

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
	cfg := Config{StateDir: dir, ConfigKey: "/n/config", Endpoints: []string{"http://a:2379"}}
	set := crowd(t, "vxlan", 3)
	view := newKeptView(cfg, set, *set.Network, time.Time{})
	if err := view.write(dir); err != nil {
		t.Fatal(err)
	}
	shown := func(change func(*Config, *subnet.Set)) bool {
		cfg, set := cfg, set
		set.Leases = slices.Clone(set.Leases)
		change(&cfg, &set)
		return (&kept{cfg: cfg}).shows(set)
	}
	if !shown(func(_ *Config, set *subnet.Set) { set.Revision++ }) {
		t.Error("the same leases are not the same view")
	}
	for name, change := range map[string]func(*Config, *subnet.Set){
		"other endpoints": func(c *Config, _ *subnet.Set) { c.Endpoints = []string{"http://b:2379"} },
		"other prefix":    func(c *Config, _ *subnet.Set) { c.ConfigKey = "/m/config" },
		"older":           func(_ *Config, set *subnet.Set) { set.Revision-- },
		"one less":        func(_ *Config, set *subnet.Set) { set.Leases = set.Leases[1:] },
		"one changed": func(_ *Config, set *subnet.Set) {
			l := *set.Leases[0]
			l.Revision++
			set.Leases[0] = &l
		},
		"another network": func(_ *Config, set *subnet.Set) {
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
	if shown(func(*Config, *subnet.Set) {}) {
		t.Error("a view with another stamp is the same")
	}
	if err := os.WriteFile(filepath.Join(dir, viewFile), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if shown(func(*Config, *subnet.Set) {}) {
		t.Error("garbage is the same view")
	}
}
