package kernel_test

import (
	"net"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"tulle/ip"
)

// Who stands where the VXLAN device belongs is named: a device with the VNI on the port, or whatever program has the port.
func TestOccupiedPortIsNamed(t *testing.T) {
	for name, tt := range map[string]struct {
		occupy func(t *testing.T, w world)
		want   string
	}{
		"by a device": {func(t *testing.T, w world) {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "vxlan.calico"
			must(t, w.netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, VxlanId: 1, Port: 8472}))
		}, "the device vxlan.calico has VNI 1 on UDP port 8472: stop what made it and run ip link del vxlan.calico"},
		"by a program": {func(t *testing.T, w world) {
			must(t, w.ns.Do(func() error {
				conn, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 8472})
				if err == nil {
					t.Cleanup(func() { conn.Close() })
				}
				return err
			}))
		}, "UDP port 8472 is taken by a program, which ss -ulnp sport = :8472 names"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tt.occupy(t, w)
			err := w.Kernel.Apply(t.Context(), ip.Diff(ip.State{}, ip.State{Links: hostState().Links}))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("apply says %v, want %q in it", err, tt.want)
			}
		})
	}
}
