//go:build linux

package lab_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/ip"
)

const (
	healTimeout  = 2 * time.Second
	pollInterval = 10 * time.Millisecond
)

// Whatever is done to the data plane behind the daemon's back, it is as before
// within 2 seconds, down to the MAC of the device.
func TestHeals(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 3, Containers: 1})
	requireMatrix(t, l)
	host, peer := l.Hosts[0], l.Hosts[1]
	links, err := host.VXLANLinks()
	if err != nil {
		t.Fatal(err)
	}
	devices := ip.Dual[string]{V4: "flannel.1", V6: "flannel-v6.1"}
	if want := []string{devices.V4, devices.V6}; !cmp.Equal(links, want, sorted()) {
		t.Fatalf("VXLAN devices = %q, want %q", links, want)
	}
	heals := func(name string, breakIt func() error) {
		t.Run(name, func(t *testing.T) {
			before := fingerprint(t, host)
			if err := breakIt(); err != nil {
				t.Fatal(err)
			}
			var after string
			if !eventually(healTimeout, func() bool {
				after = fingerprint(t, host)
				return after == before
			}) {
				t.Errorf("%v later, before (-) and after (+) differ:\n%s", healTimeout, cmp.Diff(before, after))
			}
		})
	}
	for _, family := range ip.Families() {
		device := devices.Of(family)
		heals(family.String()+" routes to a peer deleted", func() error { return host.DeleteRoutesTo(peer, family) })
		heals(family.String()+" neighbours deleted", func() error { return host.DeleteNeighboursOn(device, family) })
		heals(device+" FDB deleted", func() error { return host.DeleteFDBOn(device) })
		heals(device+" bounced", func() error {
			if err := host.SetLink(device, false); err != nil {
				return err
			}
			return host.SetLink(device, true)
		})
		heals(device+" set down", func() error { return host.SetLink(device, false) })
		heals(device+" deleted", func() error { return host.DeleteLink(device) })
		heals(device+" resolves no addresses", func() error {
			run(t, host, "", "ip", "link", "set", "dev", device, "arp", "off")
			return nil
		})
		heals(device+" made a port", func() error {
			run(t, host, "", "sh", "-c", "ip link show br-other >/dev/null 2>&1 || ip link add br-other type bridge; ip link set dev "+device+" master br-other")
			return nil
		})
	}
	heals("nftables flushed", func() error { return host.FlushTable(ip.TableName) })
	heals("guard flushed", func() error { return host.FlushTable(ip.GuardTable) })
	heals("a peer shut out", func() error {
		run(t, host, "", "nft", "delete", "element", "ip", ip.GuardTable, ip.GuardPeers, "{", peer.Addr.V4.String(), "}")
		return nil
	})
	heals("a stranger let in", func() error {
		run(t, host, "", "nft", "add", "element", "ip6", ip.GuardTable, ip.GuardPeers, "{ 2001:db8::66 }")
		return nil
	})
	heals("all rules flushed", func() error {
		run(t, host, "", "nft", "flush", "ruleset")
		return nil
	})
	requireMatrix(t, l)
}

// eventually polls until done returns true; false if it has not in time.
func eventually(timeout time.Duration, done func() bool) bool {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	deadline := time.After(labtest.Limit(timeout))
	for !done() {
		select {
		case <-ticker.C:
		case <-deadline:
			return done()
		}
	}
	return true
}

func sorted() cmp.Option {
	return cmp.Transformer("sort", func(list []string) []string { return slices.Sorted(slices.Values(list)) })
}

func fingerprint(t *testing.T, host *lab.Host) string {
	t.Helper()
	text, err := host.DataPlane()
	if err != nil {
		t.Fatal(err)
	}
	return text
}
