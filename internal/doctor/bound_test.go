package doctor

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"tulle/internal/trouble"
)

// However many things another host tells of, the checks end, and what was left out is told.
func TestBound(t *testing.T) {
	many := func(s string, n int) string { return strings.TrimSuffix(strings.Repeat(s+",", n), ",") }
	for name, c := range map[string]struct {
		text string
		part Part
	}{
		"bridges":  {`{"status":{"networks":[{"prefixes":["1.0.0.0/8"],"subnets":[` + many(`"1.1.1.0/24"`, 1000) + `]}]},"links":[` + many(`{"role":"bridge"}`, 1000) + `],"containers":[` + many(`{}`, 1000) + `]}`, PartLinks},
		"networks": {`{"status":{"networks":[` + many(`{"prefixes":["1.0.0.0/8"],"subnets":["1.1.1.0/24"]}`, 2000) + `]},"containers":[` + many(`{"addresses":["1.2.0.1/8"]}`, 800) + `]}`, PartStatus},
		"ports":    {`{"links":[` + many(`{"role":"port"}`, 3500) + `,` + many(`{"role":"bridge"}`, 3500) + `]}`, PartLinks},
	} {
		var f Facts
		if err := json.Unmarshal([]byte(c.text), &f); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		f.Bound()
		r := Diagnose(Case{Here: Facts{Node: "h1"}, There: &f})
		if took := time.Since(began); took > 5*time.Second || len(r.Findings) > 4*maxLinks || !unread(f, c.part) {
			t.Errorf("%s: %d findings after %v, not told: %+v", name, len(r.Findings), took, f.Unread)
		}
	}
}

// What one command mends is one finding: the command would fail the second time.
func TestOneFixIsOneFinding(t *testing.T) {
	f := sound()
	f.Others = []Other{{Rule: true, Family: "ipv4", Spec: "priority 50 from 10.5.1.0/24"}}
	for _, peer := range []string{"10.5.2.1", "10.5.3.1"} {
		tells(&f, trouble.RouteShadowed, peer, "packets from containers to "+peer+" are dropped: prohibit")
	}
	if r := Diagnose(Case{Here: f}); len(r.Findings) != 1 || len(r.Findings[0].Fix) != 1 || len(r.Findings[0].Follows) != 1 {
		t.Errorf("found %+v", r.Findings)
	}
}

// What a host says that tells the truth stays.
func TestBoundLeaves(t *testing.T) {
	f, want := sound(), sound()
	want.Clock = f.Clock
	if f.Bound(); !reflect.DeepEqual(f, want) {
		t.Errorf("%+v, want %+v", f, want)
	}
}
