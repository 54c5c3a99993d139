package alloc

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"tulle/backend"
	"tulle/ip"
	"tulle/subnet"
)

func TestLeasesAndNothingElse(t *testing.T) {
	b, warnings, err := New(subnet.Network{Backend: subnet.Backend{Type: Name, Options: json.RawMessage(`{"Type":"alloc","VNI":7}`)}})
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "VNI") {
		t.Errorf("doubts %q, error %v, want one about VNI", warnings, err)
	}
	h := backend.Host{Uplink: ip.Uplink{Link: "eth0", MTU: 9000}}
	h.Uplink.Public.V4 = netip.MustParseAddr("203.0.113.1") // of a NAT
	attrs, err := b.Advertise(h, subnet.Attrs{BackendType: "vxlan"})
	if err != nil || attrs.Public != h.Uplink.Public || attrs.BackendType != "" {
		t.Errorf("advertises %+v, error %v", attrs, err)
	}
	if mtu, err := b.MTU(h.Uplink); err != nil || mtu != 9000 {
		t.Errorf("MTU %d, error %v", mtu, err)
	}
	peer := &subnet.Lease{Attrs: attrs}
	peer.Subnets.V4 = netip.MustParsePrefix("10.5.2.0/24")
	if s, problems := b.Plan(h, subnet.Lease{}, []*subnet.Lease{peer}); s.String() != "" || len(problems) > 0 {
		t.Errorf("wants %s, problems %v", s, problems)
	}
	if s := b.Scope([]*subnet.Lease{peer}); len(s.Links)+len(s.Networks)+len(s.Sysctls)+len(s.Paths) > 0 {
		t.Errorf("owns %+v", s)
	}
}
