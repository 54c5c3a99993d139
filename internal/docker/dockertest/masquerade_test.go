//go:build linux

package dockertest_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"testing"
	"time"

	"tulle/internal/docker/dockertest"
	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/internal/netns/netnstest"
	"tulle/ip"
)

// requireSources lets tulled or Docker, both or none of them masquerade on a's host: inside the network containers keep their
// address, outside they have the host's unless nobody masquerades.
func requireSources(t *testing.T, l *lab.Lab, a, b *container, e engine) {
	t.Helper()
	for _, docker := range []bool{false, true} {
		if docker {
			setMasquerade(t, a.Machine, true)
			a.RestartDocker(t)
			a.awaitRunning(t)
			a.inspect(t, "bridge")
		}
		entered := a.open(t)
		for _, tulled := range []bool{true, false} {
			restartTulled(t, a.Host, fmt.Sprintf("--ip-masq=%t", tulled))
			for _, f := range ip.Families() {
				requireSource(t, a, netip.AddrPortFrom(b.addr.Of(f), 80), a.addr.Of(f))
				want := a.addr.Of(f)
				if tulled || docker && e.filters(f) {
					want = a.Addr.Of(f)
				}
				if got, err := l.SourceOutside(t.Context(), entered, f); err != nil || got != want {
					t.Errorf("Docker masquerades: %t, tulled masquerades: %t: source outside the network is %s (%v), want %s", docker, tulled, got, err, want)
				}
				requireOwnName(t, entered, a.Host, b, f)
			}
		}
	}
	restartTulled(t, a.Host)
	setMasquerade(t, a.Machine, false)
}

// setMasquerade puts in what tulle docker configure would not. Docker reads it when it starts.
func setMasquerade(t *testing.T, m *dockertest.Machine, on bool) {
	t.Helper()
	text, err := os.ReadFile(m.File("/etc/docker/daemon.json"))
	if err != nil {
		t.Fatal(err)
	}
	setting := regexp.MustCompile(`("ip-masq": *)(true|false)`)
	if !setting.Match(text) {
		t.Fatalf("no ip-masq in %s", text)
	}
	writeDaemonJSON(t, m, setting.ReplaceAllString(string(text), fmt.Sprintf("${1}%t", on)))
}

func restartTulled(t *testing.T, host *lab.Host, args ...string) {
	t.Helper()
	if err := host.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := host.StartDaemon(args...); err != nil {
		t.Fatal(err)
	}
	if err := host.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// requireOwnName has a container of one host send to the tunnel of another, and to a container there with sources that are not
// its own. Its host drops all of it, and counts it.
func requireOwnName(t *testing.T, from *lab.Container, host *lab.Host, to *container, f ip.Family) {
	t.Helper()
	count := func() (c struct{ Injected, Spoofed int }) {
		_ = host.DeleteRoutesTo(to.Host, f) // so that tulled looks; it may not have put them back yet
		if err := host.Status(t.Context(), &c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	want := count() // what a tulled that has just started found
	requireRoutes(t, host, to.Host, f)
	victim, tunnel := netip.AddrPortFrom(to.addr.Of(f), 80), netip.AddrPortFrom(to.Addr.Of(f), 8472)
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	frame := netnstest.VXLAN(1, netnstest.Frame(mac, mac, netnstest.UDP(netip.AddrPortFrom(host.Addr.Of(f), 7), victim, nil)))
	netnstest.SendIP(t, from.Do, netnstest.UDP(netip.AddrPortFrom(from.Addr.Of(f), 40000), tunnel, frame))
	netnstest.SendIP(t, from.Do, netnstest.UDP(netip.AddrPortFrom(victim.Addr(), 7), victim, nil))
	want.Injected++
	want.Spoofed++
	deadline := time.Now().Add(healTimeout)
	got := count()
	for got != want && time.Now().Before(deadline) {
		got = count()
	}
	if got != want {
		t.Errorf("%s: dropped are %+v, want %+v", f, got, want)
	}
	requireRoutes(t, host, to.Host, f)
}

// requireRoutes waits until tulled has put the routes to a peer back: without them packets end on the host.
func requireRoutes(t *testing.T, host, peer *lab.Host, f ip.Family) {
	t.Helper()
	for deadline := time.Now().Add(labtest.Limit(healTimeout)); ; <-time.After(10 * time.Millisecond) {
		routes, err := host.RoutesTo(peer, f)
		if err != nil {
			t.Fatal(err)
		}
		if len(routes) > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %s routes from %s to %s", f, host, peer)
		}
	}
}
