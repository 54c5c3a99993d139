//go:build linux

package docker

import (
	"strings"
	"testing"
)

func TestDaemonCheck(t *testing.T) {
	settings, lease := Settings(leaseOf("10.5.1.0/24,fd05:0:0:1::/64"), Version{20, 10}), leaseOf("10.5.1.0/24,fd05:0:0:1::/64").Subnets
	for _, test := range []struct{ args, want string }{
		{"-H fd:// --containerd=/run/containerd/containerd.sock", ""},
		{"--mtu 1400 --bip=10.9.0.1/24 --ip-masq-not=1 mtu", "--mtu 1400 and --bip=10.9.0.1/24"},
		{"--ipv6 --ip-masq=false", "--ipv6 and --ip-masq=false"},
		{"--bridge=br9", "--bridge=br9"},
		{"-b br9", "-b br9"},
		{"-Dbbr9", "-Dbbr9"},
		{"-D -b=none", "-b=none"},
		{"-H -b", ""},
		{"--bridge=", ""},
		{"--default-gateway 10.5.1.9 --fixed-cidr=10.5.1.128/25", ""},
		{"--default-gateway 10.5.2.9 --fixed-cidr=10.5.0.0/16", "--default-gateway 10.5.2.9 and --fixed-cidr=10.5.0.0/16"},
		{"--default-gateway-v6=fd05:0:0:1::9 --bip6=fd05:0:0:2::1/64", "--bip6=fd05:0:0:2::1/64"},
		{"--default-gateway-v6", ""},
		{"-- --mtu=1400", ""},
	} {
		d := Daemon{PID: 1, Args: strings.Fields(test.args)}
		err := d.Check(settings, lease)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), "dockerd runs with "+test.want+", and")) {
			t.Errorf("dockerd %s: error %v, want one about %q", test.args, err, test.want)
		}
	}
}
