//go:build linux

package docker

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// A docker0 that holds the lease gets its former address back first, and only then the file is what it was.
func TestUnconfigureLeaves(t *testing.T) {
	env := leaseOf("10.5.1.0/24,fd05:0:0:1::/64")
	held := []netip.Prefix{netip.MustParsePrefix("10.5.1.1/24"), netip.MustParsePrefix("fd05:0:0:1::1/64")}
	for _, test := range []struct {
		name, before string
		docker0      string // before
		edit         string // of the file, after configure
		want         string // until Docker has restarted
		wantEnd      string
	}{
		{"usual", `{"debug":true}`, "172.17.0.1/16", "", `{"debug":true,"bip":"172.17.0.1/16"}`, `{"debug":true}`},
		{"unusual", `{}`, "192.168.9.1/24", "", "{\n  \"bip\": \"192.168.9.1/24\"\n}", `{}`},
		{"no docker0 before", `{}`, "", "", "{\n  \"bip\": \"172.17.0.1/16\"\n}", `{}`},
		{"configured address", `{"bip":"10.9.0.1/24"}`, "10.9.0.1/24", "", `{"bip":"10.9.0.1/24"}`, `{"bip":"10.9.0.1/24"}`},
		{"own bridge", `{"bridge":"br9"}`, "172.17.0.1/16", "", `{"bridge":"br9"}`, `{"bridge":"br9"}`},
		{"edited since", `{}`, "172.17.0.1/16", `{"bip":"10.8.0.1/24"}`, `{"bip":"10.8.0.1/24"}`, `{"bip":"10.8.0.1/24"}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "daemon.json")
			write := func(text string) {
				t.Helper()
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			write(test.before)
			f, err := OpenFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.configureFor(env, Version{20, 10}, true); err != nil {
				t.Fatal(err)
			}
			var docker0 []netip.Prefix
			if test.docker0 != "" {
				docker0 = []netip.Prefix{netip.MustParsePrefix(test.docker0)}
			}
			for _, addrs := range [][]netip.Prefix{docker0, held, {netip.MustParsePrefix("10.7.0.1/24")}} {
				if err := f.Remember(addrs); err != nil {
					t.Fatal(err)
				}
				if test.docker0 == "" {
					break
				}
			}
			if test.edit != "" {
				write(test.edit)
			}
			for range 2 {
				if _, leaving, err := f.Unconfigure(held); err != nil || !leaving {
					t.Errorf("unconfigure while docker0 has the lease: leaving %t, error %v", leaving, err)
				}
				if got := files(t, filepath.Dir(path))["daemon.json"]; got != test.want {
					t.Errorf("daemon.json is %s, want %s", got, test.want)
				}
				if configured, err := f.Configured(); err != nil || configured {
					t.Errorf("configured = %t, %v", configured, err)
				}
			}
			if addrs, routes, err := f.Leftovers(append(held, linkLocal())); err != nil || len(addrs) != 2 || len(routes) != 1 {
				t.Errorf("leftovers are %v and routes to %v (%v), want two of IPv6 and one", addrs, routes, err)
			}
			if _, leaving, err := f.Unconfigure(docker0); err != nil || leaving {
				t.Errorf("unconfigure: leaving %t, error %v", leaving, err)
			}
			if left := files(t, filepath.Dir(path)); len(left) != 1 || left["daemon.json"] != test.wantEnd {
				t.Errorf("left is %q, want daemon.json with %s", left, test.wantEnd)
			}
		})
	}
}
