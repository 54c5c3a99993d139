//go:build linux

package docker

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"tulle/subnet/flannel"
)

// TestOptions compares with what flannel's mk-docker-opts.sh writes: these are the first four lines.
func TestOptions(t *testing.T) {
	flannels := leaseOf("10.1.74.0/24")
	flannels.MTU, flannels.IPMasq = 1472, false
	for _, test := range []struct {
		name string
		env  flannel.Env
		want string
	}{
		{"flannel's", flannels, `DOCKER_OPT_BIP="--bip=10.1.74.1/24"
DOCKER_OPT_IPMASQ="--ip-masq=true"
DOCKER_OPT_MTU="--mtu=1472"
DOCKER_OPTS=" --bip=10.1.74.1/24 --ip-masq=true --mtu=1472"
DOCKER_NETWORK_SUBNET="10.1.74.0/24"
DOCKER_NETWORK_GATEWAY="10.1.74.1"
`},
		{"dual stack", leaseOf("10.5.1.0/24,fd05:0:0:1::/64"), `DOCKER_OPT_BIP="--bip=10.5.1.1/24"
DOCKER_OPT_IPMASQ="--ip-masq=false"
DOCKER_OPT_IPV6="--ipv6=true --fixed-cidr-v6=fd05:0:0:1::/64"
DOCKER_OPT_MTU="--mtu=1450"
DOCKER_OPTS=" --bip=10.5.1.1/24 --ip-masq=false --ipv6=true --fixed-cidr-v6=fd05:0:0:1::/64 --mtu=1450"
DOCKER_NETWORK_SUBNET="10.5.1.0/24"
DOCKER_NETWORK_GATEWAY="10.5.1.1"
DOCKER_NETWORK_IPV6_SUBNET="fd05:0:0:1::/64"
DOCKER_NETWORK_IPV6_GATEWAY="fd05:0:0:1::1"
`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, Options(test.env)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
