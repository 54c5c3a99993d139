//go:build linux

package cniplugin_test

import (
	"net/netip"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

// While another bridge has the gateway's address, containers are refused with what takes it from there, and nothing is left of them.
func TestAnotherBridgeHasTheGateway(t *testing.T) {
	h := newDualHost(t)
	for name, addr := range map[string]string{"docker0": "10.50.7.1/24", "br-6": "fc00:50:0:5d::1/64"} {
		c := newContainer(t, "c")
		h.ip(t, "link", "add", name, "type", "bridge")
		h.ip(t, "address", "add", addr, "dev", name)
		reason := "bridge " + name + " has " + netip.MustParsePrefix(addr).Addr().String()
		h.refuses(t, c, "ADD", h.conf(nil), 101, reason)
		h.refuses(t, c, "STATUS", h.conf(nil), types.ErrPluginNotAvailable, reason)
		wantOnlyLoopback(t, c)
		h.wantNothingLeft(t)
		h.ip(t, "link", "del", name)
		h.must(t, c, "eth0", "STATUS", h.conf(nil))
		h.add(t, c, "eth0", h.conf(nil))
		h.must(t, c, "eth0", "DEL", h.conf(nil))
	}
}
