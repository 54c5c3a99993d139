//go:build linux

package lab_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tulle/internal/lab"
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
	}
	heals("nftables flushed", func() error { return host.FlushTable(ip.TableName) })
	heals("guard flushed", func() error { return host.FlushTable(ip.GuardTable) })
	heals("a peer shut out", func() error {
		run(t, host, "", "nft", "delete", "element", "ip", ip.GuardTable, ip.GuardSet, "{", peer.Addr.V4.String(), "}")
		return nil
	})
	heals("a stranger let in", func() error {
		run(t, host, "", "nft", "add", "element", "ip6", ip.GuardTable, ip.GuardSet, "{ 2001:db8::66 }")
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
	deadline := time.After(timeout)
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

// fingerprint describes the data plane of a host: VXLAN devices and all that
// hangs on them, routes between hosts, the number of filter rules, and who is
// let in.
func fingerprint(t *testing.T, host *lab.Host) string {
	t.Helper()
	var lines []string
	note := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	names := make(map[int]string)
	links, err := host.Netlink.LinkList()
	check(err)
	for _, link := range links {
		attrs := link.Attrs()
		names[attrs.Index] = attrs.Name
		if link.Type() != "vxlan" {
			continue
		}
		note("link %s mac %s mtu %d up %t", attrs.Name, attrs.HardwareAddr, attrs.MTU, attrs.RawFlags&unix.IFF_UP != 0)
		for _, family := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
			neighbours, err := host.Netlink.NeighList(attrs.Index, family)
			check(err)
			for _, n := range neighbours {
				if n.State&unix.NUD_PERMANENT != 0 {
					note("neighbour %s %d %s %s", attrs.Name, family, n.IP, n.HardwareAddr)
				}
			}
		}
		addresses, err := host.Netlink.AddrList(link, netlink.FAMILY_ALL)
		check(err)
		for _, address := range addresses {
			if !address.IP.IsLinkLocalUnicast() {
				note("address %s %s", attrs.Name, address.IPNet)
			}
		}
	}
	routes, err := host.Netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{}, 0)
	check(err)
	for _, route := range routes {
		if route.Gw != nil {
			note("route %s via %s dev %s metric %d proto %d", route.Dst, route.Gw, names[route.LinkIndex], route.Priority, route.Protocol)
		}
	}
	for _, table := range []string{ip.TableName, ip.GuardTable} {
		rules, err := host.Rules(table)
		check(err)
		note("rules of %s %d", table, rules)
	}
	peers, err := host.Peers()
	check(err)
	note("peers %s", peers)
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
