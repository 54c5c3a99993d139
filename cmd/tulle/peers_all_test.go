package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/subnet"
)

// complaining is a store that holds complaints.
type complaining struct {
	subnet.Operator
	list     []subnet.Complaint
	problems []subnet.Problem
}

func (c complaining) Complaints(context.Context) ([]subnet.Complaint, []subnet.Problem, error) {
	return c.list, c.problems, nil
}

func TestPrintComplaints(t *testing.T) {
	lost := func(n int, way string) subnet.BadPeer {
		return subnet.BadPeer{Lease: fmt.Sprintf("10.5.%d.0-24", n), Node: fmt.Sprintf("h%d", n), Family: "ipv4", Way: way, State: subnet.PeerUnreachable, Since: time.Unix(60, 0)}
	}
	narrow := func(n, size int) subnet.BadPeer {
		p := lost(n, "fabric")
		p.State, p.Size, p.Full = subnet.PeerNarrow, size, 1450
		return p
	}
	nameless := lost(6, "fabric")
	nameless.Node = ""
	says := func(n, more int, peers ...subnet.BadPeer) subnet.Complaint {
		return subnet.Complaint{Node: fmt.Sprintf("h%d", n), Lease: fmt.Sprintf("10.5.%d.0-24", n), Peers: peers, More: more}
	}
	for name, tt := range map[string]struct {
		store complaining
		want  string
	}{
		"nothing": {complaining{}, "no host says that packets to another do not arrive: those would whose tulled runs with --probe=on\n"},
		"a pair": {complaining{list: []subnet.Complaint{says(1, 0, lost(2, "fabric")), says(2, 0, lost(1, "fabric"))}}, `FROM  TO  FAMILY  WAY     STATE        SIZE  SINCE
h1    h2  ipv4    fabric  unreachable  -     1970-01-01T00:01:00Z
h2    h1  ipv4    fabric  unreachable  -     1970-01-01T00:01:00Z
`},
		"a host between others": {complaining{list: []subnet.Complaint{says(1, 0, lost(2, "fabric")), says(2, 0, lost(3, "fabric")), says(3, 0, lost(2, "fabric"))}}, `FROM  TO  FAMILY  WAY     STATE        SIZE  SINCE
h1    h2  ipv4    fabric  unreachable  -     1970-01-01T00:01:00Z
h2    h3  ipv4    fabric  unreachable  -     1970-01-01T00:01:00Z
h3    h2  ipv4    fabric  unreachable  -     1970-01-01T00:01:00Z
`},
		"a host that is off": {
			complaining{
				list: []subnet.Complaint{
					says(1, 0, narrow(4, 1300), lost(7, "fabric"), lost(7, "underlay")), says(2, 3, narrow(4, 0), nameless, lost(7, "fabric")), says(3, 0, nameless, lost(5, "fabric")),
				},
				problems: []subnet.Problem{{Key: "/x\x1b", Reason: "odd\nreason"}},
			}, `FROM  TO           FAMILY  WAY       STATE        SIZE          SINCE
h1    h4           ipv4    fabric    narrow       1300 of 1450  1970-01-01T00:01:00Z
h1    h7           ipv4    fabric    unreachable  -             1970-01-01T00:01:00Z
h1    h7           ipv4    underlay  unreachable  -             1970-01-01T00:01:00Z
h2    h4           ipv4    fabric    narrow       -             1970-01-01T00:01:00Z
h2    10.5.6.0-24  ipv4    fabric    unreachable  -             1970-01-01T00:01:00Z
h2    h7           ipv4    fabric    unreachable  -             1970-01-01T00:01:00Z
h3    10.5.6.0-24  ipv4    fabric    unreachable  -             1970-01-01T00:01:00Z
h3    h5           ipv4    fabric    unreachable  -             1970-01-01T00:01:00Z
h2: 3 peers besides
10.5.6.0-24: 2 hosts do not reach it
h7: 2 hosts do not reach it
left out: "/x\x1b": odd; reason
`,
		},
	} {
		all, err := readComplaints(t.Context(), tt.store)
		var out bytes.Buffer
		if err := printComplaints(&out, all); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, out.String()); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
	}
	all, err := readComplaints(t.Context(), complaining{})
	text, _ := json.Marshal(all)
	if want := `{"complaints":[],"unreached":[],"problems":[]}`; string(text) != want || err != nil {
		t.Errorf("%s, %v, want %s", text, err, want)
	}
}
