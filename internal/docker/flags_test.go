package docker

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestClashing(t *testing.T) {
	args := []string{"/usr/bin/dockerd", "-H", "fd://", "--mtu", "1400", "--bip=10.9.0.1/24", "--bridge=br9", "--ip-masq-not=1", "mtu", "--ipv6"}
	want := []string{"--mtu", "--bip=10.9.0.1/24", "--bridge=br9"}
	if diff := cmp.Diff(want, clashing(args, Settings(leaseOf("10.5.1.0/24"), Version{20, 10}))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
