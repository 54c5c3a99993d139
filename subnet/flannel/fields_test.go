package flannel

import (
	"encoding/json"
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
