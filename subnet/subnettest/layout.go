package subnettest

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tulle/ip"
	"tulle/subnet"
)

const (
	config4    = `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`
	config6    = `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00:5::/48","Backend":{"Type":"vxlan"}}`
	configDual = `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:5::/48","Backend":{"Type":"vxlan"}}`

	// flanneldValue is what a flanneld at 10.99.0.1 writes.
	flanneldValue = `{"PublicIP":"10.99.0.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"4e:f3:a5:78:97:d4"}}`
)

// layoutTests hold the texts in the store against flannel's.
func layoutTests() map[string]func(*testing.T, KeyHarness) {
	return map[string]func(*testing.T, KeyHarness){
		"AcquireWritesTheContract":   acquireWritesTheContract,
		"FlanneldsLeaseIsTakenOver":  flanneldsLeaseIsTakenOver,
		"IPv6OnlyKeys":               ipv6OnlyKeys,
		"ReleaseLeavesNoKeys":        releaseLeavesNoKeys,
		"ConfigInvalidFromTheStart":  invalidConfig,
		"LastGoodConfigStaysInForce": lastGoodConfigStays,
		"CompactedConfigIsUnknown":   compactedConfigIsUnknown,
	}
}

func acquireWritesTheContract(t *testing.T, h KeyHarness) {
	h.Put("config", configDual, 0)
	x := start(t, h, claimOf(1))
	lease := x.held.Lease()
	wantLeaseKeys(t, h, keyOf(lease.Subnets))
	value, expires, _ := h.Get(keyOf(lease.Subnets))
	want := `{"PublicIP":"192.0.2.1","PublicIPv6":"2001:db8::1","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"},"Tulle":{"Node":"node-1","Instance":"machine-1"}}`
	if value != want {
		t.Errorf("value = %s, want %s", value, want)
	}
	if !expires || lease.Reserved {
		t.Errorf("lease expires: %v, reserved: %v, want an ordinary one", expires, lease.Reserved)
	}
}

func flanneldsLeaseIsTakenOver(t *testing.T, h KeyHarness) {
	h.Put("config", config4, 0)
	h.Put("subnets/10.5.34.0-24", flanneldValue, 24*time.Hour)
	claim := claimOf(1)
	claim.Attrs.Public = ip.Dual[netip.Addr]{V4: netip.MustParseAddr("10.99.0.1")}
	claim.Attrs.BackendData.V4 = []byte(`{"VNI":1,"VtepMAC":"4e:f3:a5:78:97:d4"}`)
	x := start(t, h, claim)
	wantLeaseKeys(t, h, "subnets/10.5.34.0-24")
	value, expires, _ := h.Get("subnets/10.5.34.0-24")
	want := strings.TrimSuffix(flanneldValue, "}") + `,"Tulle":{"Node":"node-1","Instance":"machine-1"}}`
	if value != want || !expires {
		t.Errorf("value = %s (expires: %v), want %s", value, expires, want)
	}
	if got := x.held.Lease(); got.Subnets.V4 != prefix("10.5.34.0/24") || got.Reserved {
		t.Errorf("lease = %+v, want flanneld's", got)
	}
}

func ipv6OnlyKeys(t *testing.T, h KeyHarness) {
	h.Put("config", config6, 0)
	start(t, h, claimOf(1))
	start(t, h, claimOf(2))
	keys := leaseKeys(h)
	if len(keys) != 2 {
		t.Errorf("keys = %q, want two", keys)
	}
	for _, key := range keys {
		if !strings.HasPrefix(key, "subnets/0.0.0.0-0&fc00:5:") {
			t.Errorf("key = %s, want flannel's text", key)
		}
	}
}

func releaseLeavesNoKeys(t *testing.T, h KeyHarness) {
	h.Put("config", config4, 0)
	x := start(t, h, claimOf(1))
	if err := x.held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, key := range h.Keys() {
		if key != "config" && !strings.HasPrefix(key, formerOwnersDir) {
			t.Errorf("key %s is left after the release", key)
		}
	}
}

func invalidConfig(t *testing.T, h KeyHarness) {
	for _, config := range []string{"{", `{"Network":"10.5.0.0/16","SubnetLen":12}`} {
		h.Put("config", config, 0)
		_, err := tryStart(t, h, claimOf(1))
		if !errors.Is(err, subnet.ErrNoNetwork) {
			t.Errorf("Acquire with config %q = %v, want ErrNoNetwork", config, err)
		}
	}
	wantLeaseKeys(t, h)
}

func lastGoodConfigStays(t *testing.T, h KeyHarness) {
	h.Put("config", config4, 0)
	w := watch(t, h)
	good := w.until("a network", func(set subnet.Set) bool { return set.Network != nil })
	for _, spoil := range []func(){
		func() { h.Put("config", `{"Network":"10.5.0.0/16","SubnetLen":12}`, 0) },
		func() { h.Delete("config") },
		func() { h.Put("config", "{", 0) },
	} {
		spoil()
		set := w.until("a problem", func(set subnet.Set) bool { return len(set.Problems) > 0 && set.Revision > good.Revision })
		if set.Network == nil || set.Network.Revision != good.Network.Revision || !strings.HasSuffix(problemKeys(set)[0], "config") {
			t.Errorf("set = %+v, want the last good network and a problem with the configuration", set)
		}
		good.Revision = set.Revision
	}
	h.Put("config", configDual, 0)
	w.until("the new network", func(set subnet.Set) bool {
		return set.Network.Revision > good.Network.Revision && len(set.Problems) == 0
	})
}

func problemKeys(set subnet.Set) []string {
	var keys []string
	for _, p := range set.Problems {
		keys = append(keys, p.Key)
	}
	return keys
}

// A good configuration that came and went unseen is followed only as long as the store remembers it.
func compactedConfigIsUnknown(t *testing.T, h KeyHarness) {
	h.Put("config", config4, 0)
	far := h.OpenAfar()
	w := watchBy(t, far.Store)
	before := w.until("a network", func(set subnet.Set) bool { return set.Network != nil })
	far.Cut()
	h.Put("config", configDual, 0)
	h.Put("config", "{", 0)
	h.Compact()
	far.Mend()
	after := w.until("a problem", func(set subnet.Set) bool { return len(set.Problems) > 0 })
	if after.Network == nil || after.Network.Revision != before.Network.Revision {
		t.Errorf("network = %+v, want the last good one that was seen", after.Network)
	}
}
