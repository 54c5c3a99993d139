package fabric

import (
	"testing"
	"time"

	"tulle/subnet"
)

// After a change of others all peers are asked about sooner than at rest. A start is no change.
func TestOnlyAChangeHurries(t *testing.T) {
	f := &Fabric{}
	c := &f.pathCheck
	peers := []routedPeer{{lease: &subnet.Lease{}}}
	c.took = 10 * time.Millisecond
	var v facts
	for _, step := range []struct {
		what string
		sum  uint64 // of others' routes and rules
		want time.Duration
	}{
		{"a start", 1, askAtRest * c.took},
		{"a change", 2, askShare * c.took},
	} {
		v.snap.Others.Sum = step.sum
		c.update(v, peers, subnet.Network{})
		if got := f.CheckIn(); got != step.want {
			t.Errorf("after %s peers are asked about in %v, want %v", step.what, got, step.want)
		}
	}
}
