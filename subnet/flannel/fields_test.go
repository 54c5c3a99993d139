package flannel

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestUnknownFields(t *testing.T) {
	for _, tt := range []struct {
		object string
		want   []string
	}{
		{`{"Type":"vxlan","vni":1}`, nil},
		{`{"VNID":1}`, []string{`field "VNID" is unknown and ignored: did you mean VNI?`}},
		{`{"Direct-Routing":true,"Comment":""}`, []string{`field "Comment" is unknown and ignored`, `field "Direct-Routing" is unknown and ignored: did you mean DirectRouting?`}},
		{`[]`, nil},
		{``, nil},
	} {
		if got := UnknownFields(json.RawMessage(tt.object), "Type", "VNI", "DirectRouting"); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.object, got, tt.want)
		}
	}
	long := UnknownFields(json.RawMessage(`{"`+strings.Repeat("x", 1<<20)+`":1}`), "Type")
	if len(long) != 1 || len(long[0]) > 200 {
		t.Errorf("a long name gave %d remarks", len(long))
	}
}

// However many members nobody knows, few are named and all are counted. Those that look the same are one.
func TestManyUnknownFields(t *testing.T) {
	members := func(format string, n int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(`"`+format+`":1`, i))
		}
		return "{" + strings.Join(all, ",") + "}"
	}
	x := strings.Repeat("x", 64)
	if got := UnknownFields(json.RawMessage(members(x+"%d", 1000)), "Type"); !slices.Equal(got, []string{fmt.Sprintf("field %q is unknown and ignored (1000 such fields)", x+"...")}) {
		t.Errorf("%d remarks on long names, such as %q", len(got), got[0])
	}
	got := UnknownFields(json.RawMessage(members("%03d", 1000)), "Type")
	if last := got[len(got)-1]; len(got) != 21 || got[0] != `field "000" is unknown and ignored` || last != "980 more fields are unknown and ignored" {
		t.Errorf("%d remarks, the last of them %q", len(got), last)
	}
}

func TestEditDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"", "abc", 3},
		{"abc", "", 3},
		{"abc", "abc", 0},
		{"netwrok", "network", 2},
		{"kitten", "sitting", 3},
		{"subnetlength", "subnetlen", 3},
	} {
		if got := editDistance(tt.a, tt.b); got != tt.want {
			t.Errorf("editDistance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
