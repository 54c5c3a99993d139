//go:build linux

package etcd_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"tulle/internal/etcdmember/etcdmembertest"
	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/etcd"
)

// claimOf is the claim of host n of up to 65,000.
func claimOf(n int) subnet.Claim {
	claim := subnet.Claim{Attrs: subnet.Attrs{BackendType: "vxlan", Node: fmt.Sprintf("node-%d", n), Instance: fmt.Sprintf("machine-%d", n)}}
	claim.Attrs.Public.V4 = netip.AddrFrom4([4]byte{172, 16, byte(n >> 8), byte(n)})
	claim.Attrs.BackendData.V4 = json.RawMessage(`{"VNI":1,"VtepMAC":"4e:f3:a5:78:97:d4"}`)
	return claim
}

func contains(text string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(text, p) {
			return false
		}
	}
	return true
}

// TestThousandHostsAtOnce has about twice as many subnets as hosts; the suite has as many.
func TestThousandHostsAtOnce(t *testing.T) {
	const hosts, stores = 1000, 50
	member := etcdmembertest.Start(t)
	for name, config := range map[string]string{
		"ipv4": `{"Network":"10.8.0.0/13","SubnetLen":24,"Backend":{"Type":"vxlan"}}`,
		"dual": `{"Network":"10.8.0.0/13","SubnetLen":24,"EnableIPv6":true,"IPv6Network":"fc00:5::/53","IPv6SubnetLen":64,"Backend":{"Type":"vxlan"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, etcd.Config{Endpoints: member.Endpoints(), Prefix: "/" + name, RequestTimeout: time.Minute})
			h.Put("config", config, 0)
			all := make([]subnet.Subnets, hosts)
			start := time.Now()
			var wg sync.WaitGroup
			for i := range stores {
				s := h.opened()
				for n := i; n < hosts; n += stores {
					wg.Go(func() {
						held, err := s.Acquire(t.Context(), claimOf(n))
						if err != nil {
							t.Error(err)
							return
						}
						all[n] = held.Lease().Subnets
					})
				}
			}
			wg.Wait()
			t.Logf("%d hosts acquired in %v", hosts, time.Since(start))
			owner := map[netip.Prefix]int{}
			for n, s := range all {
				for _, f := range ip.Families() {
					p := s.Of(f)
					if other, taken := owner[p]; taken && p.IsValid() {
						t.Errorf("hosts %d and %d both have %v", n, other, p)
					}
					owner[p] = n
				}
			}
			set, err := h.opened().Snapshot(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(set.Leases) != hosts {
				t.Errorf("store has %d leases, want %d", len(set.Leases), hosts)
			}
			// All subnets have one length per family, so distinct means disjoint.
			for _, l := range set.Leases {
				if !set.Network.Fits(l.Subnets) {
					t.Errorf("lease %s does not fit the network", subnet.KeyOf(l.Subnets))
				}
			}
		})
	}
}
