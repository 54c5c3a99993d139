package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"tulle/internal/agent"
	"tulle/internal/fabric"
	"tulle/internal/trouble"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

func TestPrintStatus(t *testing.T) {
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	full := agent.Status{
		Ready: true, Node: "h1",
		Networks: []fabric.Status{{
			MTU:     1430,
			Network: &fabric.NetworkStatus{Prefixes: []netip.Prefix{prefix("10.5.0.0/16"), prefix("fc00:5::/48")}, Backend: "vxlan", Revision: 7},
			Lease:   &fabric.LeaseStatus{Subnets: []netip.Prefix{prefix("10.5.1.0/24"), prefix("fc00:5:0:1::/64")}, Reserved: true},
			Peers: []fabric.PeerStatus{
				{Node: "h2", Subnets: []netip.Prefix{prefix("10.5.2.0/24"), prefix("fc00:5:0:2::/64")}, Public: []netip.Addr{addr("172.30.0.2"), addr("fd30::2")}, Via: "mixed"},
				{Subnets: []netip.Prefix{prefix("10.5.30.0/24")}, Public: []netip.Addr{addr("172.30.0.30")}, Via: "vxlan"},
			},
			Ready: true, FullOnly: &fabric.FullOnly{Text: "2 routes of others lead into the network", Since: time.Unix(0, 0)},
		}},
		Time:    time.Unix(60, 0),
		Uplink:  &agent.UplinkStatus{Link: "eth0", MTU: 1400, Route: prefix("0.0.0.0/0"), Addr: []netip.Addr{addr("172.30.0.1")}, Public: []netip.Addr{addr("203.0.113.1")}},
		Dropped: agent.Dropped{Strangers: 12, Forged: 3, Injected: 4, Spoofed: 5},
	}
	full.Troubles.Add(
		trouble.New(trouble.StoreUnreachable, "", "etcd at http://127.0.0.1:2379 does not answer"),
		trouble.New(trouble.ConfigPending, "/coreos.com/network/config", "the configuration at revision 9 differs from the one in force: restart tulled to take it over"),
		trouble.New(trouble.KeyUnreadable, "/coreos.com/network/subnets/README", "not a subnet"),
		trouble.New(trouble.Fault, "whole paths", "whole paths: the route to 10.5.2.0/24 lacks the neighbour 10.5.2.0 on flannel.1"),
	)
	for range 25 {
		full.Troubles.Add(trouble.New(trouble.PeerRefused, "k", "x"))
	}
	brief := agent.Status{Ready: true, Node: "h1", Networks: slices.Clone(full.Networks), Time: time.Unix(59, 0)}
	brief.Networks[0].Network, brief.Networks[0].Lease, brief.Networks[0].Peers = nil, nil, nil
	for _, tt := range []struct {
		name   string
		status agent.Status
		want   string
	}{
		{"all there is to say", full, `h1 is ready
network  10.5.0.0/16,fc00:5::/48 over vxlan, configuration at revision 7
subnet   10.5.1.0/24,fc00:5:0:1::/64, reserved, MTU 1430 for containers
passes   every change takes a full one, since 1970-01-01T00:00:00Z: 2 routes of others lead into the network
uplink   eth0, MTU 1400 of its route to 0.0.0.0/0, 172.30.0.1, peers send to 203.0.113.1
dropped  12 packets from strangers: no peer has the address that they came from
dropped  3 packets from peers: the source inside is not in the sender's subnet
dropped  4 packets made by containers for tunnels of hosts
dropped  5 packets of containers: their source is not in this host's subnet
warning  store.unreachable  etcd at http://127.0.0.1:2379 does not answer
warning  config.pending  /coreos.com/network/config: the configuration at revision 9 differs from the one in force: restart tulled to take it over
warning  store.key-unreadable  /coreos.com/network/subnets/README: not a subnet
warning  fault  whole paths: the route to 10.5.2.0/24 lacks the neighbour 10.5.2.0 on flannel.1
` + strings.Repeat("warning  peer.refused  k: x\n", 20) + `warning  peer.refused  and 5 more

PEER  SUBNET                       PUBLIC              VIA
h2    10.5.2.0/24,fc00:5:0:2::/64  172.30.0.2,fd30::2  mixed
-     10.5.30.0/24                 172.30.0.30         vxlan
`},
		{"full passes for less than a minute", brief, "h1 is ready\n"},
		{"just started", agent.Status{Node: "h1", Reason: "starting"}, "h1 is not ready: starting\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			if err := printStatus(&out, tt.status); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, out.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// aSet has a good lease, a reserved one without node id, and one that no host uses.
func aSet(t *testing.T) subnet.Set {
	t.Helper()
	network, _, err := flannel.ParseNetwork([]byte(`{"Network":"10.5.0.0/16"}`), 1)
	if err != nil {
		t.Fatal(err)
	}
	set := subnet.Set{Network: &network, Problems: []subnet.Problem{{Key: "/p/subnets/README", Reason: "not a subnet"}}}
	for i, text := range []string{"10.5.1.0/24", "10.5.2.0/24", "10.9.0.0/24"} {
		l := &subnet.Lease{Created: subnet.Revision(i + 1), Reserved: i == 1}
		l.Subnets.V4 = netip.MustParsePrefix(text)
		if l.Attrs.BackendType = "vxlan"; i != 1 {
			l.Attrs.Node = "h" + text[3:4]
		}
		l.Attrs.Public.V4 = netip.AddrFrom4([4]byte{172, 30, 0, byte(i + 1)})
		set.Leases = append(set.Leases, l)
	}
	return set
}

func TestPrintLeases(t *testing.T) {
	var out bytes.Buffer
	cmd := &cobra.Command{}
	cmd.SetOut(&out)
	if err := printLeases(cmd, aSet(t), false); err != nil {
		t.Fatal(err)
	}
	want := `SUBNET       NODE  PUBLIC      BACKEND  STATE
10.5.1.0-24  h5    172.30.0.1  vxlan    leased
10.5.2.0-24  -     172.30.0.2  vxlan    reserved
10.9.0.0-24  h9    172.30.0.3  vxlan    refused: 10.9.0.0/24 is not inside the network 10.5.0.0/16
left out: /p/subnets/README: not a subnet
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	out.Reset()
	if err := printLeases(cmd, subnet.Set{}, true); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || got["leases"] == nil || got["problems"] == nil {
		t.Errorf("an empty store in JSON: %s (%v), want two empty lists", &out, err)
	}
}

// A hundred thousand keys that make no sense do not hide the leases: the first twenty are listed, and all are counted.
func TestPrintLeasesAmongJunk(t *testing.T) {
	set := aSet(t)
	set.Problems, set.Unlisted = subnet.ListBroken(func(yield func(key, reason string) bool) {
		for i := range 100_000 {
			yield(fmt.Sprintf("/p/subnets/junk-%06d", (i+50_000)%100_000), "not a subnet")
		}
	})
	for _, asJSON := range []bool{false, true} {
		var out bytes.Buffer
		cmd := &cobra.Command{}
		cmd.SetOut(&out)
		if err := printLeases(cmd, set, asJSON); err != nil {
			t.Fatal(err)
		}
		count := "left out: 99980 more\n"
		if asJSON {
			count = `"problemCount": 100000`
		}
		if text := out.String(); strings.Count(text, "/p/subnets/junk-0000") != 20 || strings.Contains(text, "junk-000020") || !strings.Contains(text, count) || strings.Index(text, "10.9.0.0-24") > strings.Index(text, "junk") {
			t.Errorf("JSON %t: %d bytes with %d keys, want the leases, then 20 keys and %q", asJSON, len(text), strings.Count(text, "/p/subnets/junk-"), count)
		}
	}
}

func TestParseSubnets(t *testing.T) {
	for arg, want := range map[string]string{
		"10.5.34.0/24":                 "10.5.34.0-24",
		"10.5.34.0-24":                 "10.5.34.0-24",
		"10.5.34.0/24,fc00:5:0:1::/64": "10.5.34.0-24&fc00:5:0:1::-64",
		"fc00:5:0:1::/64,10.5.34.0/24": "10.5.34.0-24&fc00:5:0:1::-64",
		"10.5.34.0-24&fc00:5:0:1::-64": "10.5.34.0-24&fc00:5:0:1::-64",
	} {
		if got, err := parseSubnets(arg); err != nil || subnet.KeyOf(got) != want {
			t.Errorf("%s: %s, %v, want %s", arg, subnet.KeyOf(got), err, want)
		}
	}
	for arg, want := range map[string]string{
		"":                          "ADDRESS/LENGTH",
		"10.5.34.0":                 "ADDRESS/LENGTH",
		"10.5.34.1/24":              "no bits set after the length",
		"10.5.34.0/24,":             "ADDRESS/LENGTH",
		"10.5.34.0/24,10.5.35.0/24": "one of each family",
	} {
		if got, err := parseSubnets(arg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v, want an error with %q", arg, got, err, want)
		}
	}
}

func TestConfigCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "net-conf.json")
	if err := os.WriteFile(file, []byte(`{"Network":"10.5.0.0/16"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		arg          string
		code         int
		out, errText string
	}{
		{`{"Network":"10.5.0.0/16"}`, exitOK, "valid\n", ""},
		{"@" + file, exitOK, "valid\n", ""},
		{`{"Network":"10.5.0.0/16","SubnetLne":24}`, exitOK, "valid\n", "SubnetLen"},
		{`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":"x"}}`, exitFailed, "", "Backend.VNI"},
		{`{"Network":"10.5.0.0/16","Backend":{"Type":"udp"}}`, exitFailed, "", "alloc, host-gw, ipip, vxlan"},
		{`{}`, exitFailed, "", "Network is missing"},
		{"", exitFailed, "", "network configuration"},
		{"@/nonexistent", exitFailed, "", "/nonexistent"},
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), []string{"config", "check", tt.arg}, &out, &errs); code != tt.code || out.String() != tt.out || !strings.Contains(errs.String(), tt.errText) {
			t.Errorf("%s: exit code %d, output %q, errors %q", tt.arg, code, &out, &errs)
		}
	}
}
