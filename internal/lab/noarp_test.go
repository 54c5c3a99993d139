//go:build linux

package lab_test

import (
	"strings"
	"testing"

	"tulle/internal/lab"
)

// Plain routes over an uplink that resolves no addresses lead nowhere: peers are named as not served.
func TestUplinkWithoutARP(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 2, Containers: 1, Backend: map[string]any{"Type": "host-gw"}})
	requireMatrix(t, l)
	host := l.Hosts[0]
	status := func() string {
		_, text := host.Ready(t.Context())
		return text + tulle(t, l, host, "status")
	}
	run(t, host, "", "ip", "link", "set", "dev", "eth0", "arp", "off")
	if !eventually(healTimeout, func() bool { return strings.Contains(status(), "over eth0, which resolves no addresses") }) {
		t.Errorf("status does not tell of it:\n%s", status())
	}
	run(t, host, "", "ip", "link", "set", "dev", "eth0", "arp", "on")
	if !eventually(healTimeout, func() bool {
		ready, _ := host.Ready(t.Context())
		return ready && !strings.Contains(status(), "resolves no")
	}) {
		t.Errorf("not as before:\n%s", status())
	}
	requireMatrix(t, l)
}
