//go:build linux

package dockertest_test

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"testing"

	"tulle/internal/docker/dockertest"
	"tulle/internal/lab"
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
