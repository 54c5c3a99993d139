//go:build linux

package docker

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestVersion(t *testing.T) {
	for _, test := range []struct {
		text, api string
		want      Version
	}{
		{"20.10.24+dfsg1", "1.41", Version{20, 10}},
		{"28.2.2", "1.50", Version{28, 2}},
		{"29.0.0-rc.1", "1.52", Version{29, 0}},
		{"dev", "1.50", Version{28, 2}},
		{"v2.0.0-beta.24", "1.55", Version{29, 0}},
		{"unknown-version", "1.49", Version{28, 0}},
		{"library-import", "1.41", Version{}},
	} {
		api, err := ParseVersion(test.api)
		if err != nil {
			t.Fatal(err)
		}
		if got := releaseOf(test.text, api); got != test.want {
			t.Errorf("release of %s with API %s is %s, want %s", test.text, test.api, got, test.want)
		}
	}
	for _, text := range []string{"", "28", "new", "28.x"} {
		if v, err := ParseVersion(text); err == nil {
			t.Errorf("version %q is read as %s, want an error", text, v)
		}
	}
}

func TestHoldings(t *testing.T) {
	network := func(name, prefix string, ours bool) Network {
		return Network{Name: name, Subnets: []netip.Prefix{netip.MustParsePrefix(prefix)}, MTU: 1450, Ours: ours}
	}
	tall := network("tall", "10.5.1.0/24", true)
	tall.MTU = 1500
	masqueraded := network(DefaultNetwork, "10.5.1.0/24", false)
	masqueraded.Masquerade = true
	type verdict struct{ Name, Problem, Remedy string }
	for _, test := range []struct {
		name       string
		networks   []Network
		configured bool
		pools      string
		want       []verdict
	}{
		{"none", []Network{network(DefaultNetwork, "172.17.0.0/16", false), network("app", "172.18.0.0/16", false)}, false, "", nil},
		{"docker0", []Network{network(DefaultNetwork, "10.5.1.0/24", false)}, true, "", []verdict{{Name: "bridge"}}},
		{"docker0 before its restart", []Network{network(DefaultNetwork, "172.17.0.0/16", false)}, true, "", []verdict{
			{"bridge", "it holds 172.17.0.0/16, but the lease is 10.5.1.0/24", "tulle docker configure --restart"},
		}},
		{"docker0 of an earlier lease", []Network{network(DefaultNetwork, "10.5.9.0/24", false)}, false, "", []verdict{
			{"bridge", "it holds 10.5.9.0/24, but the lease is 10.5.1.0/24", "tulle docker configure --restart"},
		}},
		{"networks", []Network{network("fabric", "10.5.9.0/24", true), network("own", "10.5.0.0/23", false), tall}, false, "", []verdict{
			{"fabric", "it holds 10.5.9.0/24, but the lease is 10.5.1.0/24", "tulle docker network rm fabric && tulle docker network create fabric"},
			{"own", "it holds 10.5.0.0/23, but the lease is 10.5.1.0/24", "docker network rm own && docker network create own"},
			{"tall", "its MTU is 1500, above the 1450 that Tulle's network carries", "tulle docker network rm tall && tulle docker network create tall"},
		}},
		{"masqueraded twice", []Network{masqueraded}, true, "", []verdict{
			{"bridge", "Docker masquerades it, which tulled does already", "tulle docker configure --restart"},
		}},
		{"instead of docker0", []Network{network("own", "10.5.0.0/23", false)}, false, "take the pool out", []verdict{
			{"own", "it holds 10.5.0.0/23, but the lease is 10.5.1.0/24", "docker network rm own && tulle docker network create own"},
		}},
		{"beside docker0", []Network{network("own", "10.5.0.0/23", false)}, true, "", []verdict{
			{"own", "it holds 10.5.0.0/23, but the lease is 10.5.1.0/24", "docker network rm own && docker network create own"},
		}},
		{"beside another, from a pool", []Network{network("fabric", "10.5.1.0/24", true), network("own", "10.5.8.0/24", false)}, false, "take the pool out", []verdict{
			{Name: "fabric"},
			{"own", "it holds 10.5.8.0/24, but the lease is 10.5.1.0/24", "take the pool out, restart Docker, and then: docker network rm own && docker network create own"},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []verdict
			for _, h := range Holdings(leaseOf("10.5.1.0/24"), test.networks, test.configured, test.pools) {
				got = append(got, verdict{h.Name, h.Problem, h.Remedy})
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
