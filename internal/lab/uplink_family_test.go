//go:build linux

package lab_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"tulle/internal/lab"
	"tulle/internal/trouble"
	"tulle/ip"
)

// An uplink that loses the address of one family serves the other: what is deleted is mended, and a new peer is reached. The host says which family
// is lacking, and is ready again when its address is back.
func TestUplinkLosesOneFamily(t *testing.T) {
	for _, lost := range ip.Families() {
		t.Run(lost.String(), func(t *testing.T) {
			l := newLab(t, lab.Config{Hosts: 3, Containers: 1, FindUplink: true})
			begin(t, l)
			host, peer, late := l.Hosts[0], l.Hosts[1], l.Hosts[2]
			startTulled(t, host)
			startTulled(t, peer)
			kept := ip.IPv4
			if lost == ip.IPv4 {
				kept = ip.IPv6
			}
			if !eventually(healTimeout, func() bool { routes, err := host.RoutesTo(peer, kept); return err == nil && len(routes) > 0 }) {
				t.Fatalf("%s has no route to %s", host, peer)
			}
			before := uplinkAddress(t, host, lost)
			run(t, host, "", "ip", strings.Fields(fmt.Sprintf("address del %s dev eth0", before))...)
			var st uplinkStatus
			if !eventually(healTimeout, func() bool {
				st = uplinkStatus{}
				return host.Status(t.Context(), &st) == nil && !st.Ready && st.Troubles.Has(trouble.UplinkMissing)
			}) {
				t.Errorf("not told: ready %t, %+v", st.Ready, st.Troubles)
			}
			if err := host.DeleteRoutesTo(peer, kept); err != nil {
				t.Fatal(err)
			}
			startTulled(t, late)
			requireFamily(t, l, kept)

			run(t, host, "", "ip", strings.Fields(fmt.Sprintf("address add %s dev eth0", before))...)
			if !eventually(healTimeout, func() bool { ready, _ := host.Ready(t.Context()); return ready }) {
				_, text := host.Ready(t.Context())
				t.Errorf("not ready with its address: %s", text)
			}
			requireMatrix(t, l)
		})
	}
}

// uplinkAddress returns the address of a family on the uplink of a host, with its length.
func uplinkAddress(t *testing.T, host *lab.Host, f ip.Family) netip.Prefix {
	t.Helper()
	for field := range strings.FieldsSeq(run(t, host, "", "ip", "-o", "address", "show", "dev", "eth0", "scope", "global")) {
		if p, err := netip.ParsePrefix(field); err == nil && p.Addr() == host.Addr.Of(f) {
			return p
		}
	}
	t.Fatalf("no %s address on eth0", f)
	return netip.Prefix{}
}

// requireFamily fails the test unless all containers reach each other in a family.
func requireFamily(t *testing.T, l *lab.Lab, f ip.Family) {
	t.Helper()
	matrix, err := l.Matrix(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, pair := range matrix.Pairs {
		if pair.Family == f.String() && !pair.OK {
			t.Errorf("%s does not reach %s: %s", pair.From, pair.To, pair.Reason)
		}
	}
}

// A host whose only address is deprecated before tulled starts, or while it runs, goes on with it: a link-local one reaches nobody.
func TestUplinkAddressDeprecated(t *testing.T) {
	l := newLab(t, lab.Config{Hosts: 2, Containers: 1, Families: []ip.Family{ip.IPv6}, FindUplink: true})
	begin(t, l)
	deprecate := func(host *lab.Host) {
		run(t, host, "", "ip", strings.Fields(fmt.Sprintf("address change %s dev eth0 preferred_lft 0", uplinkAddress(t, host, ip.IPv6)))...)
	}
	before, after := l.Hosts[0], l.Hosts[1]
	deprecate(before)
	startTulled(t, before)
	startTulled(t, after)
	deprecate(after)
	rest(t, after)
	for _, host := range l.Hosts {
		var st uplinkStatus
		if err := host.Status(t.Context(), &st); err != nil || !st.Ready || !slices.Equal(st.Uplink.Public, []string{host.Addr.V6.String()}) {
			t.Errorf("%s: %v, ready %t, public %v, want %s", host, err, st.Ready, st.Uplink.Public, host.Addr.V6)
		}
	}
	requireMatrix(t, l)
}
