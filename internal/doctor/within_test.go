package doctor

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"tulle/internal/trouble"
)

// Facts of a large host fit, say what was left out, and stay as they are; those that fit are told whole.
func TestWithin(t *testing.T) {
	f := sound()
	if text, err := f.Within(128 << 10); err != nil || strings.Contains(string(text), "too many") {
		t.Errorf("%s, %v", text, err)
	}
	long := strings.Repeat("x", MaxText)
	for range MaxContainers {
		f.Containers = append(f.Containers, Container{Name: long, ID: long})
		f.Links = append(f.Links, Link{Name: "v", Role: RolePort})
	}
	for range MaxTroubles {
		f.Status.Troubles = append(f.Status.Troubles, trouble.New(trouble.PeerRefused, long, long))
	}
	for range MaxOthers {
		f.Others = append(f.Others, Other{Spec: long})
	}
	before, _ := json.Marshal(f)
	for _, most := range []int{128 << 10, 16 << 10} {
		text, err := f.Within(most)
		if err != nil || len(text) > most {
			t.Fatalf("%d bytes, %v, want %d at most", len(text), err, most)
		}
		var back Facts
		if err := json.Unmarshal(text, &back); err != nil || !unread(back, PartContainers) || back.Links[0].Name != "eth0" {
			t.Errorf("%v: %+v", err, back.Unread)
		}
	}
	if after, _ := json.Marshal(f); !reflect.DeepEqual(before, after) {
		t.Error("the facts have changed")
	}
	if _, err := f.Within(10); err == nil {
		t.Error("nothing fits into 10 bytes")
	}
}
