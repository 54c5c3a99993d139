package ip

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// Settings of a host's links come before those of the host, which change what they mean, and those of Tulle's links once there are these.
func TestOrderOfSettings(t *testing.T) {
	learns := LinkSetting(IPv6, "eth0", "accept_ra", "2")
	forwards := ForwardingSetting(IPv6)
	own := LinkSetting(IPv6, "flannel-v6.1", "disable_ipv6", "0")
	link := Link{Name: "flannel-v6.1", MTU: 1450, Up: true}
	want := State{Sysctls: []Sysctl{forwards, learns, own}, Links: []Link{link}}
	var got []Object
	for _, op := range Diff(State{}, want) {
		got = append(got, op.New)
	}
	down := link
	down.Up = false
	if diff := cmp.Diff([]Object{learns, forwards, down, own, link}, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
}

func TestSettingsInScope(t *testing.T) {
	scope := Scope{Links: []string{"flannel.1"}, Sysctls: []Sysctl{
		LinkSetting(IPv4, EachLink, "forwarding", "1"), LinkSetting(IPv4, "flannel.1", "forwarding", "0"),
	}}
	var got []string
	for _, s := range scope.Settings([]Interface{
		{Name: "lo", Loopback: true, Addrs: addresses("192.0.2.1/32")},
		{Name: "eth0", Addrs: addresses("172.30.0.1/24")},
		{Name: "veth1", Addrs: addresses("fe80::1/64")},
		{Name: "flannel.1"},
	}) {
		got = append(got, s.Key+" "+s.Link+" "+s.Value)
		if !scope.Holds(s) {
			t.Errorf("%s is read and not in scope", s.Key)
		}
	}
	if diff := cmp.Diff([]string{"net/ipv4/conf/flannel.1/forwarding flannel.1 0", "net/ipv4/conf/eth0/forwarding eth0 1"}, got); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
	if other := LinkSetting(IPv4, "eth0", "rp_filter", "0"); scope.Holds(other) {
		t.Errorf("%s is in scope", other.Key)
	}
}
