package identity

import (
	"os"
	"path/filepath"
	"testing"

	"tulle/subnet"
)

// machine is a sysfs with a board and network cards, each a MAC address.
func machine(t *testing.T, board string, cards ...string) string {
	t.Helper()
	sys := t.TempDir()
	if board != "" {
		put(t, filepath.Join(sys, "class/dmi/id/product_uuid"), board+"\n")
	}
	for i, mac := range cards {
		link := filepath.Join(sys, "class/net", string(rune('a'+i)))
		put(t, filepath.Join(link, "address"), mac+"\n")
		put(t, filepath.Join(link, "device/vendor"), "0x1af4\n")
	}
	bridge := filepath.Join(sys, "class/net/docker0")
	put(t, filepath.Join(bridge, "address"), "02:42:ac:11:00:01\n")
	return sys
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestHardware(t *testing.T) {
	const board, otherBoard = "4c4c4544-0051", "4C4C4544-0099"
	const mac1, mac2, mac3 = "52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03"
	bonded := machine(t, board, mac3, mac3)
	put(t, filepath.Join(bonded, "class/net/a/bonding_slave/perm_hwaddr"), mac1+"\n")
	virtual := machine(t, board, mac1)
	put(t, filepath.Join(virtual, "class/net/a/device/physfn/vendor"), "0x8086\n")
	original := Hardware(machine(t, board, mac1, mac2))
	for _, tt := range []struct {
		name string
		sys  string
		same bool
	}{
		{"itself", machine(t, board, mac2, mac1), true},
		{"one card exchanged", machine(t, board, mac1, mac3), true},
		{"in a bond", bonded, true},
		{"all cards exchanged", machine(t, board, mac3), false},
		{"another board", machine(t, otherBoard, mac1, mac2), false},
		{"virtual functions alone", virtual, false},
		{"nothing known", machine(t, ""), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			other := Hardware(tt.sys)
			if elsewhere := (subnet.Attrs{Hardware: original}).Elsewhere(subnet.Attrs{Hardware: other}); elsewhere == tt.same {
				t.Errorf("%q and %q: elsewhere is %t", original, other, elsewhere)
			}
		})
	}
	if parts := Hardware(machine(t, board)); len(parts) != 1 {
		t.Errorf("a board without cards has %q", parts)
	}
	if parts := Hardware(machine(t, board, mac1, mac2, mac3, "52:54:00:00:00:04", "52:54:00:00:00:05")); len(parts) != mostParts {
		t.Errorf("a machine of five cards has %q", parts)
	}
}
