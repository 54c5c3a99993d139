//go:build linux

package lab_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/internal/trouble"
	"tulle/ip"
)

// notReady waits until a host is not ready, and tells of packets between hosts with a text.
func notReady(t *testing.T, host *lab.Host, text string) {
	t.Helper()
	var st uplinkStatus
	if !eventually(healTimeout, func() bool {
		st = uplinkStatus{}
		return host.Status(t.Context(), &st) == nil && !st.Ready && slices.ContainsFunc(st.Troubles.Of(trouble.UplinkDiverted), func(tr trouble.Trouble) bool {
			return strings.Contains(tr.Text, text)
		})
	}) {
		t.Errorf("%q is not told: ready %t, %+v", text, st.Ready, st.Troubles)
	}
}

// A host that no longer takes packets for its address is not ready, though all that it sends leaves, until what the text says is done.
func TestPacketsOfHostsDoNotArrive(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 2, Containers: 1})
	requireMatrix(t, l)
	host := l.Hosts[0]
	for _, f := range ip.Families() {
		rest(t, host)
		own := host.Addr.Of(f).String()
		shadowRow{}.do(t, host, f, []string{"route del local " + own + " dev eth0 table local"})
		notReady(t, host, "packets to "+own)
		var st uplinkStatus
		if err := host.Status(t.Context(), &st); err != nil {
			t.Fatal(err)
		}
		for _, tr := range st.Troubles.Of(trouble.UplinkDiverted) {
			_, remedy, _ := strings.Cut(tr.Text, "give it back with ")
			remedy, _, _ = strings.Cut(remedy, ";")
			run(t, host, "", "sh", "-ec", remedy)
		}
		if !eventually(10*time.Second, func() bool { ready, _ := host.Ready(t.Context()); return ready }) { // the store was out of reach, too
			t.Errorf("%s: not ready again", f)
		}
	}
	requireMatrix(t, l)
}

// A route that has several next hops is told if packets between hosts take one that leads away, and not if the kernel chooses the uplink for them.
func TestMultipathToPeer(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 2, Containers: 1})
	requireMatrix(t, l)
	host, peer := l.Hosts[0], l.Hosts[1]
	addVPN(t, host, "tun0")
	for _, f := range ip.Families() {
		t.Run(f.String(), func(t *testing.T) {
			rest(t, host)
			vpn := ip.Dual[string]{V4: "10.8.0.1", V6: "fd08::1"}.Of(f)
			route := peer.Addr.Of(f).String() + " nexthop via " + l.RouterAddr(f, host.Segment).String() + " dev eth0 nexthop via " + vpn + " dev tun0"
			shadowRow{}.do(t, host, f, []string{"route add " + route})
			rest(t, host)
			matrix, err := l.Matrix(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			lost := slices.ContainsFunc(matrix.Pairs, func(p lab.Pair) bool { return p.Family == f.String() && !p.OK })
			var st uplinkStatus
			if err := host.Status(t.Context(), &st); err != nil {
				t.Fatal(err)
			}
			if named := st.Troubles.Has(trouble.UplinkDiverted); named != lost || st.Ready == lost {
				t.Errorf("packets are lost: %t; ready %t, %+v", lost, st.Ready, st.Troubles)
			}
			shadowRow{}.do(t, host, f, []string{"route del " + route})
			rest(t, host)
		})
	}
	requireMatrix(t, l)
}

// On a host whose only interface has an address for itself alone, as clouds give them, packets to peers have to leave by it.
func TestUplinkOfOneAddress(t *testing.T) {
	l := newLab(t, lab.Config{Hosts: 2, Containers: 1})
	begin(t, l)
	host, peer := l.Hosts[0], l.Hosts[1]
	for _, f := range ip.Families() {
		gateway, own, long := l.RouterAddr(f, host.Segment).String(), host.Addr.Of(f).String(), map[ip.Family]string{ip.IPv4: "24", ip.IPv6: "64"}[f]
		shadowRow{}.do(t, host, f, []string{
			"address del " + own + "/" + long + " dev eth0", "address add " + ip.Host(host.Addr.Of(f)).String() + " dev eth0",
			"route add " + gateway + " dev eth0", "route replace default via " + gateway + " dev eth0 onlink",
		})
	}
	startTulled(t, host)
	startTulled(t, peer)
	if err := l.StartContainers(t.Context()); err != nil {
		t.Fatal(err)
	}
	requireMatrix(t, l)
	addVPN(t, host, "tun0")
	for _, f := range ip.Families() {
		for _, route := range []string{"blackhole ADDR", "ADDR dev tun0"} {
			rest(t, host)
			route = strings.ReplaceAll(route, "ADDR", peer.Addr.Of(f).String())
			shadowRow{}.do(t, host, f, []string{"route add " + route})
			notReady(t, host, "to "+peer.Addr.Of(f).String())
			shadowRow{}.do(t, host, f, []string{"route del " + route})
			if !eventually(healTimeout, func() bool { ready, _ := host.Ready(t.Context()); return ready }) {
				t.Errorf("%s: not ready again", route)
			}
		}
	}
	requireMatrix(t, l)
}
