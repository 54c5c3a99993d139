package subnet

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"tulle/ip"
)

// placed is a view of one IPv4 network with the leases given as subnet, node and age.
func placed(leases ...*Lease) Set {
	n := networkOf("10.5.0.0/16")
	return Set{Revision: 9, Network: &n, Leases: leases}
}

func leaseOf(prefix, node string, created Revision) *Lease {
	return &Lease{
		Subnets: Subnets{V4: netip.MustParsePrefix(prefix)}, Created: created, Revision: created,
		Attrs: Attrs{Node: node, Public: ip.Dual[netip.Addr]{V4: netip.MustParseAddr("172.30.0.1")}},
	}
}

func TestAssign(t *testing.T) {
	mine := Subnets{V4: netip.MustParsePrefix("10.5.34.0/24")}
	claim := Claim{Attrs: Attrs{Node: "h1"}}
	tests := []struct {
		name string
		set  Set
		keep bool // the lease is kept
	}{
		{"alone", placed(leaseOf("10.5.34.0/24", "h1", 5)), true},
		{"a younger lease overlaps", placed(leaseOf("10.5.34.0/24", "h1", 5), leaseOf("10.5.34.128/25", "h2", 6)), true},
		{"an older lease overlaps", placed(leaseOf("10.5.34.0/24", "h1", 5), leaseOf("10.5.34.128/25", "h2", 4)), false},
		{"an older lease covers everything", placed(leaseOf("0.0.0.0/0", "", 4), leaseOf("10.5.34.0/24", "h1", 5)), true},
		{"an older lease is too wide to be used", placed(leaseOf("10.5.0.0/17", "h2", 4), leaseOf("10.5.34.0/24", "h1", 5)), true},
		{"the network hands out other lengths now", placed(leaseOf("10.5.34.0/25", "h1", 5)), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Assign(tt.set, claim)
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Held && p.Subnets == mine; got != tt.keep {
				t.Errorf("placed at %s, kept %t, want kept %t", KeyOf(p.Subnets), got, tt.keep)
			}
		})
	}
}

func TestAssignKeepsOrFails(t *testing.T) {
	claim := Claim{Attrs: Attrs{Node: "h1"}, Previous: Subnets{V4: netip.MustParsePrefix("10.5.34.0/24")}, Only: true}
	p, err := Assign(placed(), claim)
	if err != nil || p.Subnets != claim.Previous {
		t.Errorf("placed at %s, %v, want the free previous subnet", KeyOf(p.Subnets), err)
	}
	_, err = Assign(placed(leaseOf("10.5.34.0/24", "thief", 7)), claim)
	if !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), "thief") {
		t.Errorf("error %v, want the loss to the thief", err)
	}
	full := placed()
	for i := range 256 {
		full.Leases = append(full.Leases, leaseOf(fmt.Sprintf("10.5.%d.0/24", i), map[bool]string{true: "thief"}[i == 34], 7))
	}
	if _, err = Assign(full, claim); !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), "thief") {
		t.Errorf("in a full network: error %v, want the loss to the thief", err)
	}
	// A lease that covers the network takes nothing. What does is named, be it a subnet or an address.
	all := leaseOf("0.0.0.0/0", "everybody", 1)
	if p, err = Assign(placed(all), claim); err != nil || p.Subnets != claim.Previous {
		t.Errorf("beside a lease of everything: placed at %s, %v, want the previous subnet", KeyOf(p.Subnets), err)
	}
	if _, err = Assign(placed(all, leaseOf("10.5.34.0/24", "thief", 7)), claim); !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), "thief") {
		t.Errorf("beside a lease of everything: error %v, want the loss to the thief", err)
	}
	inside := leaseOf("10.5.35.0/24", "inside", 7)
	inside.Attrs.Public.V4 = netip.MustParseAddr("10.5.34.9")
	if _, err = Assign(placed(all, inside), claim); !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), "10.5.34.9 of node inside") {
		t.Errorf("error %v, want the loss to a public address", err)
	}
	claim.Previous = Subnets{V4: netip.MustParsePrefix("10.6.34.0/24")}
	if _, err = Assign(placed(), claim); !errors.Is(err, ErrLost) {
		t.Errorf("error %v, want the loss of a subnet outside the network", err)
	}
}
