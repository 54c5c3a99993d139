package fabric

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tulle/internal/probe"
	"tulle/internal/trouble"
	"tulle/ip"
)

// report is of a peer with a device, or one that is reached without.
func report(n int, f ip.Family, device bool, under, over probe.Verdict) probe.Report {
	p := probe.Peer{Lease: fmt.Sprintf("10.5.%d.0-24&fc00:5:0:%x::-64", n, n), Node: fmt.Sprintf("h%d", n), Family: f}
	host := ip.Dual[string]{V4: "172.30.0.2", V6: "fd30::2"}.Of(f)
	p.At[probe.Underlay], p.Size[probe.Underlay] = netip.AddrPortFrom(netip.MustParseAddr(host), 8473), 1500
	if device {
		p.At[probe.Fabric], p.Size[probe.Fabric] = netip.AddrPortFrom(netip.MustParseAddr(ip.Dual[string]{V4: "10.5.2.0", V6: "fc00:5:0:2::"}.Of(f)), 8473), 1450
	}
	return probe.Report{Peer: p, Ways: [2]probe.Verdict{under, over}}
}

func TestRouteMTUs(t *testing.T) {
	none, v4, v6 := map[netip.Prefix]int{}, netip.MustParsePrefix("10.5.2.0/24"), netip.MustParsePrefix("fc00:5:0:2::/64")
	well := probe.Verdict{State: probe.Well, Size: 1500}
	narrow := func(size int) probe.Verdict { return probe.Verdict{State: probe.Narrow, Size: size} }
	lost := probe.Verdict{State: probe.Unreachable, Size: 1300}
	stray := report(2, ip.IPv4, true, well, narrow(1300))
	stray.Peer.Lease = "none"
	for name, tt := range map[string]struct {
		report probe.Report
		want   map[netip.Prefix]int
	}{
		"well":                          {report(2, ip.IPv4, true, well, well), none},
		"narrow":                        {report(2, ip.IPv4, true, well, narrow(1300)), map[netip.Prefix]int{v4: 1300}},
		"narrow in IPv6":                {report(2, ip.IPv6, true, well, narrow(1300)), map[netip.Prefix]int{v6: 1300}},
		"less than an MTU may be":       {report(2, ip.IPv4, true, well, narrow(100)), map[netip.Prefix]int{v4: 576}},
		"less than IPv6 takes":          {report(2, ip.IPv6, true, well, narrow(1000)), map[netip.Prefix]int{v6: 1280}},
		"size not known":                {report(2, ip.IPv4, true, well, narrow(0)), none},
		"no less than the device takes": {report(2, ip.IPv4, true, well, narrow(1450)), none},
		"narrow under a tunnel alone":   {report(2, ip.IPv4, true, narrow(1300), well), none},
		"direct":                        {report(2, ip.IPv4, false, narrow(1400), probe.Verdict{}), map[netip.Prefix]int{v4: 1400}},
		"lost when it was narrow":       {report(2, ip.IPv4, true, well, lost), map[netip.Prefix]int{v4: 1300}},
		"not asked again yet":           {report(2, ip.IPv4, true, well, probe.Verdict{Size: 1300}), map[netip.Prefix]int{v4: 1300}},
		"lost when it was well":         {report(2, ip.IPv4, true, lost, probe.Verdict{State: probe.Unreachable, Size: 1450}), none},
		"no lease":                      {stray, none},
	} {
		if diff := cmp.Diff(tt.want, RouteMTUs([]probe.Report{tt.report}), cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// What is told of a peer says what does not arrive, and where to look.
func TestProbeTroubles(t *testing.T) {
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	well, lost := probe.Verdict{State: probe.Well}, probe.Verdict{State: probe.Unreachable, Since: since}
	narrow := probe.Verdict{State: probe.Narrow, Size: 1300, Since: since}
	refused := lost
	refused.Reason = "operation not permitted"
	networks := []*Probing{{network: "red", prefixes: []netip.Prefix{netip.MustParsePrefix("10.6.0.0/16")}}, {
		prefixes: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("fc00:5::/48")}, carriers: ip.Dual[string]{V4: "UDP port 8472", V6: "IP protocol 4"},
	}}
	const head, from = "node h2, 10.5.2.0-24&fc00:5:0:2::-64: ", " since 2026-01-02T03:04:05Z"
	const off = "the host or its tulled is off, the network between is cut, or its UDP port 8473 is filtered"
	for name, tt := range map[string]struct {
		bad  probe.Bad
		want map[trouble.Code][]string
	}{
		"all is well": {probe.Bad{}, nil},
		"the tunnel is filtered": {probe.Bad{Reports: []probe.Report{report(2, ip.IPv4, true, well, lost)}}, map[trouble.Code][]string{
			trouble.PeerUnreachable: {head + "10.5.2.0 does not answer over the fabric" + from + ", and 172.30.0.2 does over the underlay: UDP port 8472 is dropped between the hosts: check the filters at both ends"},
		}},
		"both families, one trouble": {probe.Bad{Reports: []probe.Report{report(2, ip.IPv4, true, lost, lost), report(2, ip.IPv6, true, well, lost)}}, map[trouble.Code][]string{
			trouble.PeerUnreachable: {head + "neither 172.30.0.2 nor, over the fabric, 10.5.2.0 answers" + from + ": " + off +
				"; fc00:5:0:2:: does not answer over the fabric" + from + ", and fd30::2 does over the underlay: IP protocol 4 is dropped between the hosts: check the filters at both ends"},
		}},
		"the underlay alone": {probe.Bad{Reports: []probe.Report{report(2, ip.IPv4, true, refused, well)}}, map[trouble.Code][]string{
			trouble.PeerUnreachable: {head + "172.30.0.2 does not answer" + from + " (operation not permitted), and 10.5.2.0 does over the fabric: its UDP port 8473 is filtered, and packets of containers arrive"},
		}},
		"direct": {probe.Bad{Reports: []probe.Report{report(2, ip.IPv4, false, lost, probe.Verdict{})}}, map[trouble.Code][]string{
			trouble.PeerUnreachable: {head + "172.30.0.2 does not answer" + from + ": " + off},
		}},
		"narrow": {probe.Bad{Reports: []probe.Report{report(2, ip.IPv4, true, well, narrow)}}, map[trouble.Code][]string{
			trouble.PeerNarrow: {head + "packets of 1300 bytes arrive and larger ones do not over the fabric at 10.5.2.0" + from + ", of 1450 that should; the route to 10.5.2.0/24 names an MTU of 1300 meanwhile"},
		}},
		"narrow below, lost above": {probe.Bad{Reports: []probe.Report{report(2, ip.IPv4, true, narrow, lost)}}, map[trouble.Code][]string{
			trouble.PeerUnreachable: {head + "10.5.2.0 does not answer over the fabric" + from + ", and 172.30.0.2 does over the underlay: UDP port 8472 is dropped between the hosts: check the filters at both ends"},
			trouble.PeerNarrow:      {head + "packets of 1300 bytes arrive and larger ones do not over the underlay at 172.30.0.2" + from + ", of 1500 that should"},
		}},
		"nobody answers": {probe.Bad{Blocked: errors.New("nobody answers"), Silent: true, Reports: []probe.Report{report(2, ip.IPv4, true, lost, lost), report(3, ip.IPv4, true, lost, lost)}}, map[trouble.Code][]string{
			trouble.ProbeBlocked: {"nobody answers"},
		}},
		"one socket cannot be opened": {probe.Bad{Blocked: errors.New("open ipv6 socket"), Reports: []probe.Report{report(2, ip.IPv4, true, lost, lost), report(2, ip.IPv6, true, lost, lost)}}, map[trouble.Code][]string{
			trouble.ProbeBlocked: {"open ipv6 socket"},
			trouble.PeerUnreachable: {head + "neither 172.30.0.2 nor, over the fabric, 10.5.2.0 answers" + from + ": " + off +
				"; neither fd30::2 nor, over the fabric, fc00:5:0:2:: answers" + from + ": " + off},
		}},
		"two peers, and a socket cannot be opened": {probe.Bad{Blocked: errors.New("open ipv6 socket"), Reports: []probe.Report{report(2, ip.IPv4, true, well, lost), report(3, ip.IPv4, true, well, well)}}, map[trouble.Code][]string{
			trouble.ProbeBlocked:    {"open ipv6 socket"},
			trouble.PeerUnreachable: {head + "10.5.2.0 does not answer over the fabric" + from + ", and 172.30.0.2 does over the underlay: UDP port 8472 is dropped between the hosts: check the filters at both ends"},
		}},
		"the only peer does not answer": {probe.Bad{Blocked: errors.New("nobody answers"), Silent: true, Reports: []probe.Report{report(2, ip.IPv4, false, lost, probe.Verdict{})}}, map[trouble.Code][]string{
			trouble.ProbeBlocked: {"nobody answers"}, trouble.PeerUnreachable: {head + "172.30.0.2 does not answer" + from + ": " + off},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			list, got := ProbeTroubles(networks, tt.bad), map[trouble.Code][]string(nil)
			for _, tr := range list.All {
				if got == nil {
					got = map[trouble.Code][]string{}
				}
				got[tr.Code] = append(got[tr.Code], tr.Text)
				if tr.Severity != trouble.Warning || tr.Code != trouble.ProbeBlocked && tr.Subject != "10.5.2.0-24&fc00:5:0:2::-64" {
					t.Errorf("%+v", tr)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// However many peers are lost, twenty are named, and all are counted.
func TestProbeTroublesAreBounded(t *testing.T) {
	bad := probe.Bad{More: 9000}
	for n := range 200 {
		under := probe.Verdict{State: probe.Unreachable}
		if n >= 150 {
			under = probe.Verdict{State: probe.Narrow}
		}
		bad.Reports = append(bad.Reports, report(n, ip.IPv4, false, under, probe.Verdict{}), report(n, ip.IPv6, false, under, probe.Verdict{}))
	}
	list := ProbeTroubles(nil, bad)
	if lost, narrow := list.Count[trouble.PeerUnreachable], list.Count[trouble.PeerNarrow]; lost != 9150 || narrow != 50 || len(list.All) != 2*mostBad {
		t.Errorf("%d lost, %d narrow, %d named", lost, narrow, len(list.All))
	}
	if words := len(strings.Fields(list.All[0].Text)); words < 10 {
		t.Errorf("%q", list.All[0].Text)
	}
}
