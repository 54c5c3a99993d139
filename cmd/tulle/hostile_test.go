package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"tulle/internal/agent"
	"tulle/internal/fabric"
	"tulle/internal/trouble"
	"tulle/subnet"
)

// What others wrote moves no cursor, begins no line, turns no text, and makes no column wide.
func TestHostileNamesArePrintedQuoted(t *testing.T) {
	const evil = "h\x1b[2J\n\u202e\x00"
	const quoted = `"h\x1b[2J; \u202e\x00"` // of a message, whose lines are joined
	const quotedName = `"h\x1b[2J\n\u202e\x00"`
	long := strings.Repeat("x", 30000)
	prefix := netip.MustParsePrefix("10.5.2.0/24")
	var out bytes.Buffer
	var troubles trouble.List
	troubles.Add(trouble.New(trouble.OutsideBlocked, "", evil), trouble.New(trouble.PeerRefused, evil, "x"), trouble.New(trouble.PeerRefused, long, "y"))
	err := printStatus(&out, agent.Status{
		Node: "h1", Reason: evil, Troubles: troubles,
		Networks: []fabric.Status{{Peers: []fabric.PeerStatus{
			{Node: evil, Subnets: []netip.Prefix{prefix}, Via: "vxlan"}, {Node: long, Subnets: []netip.Prefix{prefix}, Via: "vxlan"},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	cell := `"` + strings.Repeat("x", 123) + `..."`
	line := `"` + strings.Repeat("x", 1019) + `..."`
	pad := func(s string, width int) string { return s + strings.Repeat(" ", width-len(s)) }
	want := "h1 is \"not ready: " + quoted[1:] + "\nwarning  outside.blocked  " + quoted + "\nwarning  peer.refused  " + quotedName + ": x\nwarning  peer.refused  " + line + ": y\n\n" +
		pad("PEER", 130) + "SUBNET       PUBLIC  VIA\n" +
		pad(`"h\x1b[2J\n\u202e\x00"`, 130) + "10.5.2.0/24          vxlan\n" +
		pad(cell, 130) + "10.5.2.0/24          vxlan\n"
	if got := out.String(); got != want {
		t.Errorf("status is\n%q, want\n%q", got, want)
	}

	out.Reset()
	cmd := &cobra.Command{}
	cmd.SetOut(&out)
	lease := &subnet.Lease{Attrs: subnet.Attrs{Node: evil, BackendType: long}}
	lease.Subnets.V4 = prefix
	if err := printLeases(cmd, subnet.Set{Leases: []*subnet.Lease{lease}, Problems: []subnet.Problem{{Key: evil, Reason: long}}}, false); err != nil {
		t.Fatal(err)
	}
	want = "SUBNET       NODE                    PUBLIC  " + pad("BACKEND", 130) + "STATE\n" +
		`10.5.2.0-24  "h\x1b[2J\n\u202e\x00"  -       ` + pad(cell, 130) + "leased\nleft out: " + quotedName + ": " + line + "\n"
	if got := out.String(); got != want {
		t.Errorf("leases are\n%q, want\n%q", got, want)
	}
}
