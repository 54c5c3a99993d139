package etcd

import (
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// peerKV is the key of the lease of one of many hosts.
func peerKV(i int) *mvccpb.KeyValue {
	return &mvccpb.KeyValue{
		Key: fmt.Appendf(nil, "/net/subnets/10.%d.%d.0-24", i>>8, i&255),
		Value: fmt.Appendf(nil, `{"PublicIP":"100.64.%d.%d","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:%02x:%02x"},`+
			`"Tulle":{"Node":"host-%d","Instance":"3f2a9c"}}`, i>>8, i&255, i>>8, i&255, i),
		ModRevision: int64(i + 1),
	}
}

func BenchmarkDecode(b *testing.B) {
	l, kv := newLayout("/net"), peerKV(258)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.decode(kv); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFill is a listing of many leases, up to their delivery.
func BenchmarkFill(b *testing.B) {
	const n = 10_000
	kvs := make([]*mvccpb.KeyValue, n)
	for i := range kvs {
		kvs[i] = peerKV(i)
	}
	b.ReportAllocs()
	for b.Loop() {
		v := newView(newLayout("/net"))
		for _, kv := range kvs {
			v.put(kv)
		}
		if got := len(v.set().Leases); got != n {
			b.Fatalf("%d leases, want %d", got, n)
		}
	}
}
