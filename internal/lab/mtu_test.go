//go:build linux

package lab_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"tulle/internal/lab"
	"tulle/ip"
)

// The smallest MTU that a route over the uplink names is the underlay's, and goes with the route. It is told where it comes from.
func TestRouteMTU(t *testing.T) {
	l := newLab(t, lab.Config{Hosts: 2, Segments: 2, Containers: 1})
	begin(t, l)
	host, peer := l.Hosts[0], l.Hosts[1]
	do := func(f ip.Family, command string) {
		t.Helper()
		command = strings.NewReplacer("GW", l.RouterAddr(f, host.Segment).String(), "PEER", peer.Addr.Of(f).String()).Replace(command)
		run(t, host, "", "ip", append([]string{"-" + strings.TrimPrefix(f.String(), "ipv")}, strings.Fields(command)...)...)
	}
	is := func(what string, mtu int, route netip.Prefix) {
		t.Helper()
		type status struct {
			Ready  bool
			Uplink struct {
				MTU   int
				Route netip.Prefix `json:"mtuRoute"`
			}
		}
		var st status
		var links [2]string
		env := 0
		if !eventually(healTimeout, func() bool {
			st = status{}
			if host.Status(t.Context(), &st) != nil {
				return false
			}
			for i, link := range []string{"flannel.1", "flannel-v6.1"} {
				links[i] = run(t, host, "", "ip", "-o", "link", "show", link)
			}
			file, err := host.ReadSubnetFile()
			env = file.MTU
			return err == nil && st.Ready && st.Uplink.MTU == mtu && st.Uplink.Route == route && env == mtu-70 &&
				strings.Contains(links[0], fmt.Sprintf(" mtu %d ", mtu-50)) && strings.Contains(links[1], fmt.Sprintf(" mtu %d ", mtu-70))
		}) {
			t.Errorf("%s: want %d by %v, not %+v, FLANNEL_MTU=%d, %s%s", what, mtu, route, st, env, links[0], links[1])
		}
		if status := tulle(t, l, host, "status"); route.IsValid() != strings.Contains(status, fmt.Sprintf("uplink   eth0, MTU %d of its route to %s, ", mtu, route)) {
			t.Errorf("%s: status is\n%s", what, status)
		}
	}
	startTulled(t, host)
	startTulled(t, peer)
	is("no route names any", 1500, netip.Prefix{})
	for _, f := range ip.Families() {
		do(f, "route change default via GW dev eth0 mtu 1460")
		is("the default route", 1460, f.All())
		do(f, "route add PEER via GW dev eth0 mtu 1440")
		is("the route to a peer", 1440, ip.Host(peer.Addr.Of(f)))
		do(f, "route del PEER")
		is("the default route alone", 1460, f.All())
		do(f, "route change default via GW dev eth0")
		is("none again", 1500, netip.Prefix{})
	}
	for _, h := range l.Hosts { // or the containers of the other would send what is too large for those of this one
		objectsAlone(t, h)
		run(t, h, "", "ip", "-4", "route", "del", "default")
		run(t, h, "", "ip", "-6", "route", "del", "default")
		replaceDefaults(t, l, h, `nexthop add id N via GW dev eth0
			route add default nhid N mtu 1430`)
	}
	is("default routes by nexthop objects", 1430, ip.IPv4.All())
	rest(t, peer)
	if err := l.StartContainers(t.Context()); err != nil {
		t.Fatal(err)
	}
	requireMatrix(t, l)
}
