package subnet

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

// leasesOf makes leases from texts such as "10.5.1.0/24 a 3": subnet, node, revision.
func leasesOf(t *testing.T, texts ...string) []*Lease {
	t.Helper()
	var leases []*Lease
	for _, text := range texts {
		var l Lease
		var p string
		if _, err := fmt.Sscan(text, &p, &l.Attrs.Node, &l.Revision); err != nil {
			t.Fatal(err)
		}
		l.Subnets.V4 = netip.MustParsePrefix(p)
		leases = append(leases, &l)
	}
	return leases
}

func textsOf(leases []*Lease) []string {
	var texts []string
	for _, l := range leases {
		texts = append(texts, fmt.Sprintf("%s %s %d", l.Subnets.V4, l.Attrs.Node, l.Revision))
	}
	return texts
}

func TestHoldback(t *testing.T) {
	four := []string{"10.5.1.0/24 a 1", "10.5.2.0/24 b 2", "10.5.3.0/24 c 3", "10.5.4.0/24 d 4"}
	for name, tt := range map[string]struct {
		next    []string
		back    bool
		want    []string
		holding bool
	}{
		"nothing new":         {four, false, four, false},
		"half are gone":       {four[:2], false, four[:2], false},
		"most are gone":       {four[:1], false, four, true},
		"all are gone":        {nil, false, four, true},
		"one new, all others": {[]string{"10.5.9.0/24 e 9"}, false, append(slices.Clone(four), "10.5.9.0/24 e 9"), true},
		"one is another's":    {[]string{"10.5.2.0/24 e 9"}, false, []string{four[0], "10.5.2.0/24 e 9", four[2], four[3]}, true},
		"one is overlapped":   {[]string{"10.5.2.0/25 e 9"}, false, []string{four[0], "10.5.2.0/25 e 9", four[2], four[3]}, true},
		"two are overlapped":  {[]string{"10.5.2.0/23 e 9"}, false, []string{four[0], "10.5.2.0/23 e 9", four[3]}, true},
		"one is newer":        {[]string{"10.5.1.0/24 a 9"}, false, append([]string{"10.5.1.0/24 a 9"}, four[1:]...), true},
		"an old backup":       {[]string{"10.5.1.0/24 a 0", four[1], four[2]}, true, four, true},
		"a backup of now":     {four, true, four, false},
	} {
		t.Run(name, func(t *testing.T) {
			var h Holdback
			h.Admit(Set{Leases: leasesOf(t, four...)}, false)
			got := h.Admit(Set{Leases: leasesOf(t, tt.next...)}, tt.back)
			if texts := textsOf(got.Leases); !slices.Equal(texts, tt.want) {
				t.Errorf("delivered %q, want %q", texts, tt.want)
			}
			if (h.Reason() != "") != tt.holding {
				t.Errorf("doubt %q, want one: %v", h.Reason(), tt.holding)
			}
			if got := textsOf(h.Confirm(Set{Leases: leasesOf(t, tt.next...)}).Leases); !slices.Equal(got, tt.next) || h.Reason() != "" {
				t.Errorf("confirmed %q, want %q", got, tt.next)
			}
		})
	}
}

// Those who come back one by one are not lost meanwhile.
func TestHoldbackEndsWhenAllAreBack(t *testing.T) {
	four := []string{"10.5.1.0/24 a 1", "10.5.2.0/24 b 2", "10.5.3.0/24 c 3", "10.5.4.0/24 d 4"}
	var h Holdback
	h.Admit(Set{Leases: leasesOf(t, four...)}, false)
	var back []string
	for i := range 5 {
		got := h.Admit(Set{Leases: leasesOf(t, back...)}, false)
		if len(got.Leases) != 4 || (h.Reason() != "") != (i < 4) {
			t.Errorf("with %d back: %d leases, doubt %q", i, len(got.Leases), h.Reason())
		}
		if i < 4 {
			back = append(back, fmt.Sprintf("10.5.%d.0/24 %c %d", i+1, 'a'+i, 10+i))
		}
	}
	// The hold is over: one that goes now is gone.
	if got := h.Admit(Set{Leases: leasesOf(t, back[:3]...)}, false); len(got.Leases) != 3 {
		t.Errorf("%d leases, want 3", len(got.Leases))
	}
}

// A reader that was slow sees a wipe only when most hosts are back already.
func TestHoldbackOfTheRest(t *testing.T) {
	four := leasesOf(t, "10.5.1.0/24 a 1", "10.5.2.0/24 b 2", "10.5.3.0/24 c 3", "10.5.4.0/24 d 4")
	var h Holdback
	h.Admit(Set{Leases: four}, false)
	back := leasesOf(t, "10.5.1.0/24 a 11", "10.5.2.0/24 b 12", "10.5.3.0/24 c 13")
	for i := range back {
		back[i].Created = back[i].Revision
	}
	if got := h.Admit(Set{Leases: back}, false); len(got.Leases) != 4 || h.Reason() == "" {
		t.Errorf("%q, doubt %q, want the fourth held back", textsOf(got.Leases), h.Reason())
	}
}
