package fabric

import (
	"net/netip"
	"strings"
	"testing"

	"tulle/ip"
	"tulle/subnet"
)

// The store follows a new configuration at once: a lease of it must not be mixed with the configuration in force.
func TestLeaseOfAnotherConfiguration(t *testing.T) {
	old := subnet.Network{Pools: ip.Dual[subnet.Pool]{V4: subnet.Pool{Network: netip.MustParsePrefix("10.7.0.0/16"), SubnetLen: 24}}}
	f := &Fabric{network: &old}
	good, bad := subnet.Lease{}, subnet.Lease{}
	good.Subnets.V4 = netip.MustParsePrefix("10.7.1.0/24")
	bad.Subnets.V4 = netip.MustParsePrefix("10.5.1.0/24")
	if err := f.inForce(good); err != nil {
		t.Error(err)
	}
	for _, l := range []subnet.Lease{bad, {}} {
		if err := f.inForce(l); err == nil || !strings.Contains(err.Error(), "10.7.0.0/16") || !strings.Contains(err.Error(), "restart tulled") {
			t.Errorf("%v: error %v, want the network and the remedy", l.Subnets, err)
		}
	}
}
