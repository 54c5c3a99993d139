package main

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"

	"tulle/ip"
)

func TestPrintFlows(t *testing.T) {
	flows := []ip.FastFlow{
		{Protocol: 17, Src: netip.MustParseAddrPort("10.5.1.3:9"), Dst: netip.MustParseAddrPort("10.5.3.2:53"), Link: "eth0", Packets: 1, Bytes: 90},
		{Protocol: 6, Src: netip.MustParseAddrPort("10.5.1.2:40000"), Dst: netip.MustParseAddrPort("10.5.2.2:80"), Peer: netip.MustParseAddr("172.30.0.2"), Link: "flannel.1", Packets: 3, Bytes: 4000, Age: 340 * time.Millisecond},
		{In: true, Protocol: 6, Src: netip.MustParseAddrPort("10.5.2.2:80"), Dst: netip.MustParseAddrPort("10.5.1.2:40000"), Peer: netip.MustParseAddr("172.30.0.2"), Link: "veth1\x1b", Packets: 5, Bytes: 300},
	}
	slices.SortFunc(flows, compareFlows)
	var out bytes.Buffer
	if err := printFlows(&out, flows); err != nil {
		t.Fatal(err)
	}
	if want := `WAY  PROTOCOL  FROM            TO              PEER        LINK         PACKETS  BYTES  AGE
out  tcp       10.5.1.2:40000  10.5.2.2:80     172.30.0.2  flannel.1    3        4000   340ms
in   tcp       10.5.2.2:80     10.5.1.2:40000  172.30.0.2  "veth1\x1b"  5        300    0s
out  udp       10.5.1.3:9      10.5.3.2:53     -           eth0         1        90     0s
`; out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
	out.Reset()
	if err := printFastPeers(&out, sumFlows(flows, map[netip.Addr]string{netip.MustParseAddr("172.30.0.2"): "h2"})); err != nil {
		t.Fatal(err)
	}
	if want := `PEER  HOST        FLOWS  PACKETS OUT  BYTES OUT  PACKETS IN  BYTES IN
h2    172.30.0.2  2      3            4000       5           300
-     -           1      1            90         0           0
`; out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
}
