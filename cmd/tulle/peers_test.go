package main

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/internal/agent"
	"tulle/internal/fabric"
)

func TestPrintPeers(t *testing.T) {
	peer := func(node, subnet, via string, vs ...agent.Verdict) agent.PeerReport {
		return agent.PeerReport{PeerStatus: fabric.PeerStatus{Node: node, Subnets: []netip.Prefix{netip.MustParsePrefix(subnet)}, Via: via}, Verdicts: vs}
	}
	verdict := func(way, state string, size, full int) agent.Verdict {
		return agent.Verdict{Family: "ipv4", Way: way, State: state, Since: time.Unix(60, 0), P50: 314159, P99: 27182818, Asked: 100, Lost: 1, Size: size, Full: full}
	}
	silent := agent.Verdict{Way: "underlay", State: "unknown", Full: 1500}
	all := agent.PeerReports{Asked: true, Peers: []agent.PeerReport{
		peer("h2", "10.5.2.0/24", "vxlan", verdict("underlay", "well", 1500, 1500), verdict("fabric", "well", 1450, 1450)),
		peer("h3", "10.5.3.0/24", "vxlan", verdict("underlay", "well", 1500, 1500), verdict("fabric", "narrow", 1300, 1450)),
		peer("h4", "10.5.4.0/24", "direct", verdict("underlay", "unreachable", 1500, 1500)),
		peer("h5", "10.5.5.0/24", "direct", silent),
		peer("", "10.5.6.0/24", "vxlan"),
	}}
	var out bytes.Buffer
	if err := printPeerReports(&out, all); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`NODE  SUBNET       VIA     STATE            RTT p50/p99   LOSS  SIZE          SINCE
h2    10.5.2.0/24  vxlan   well             314µs/27.2ms  1.0%  1450          1970-01-01T00:01:00Z
h3    10.5.3.0/24  vxlan   narrow (fabric)  314µs/27.2ms  1.0%  1300 of 1450  1970-01-01T00:01:00Z
h4    10.5.4.0/24  direct  unreachable      314µs/27.2ms  1.0%  -             1970-01-01T00:01:00Z
h5    10.5.5.0/24  direct  unknown          -             -     -             -
-     10.5.6.0/24  vxlan   not asked        -             -     -             -
`, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	out.Reset()
	if err := printPeerReports(&out, agent.PeerReports{Peers: all.Peers[4:]}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`NODE  SUBNET       VIA    STATE      RTT p50/p99  LOSS  SIZE  SINCE
-     10.5.6.0/24  vxlan  not asked  -            -     -     -

tulled asks no peers whether packets arrive: start it with --probe=on, on all hosts
`, out.String()); diff != "" {
		t.Errorf("off (-want +got):\n%s", diff)
	}
}

func TestPrintPing(t *testing.T) {
	at := netip.MustParseAddrPort
	p := agent.Pinged{Node: "h2", Lease: "10.5.2.0-24", Answers: []agent.PingAnswer{
		{Family: "ipv4", Way: "underlay", Address: at("172.30.0.2:8473"), Asked: 3, RTTs: []time.Duration{3e6, 1e6, 2e6}, Size: 1500, Full: 1500},
		{Family: "ipv4", Way: "fabric", Address: at("10.5.2.0:8473"), Asked: 3, RTTs: []time.Duration{1e6}, Size: 1300, Full: 1450},
		{Family: "ipv6", Way: "fabric", Address: at("[fc00:5:0:2::]:8473"), Full: 1430, Reason: "network is unreachable\x1b"},
	}}
	var out bytes.Buffer
	if err := printPing(&out, p); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`h2, 10.5.2.0-24
WAY            ADDRESS       ANSWERED  RTT min/p50/max  SIZE          
ipv4 underlay  172.30.0.2    3 of 3    1ms/2ms/3ms      1500 of 1500  
ipv4 fabric    10.5.2.0      1 of 3    1ms/1ms/1ms      1300 of 1450  
ipv6 fabric    fc00:5:0:2::  0 of 0    -                0 of 1430     "network is unreachable\x1b"
`, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	narrow, lossy := p.Answers[0], p.Answers[0]
	narrow.Size, lossy.Asked = 1400, 4
	for i, a := range append(p.Answers, narrow, lossy) {
		if got := falls(a); got != (i > 0) {
			t.Errorf("%+v: something does not arrive is %t", a, got)
		}
	}
}

func TestProbesLine(t *testing.T) {
	for want, st := range map[string]agent.ProbeStatus{
		"probes   over the fabric 8 of 10 well, 1 narrow, 1 unreachable; over the underlay 10 of 10 well": {Fabric: agent.ProbeCounts{Well: 8, Narrow: 1, Unreachable: 1}, Underlay: agent.ProbeCounts{Well: 10}},
		"probes   over the underlay 1 of 3 well, 2 not known yet":                                         {Underlay: agent.ProbeCounts{Well: 1, Unknown: 2}},
		"probes   no peer says where it is asked":                                                         {},
		"probes   over the fabric 0 of 1 well, 1 unreachable; UDP port 8473 is in use":                    {Blocked: "UDP port 8473 is in use", Fabric: agent.ProbeCounts{Unreachable: 1}},
		"probes   UDP port 8473 is in use":                                                                {Blocked: "UDP port 8473 is in use"},
	} {
		if got := probesLine(st); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
