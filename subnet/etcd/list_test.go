package etcd

import (
	"fmt"
	"slices"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"pgregory.net/rapid"

	"tulle/subnet"
)

// However leases come, change and go, the list is what sorting them all would give, and what was handed out stays as it was.
func TestListIsSorted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := newView(newLayout("/net"))
		var before []*subnet.Lease
		var was []string
		for step := range rapid.IntRange(1, 30).Draw(t, "steps") {
			for range rapid.IntRange(0, 4).Draw(t, "changes") {
				key := fmt.Sprintf("/net/subnets/10.5.%d.0-24", rapid.IntRange(0, 9).Draw(t, "subnet"))
				switch rapid.IntRange(0, 3).Draw(t, "kind") {
				case 0:
					v.delete(key)
				case 1:
					v.put(&mvccpb.KeyValue{Key: []byte(key), Value: []byte("{"), ModRevision: int64(step)})
				default:
					v.put(&mvccpb.KeyValue{Key: []byte(key), Value: []byte(`{"PublicIP":"192.0.2.1"}`), ModRevision: int64(step)})
				}
			}
			got := v.set().Leases
			var want []*subnet.Lease
			for _, e := range v.leases {
				want = append(want, &e.Lease)
			}
			slices.SortFunc(want, func(a, b *subnet.Lease) int { return subnet.CompareSubnets(a.Subnets, b.Subnets) })
			if got, want := texts(got), texts(want); !slices.Equal(got, want) {
				t.Fatalf("list %q, want %q", got, want)
			}
			if is := texts(before); !slices.Equal(is, was) {
				t.Fatalf("what was handed out has changed from %q to %q", was, is)
			}
			before, was = got, texts(got)
		}
	})
}

func texts(leases []*subnet.Lease) []string {
	var out []string
	for _, l := range leases {
		out = append(out, fmt.Sprint(l.Subnets, l.Revision))
	}
	return out
}

// BenchmarkSet is one change among many leases.
func BenchmarkSet(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 50_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			v := newView(newLayout("/net"))
			kv := func(i int) *mvccpb.KeyValue {
				return &mvccpb.KeyValue{
					Key:         fmt.Appendf(nil, "/net/subnets/10.%d.%d.0-24", i>>8, i&255),
					Value:       fmt.Appendf(nil, `{"PublicIP":"100.64.%d.%d","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:%02x:%02x"}}`, i>>8, i&255, i>>8, i&255),
					ModRevision: int64(i),
				}
			}
			for i := range n {
				v.put(kv(i))
			}
			v.set()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				v.put(kv(i * 7919 % n))
				if got := len(v.set().Leases); got != n {
					b.Fatalf("%d leases, want %d", got, n)
				}
			}
		})
	}
}
