package etcd

import (
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"tulle/subnet"
)

// Whatever lies under the prefix: a lease in the view is one that its own text gives again, and what is none is named.
func FuzzView(f *testing.F) {
	for _, kv := range [][2]string{
		{"subnets/10.5.34.0-24", `{"PublicIP":"10.99.0.1","BackendType":"vxlan"}`},
		{"subnets/10.5.34.0-24&fc00:5:0:1::-64", `{"PublicIP":"10.99.0.1","PublicIPv6":"2001:db8::1"}`},
		{"subnets", "x"}, {"subnets.old", "{}"}, {"subnets/0.0.0.0-0", `{"PublicIP":"0.0.0.0"}`}, {"subnets/10.5.34.7-24", "{}"},
		{"config", `{"Network":"10.5.0.0/16"}`}, {"config", "{"}, {"claims/past/10.5.1.0-24", "{"},
	} {
		f.Add(kv[0], []byte(kv[1]))
	}
	l := newLayout("/net")
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		kv := &mvccpb.KeyValue{Key: []byte(l.prefix + "/" + key), Value: value, ModRevision: 2, CreateRevision: 1, Lease: 7}
		v := newView(l)
		v.put(&mvccpb.KeyValue{Key: []byte(l.config()), Value: []byte(`{"Network":"10.5.0.0/16"}`), ModRevision: 1})
		v.put(kv)
		set := v.set()
		for _, lease := range set.Leases {
			if got := l.lease(lease.Subnets); got != string(kv.Key) {
				t.Errorf("key %q holds the lease of %q", kv.Key, got)
			}
		}
		below := strings.HasPrefix(key, "subnets")
		if below != (len(set.Leases)+len(set.Problems) > 0) && key != "config" {
			t.Errorf("key %q: %d leases and %v", kv.Key, len(set.Leases), set.Problems)
		}
		// None of it keeps a host from being judged and placed.
		self := subnet.Self{Node: "node-1"}
		if set.Network != nil {
			subnet.Judge(*set.Network, set.Leases, self)
		}
		_, _ = subnet.Assign(set, subnet.Claim{Attrs: subnet.Attrs{Node: "node-1"}})
		v.delete(string(kv.Key))
		if left := v.set(); len(left.Leases) > 0 {
			t.Errorf("key %q: %q is left after its deletion", kv.Key, texts(left.Leases))
		}
	})
}
