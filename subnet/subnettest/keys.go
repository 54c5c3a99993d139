package subnettest

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

// KeyHarness is an empty store of keys and values in flannel's layout, and the access to its keys that other programs have. Keys are
// relative to the prefix.
type KeyHarness interface {
	opener
	// Put writes a key that expires after ttl, or never if ttl is 0.
	Put(key, value string, ttl time.Duration)
	Delete(key string)
	Get(key string) (value string, expires, ok bool)
	Keys() []string
	// Wipe deletes all keys in one step.
	Wipe()
	// Compact makes the store forget its revisions before the present one.
	Compact()
}

// RunInKeys runs what any store must do and what flannel's layout adds.
func RunInKeys(t *testing.T, each func(t *testing.T, test func(t *testing.T, h KeyHarness))) {
	Run(t, func(t *testing.T, test func(*testing.T, Harness)) {
		each(t, func(t *testing.T, h KeyHarness) { test(t, inKeys{h, t}) })
	})
	runAll(t, each, layoutTests(), brokenTests(), askKeyTests(), complaintTests())
}

// inKeys writes down in keys what a test says of leases.
type inKeys struct {
	KeyHarness
	t *testing.T
}

func (h inKeys) Configure(n subnet.Network) {
	h.t.Helper()
	text := map[string]any{"EnableIPv4": n.Pools.V4.Enabled(), "EnableIPv6": n.Pools.V6.Enabled(), "Backend": n.Backend.Options}
	for f, names := range map[ip.Family]string{ip.IPv4: "", ip.IPv6: "IPv6"} {
		if p := n.Pools.Of(f); p.Enabled() {
			text[names+"Network"], text[names+"SubnetLen"], text[names+"SubnetMin"], text[names+"SubnetMax"] = p.Network, p.SubnetLen, p.Min, p.Max
		}
	}
	value, err := json.Marshal(text)
	if err != nil {
		h.t.Fatal(err)
	}
	h.KeyHarness.Put(flannel.ConfigKey, string(value), 0)
}

func (h inKeys) Put(s subnet.Subnets, a subnet.Attrs, ttl time.Duration) {
	h.t.Helper()
	h.KeyHarness.Put(keyOf(s), encode(h.t, a), ttl)
}

func (h inKeys) Delete(s subnet.Subnets) { h.KeyHarness.Delete(keyOf(s)) }

// Leases fails the test if a key among those of leases is none, or has another value than flannel and Tulle write.
func (h inKeys) Leases() []subnet.Lease {
	h.t.Helper()
	var leases []subnet.Lease
	for _, key := range leaseKeys(h.KeyHarness) {
		value, expires, ok := h.Get(key)
		if !ok {
			continue // gone meanwhile
		}
		l, err := flannel.DecodeLease(strings.TrimPrefix(key, flannel.LeaseDir), []byte(value))
		if err != nil {
			h.t.Errorf("key %s with value %s is no lease: %v", key, value, err)
			continue
		}
		if written := encode(h.t, l.Attrs); value != written {
			h.t.Errorf("key %s has the value %s, want %s", key, value, written)
		}
		l.Reserved = !expires
		leases = append(leases, l)
	}
	slices.SortFunc(leases, func(a, b subnet.Lease) int { return subnet.CompareSubnets(a.Subnets, b.Subnets) })
	return leases
}

func keyOf(s subnet.Subnets) string { return flannel.LeaseDir + subnet.KeyOf(s) }

func encode(t *testing.T, a subnet.Attrs) string {
	t.Helper()
	value, err := flannel.EncodeLease(subnet.Subnets{}, a)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// leaseKeys returns the keys that flannel would take for leases, in order.
func leaseKeys(h KeyHarness) []string {
	keys := slices.DeleteFunc(h.Keys(), func(key string) bool { return !strings.HasPrefix(key, "subnets") })
	slices.Sort(keys)
	return keys
}

// wantLeaseKeys fails unless exactly these keys are there.
func wantLeaseKeys(t *testing.T, h KeyHarness, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := leaseKeys(h); !slices.Equal(got, want) {
		t.Fatalf("lease keys = %q, want %q", got, want)
	}
}
