package ip_test

import (
	"encoding/json"
	"net/netip"
	"testing"

	"tulle/ip"
)

// TestLinksOnDisk reads links as versions wrote them that knew one kind, and as this one does.
func TestLinksOnDisk(t *testing.T) {
	local := netip.MustParseAddr("192.0.2.1")
	link := ip.Link{Name: "flannel.1", MAC: ip.MAC{2, 0, 0, 0, 0, 1}, MTU: 1450, Up: true}
	for text, kind := range map[string]ip.LinkKind{
		`{"Name":"flannel.1","MAC":"02:00:00:00:00:01","MTU":1450,"Up":true,"VXLAN":{"VNI":1,"Local":"192.0.2.1","Port":8472,"Learning":false,"GBP":true}}`: ip.VXLAN{VNI: 1, Local: local, Port: 8472, GBP: true},
		`{"Name":"flannel.1","MAC":"02:00:00:00:00:01","MTU":1450,"Up":true,"IPIP":{"Local":"192.0.2.1"}}`:                                                  ip.IPIP{Local: local},
		`{"Name":"flannel.1","MAC":"02:00:00:00:00:01","MTU":1450,"Up":true}`:                                                                               nil,
	} {
		want := link
		want.Kind = kind
		var got ip.Link
		if err := json.Unmarshal([]byte(text), &got); err != nil || got != want {
			t.Errorf("%s reads as %+v, %v, want %+v", text, got, err, want)
		}
		if back, err := json.Marshal(want); err != nil || string(back) != text {
			t.Errorf("%+v is written as %s, %v, want %s", want, back, err, text)
		}
	}
}
