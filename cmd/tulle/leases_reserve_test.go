//go:build linux

package main

import (
	"bytes"
	"strings"
	"testing"

	"tulle/internal/etcdmember/etcdmembertest"
)

// No reservation is written that no host would take, or that others would refuse.
func TestReserveRefuses(t *testing.T) {
	store := []string{"--etcd-endpoints", strings.Join(etcdmembertest.Start(t).Endpoints(), ",")}
	tulle := func(args ...string) (int, string) {
		var output bytes.Buffer
		code := run(t.Context(), append(args, store...), &output, &output)
		return code, output.String()
	}
	const reach = "address by which other hosts reach the host\n"
	for _, tt := range []struct {
		config string // written before
		args   string
		code   int
		says   string
	}{
		{"", "10.5.34.0/24 --public-ip 127.0.0.1", exitUsage, `tulle: --public-ip is "127.0.0.1", at which no host is reached from others: give the ipv4 ` + reach},
		{"", "10.5.34.0/24 --public-ip 0.0.0.0", exitUsage, "at which no host is reached"},
		{"", "10.5.34.0/24 --public-ip 224.0.0.5", exitUsage, "at which no host is reached"},
		{"", "10.5.34.0/24 --public-ip 255.255.255.255", exitUsage, "at which no host is reached"},
		{"", "10.5.34.0/24 --public-ip fd00::1", exitUsage, `--public-ip is "fd00::1", which is not an ipv4 address`},
		{"", "10.5.34.0/24 --public-ip 10.5.34.7", exitUsage, `--public-ip is "10.5.34.7", which lies in 10.5.34.0/24 itself, where containers will be: give the ipv4 ` + reach},
		{"", "10.5.34.0/24 --public-ipv6 ::ffff:192.0.2.7", exitUsage, `--public-ipv6 is "::ffff:192.0.2.7", which is not an ipv6 address`},
		{"", "10.5.34.0/24 --public-ipv6 fd00::1%eth0", exitUsage, "which is not an ipv6 address"},
		{"", "10.5.34.0/24 --public-ipv6 fe80::1", exitUsage, "at which no host is reached"},
		{"", "10.5.34.0/24 --public-ipv6 ::1", exitUsage, "at which no host is reached"},
		{"", "10.5.34.0/24 --public-ipv6 ff02::1", exitUsage, "at which no host is reached"},
		{"", "10.5.34.0/24,fd00:5::/64 --public-ipv6 fd00:5::7", exitUsage, "which lies in fd00:5::/64 itself"},
		// Before there is a configuration, anything may come to fit.
		{"", "10.9.1.0/24 --public-ip 192.0.2.7", exitOK, "reserved 10.9.1.0-24 for 192.0.2.7\n"},

		{`{"Network":"10.5.0.0/16","SubnetMin":"10.5.9.0"}`, "10.9.2.0/24 --public-ip 192.0.2.8", exitFailed,
			"tulle: SUBNET has 10.9.2.0/24, which hosts of the network do not take: give a /24 of 10.5.0.0/16, from 10.5.9.0 to 10.5.255.0\n"},
		{"", "10.5.34.0/25 --public-ip 192.0.2.8", exitFailed, "do not take: give a /24"},
		{"", "10.5.32.0/23 --public-ip 192.0.2.8", exitFailed, "do not take: give a /24"},
		{"", "10.5.1.0/24 --public-ip 192.0.2.8", exitFailed, "do not take: give a /24"},
		{"", "10.5.34.0/24,fd00:5:0:1::/64 --public-ip 192.0.2.8", exitFailed, "SUBNET has fd00:5:0:1::/64, and the network configuration has no ipv6: leave it out"},
		{"", "10.5.34.0/24 --public-ip 192.0.2.8", exitOK, "reserved 10.5.34.0-24 for 192.0.2.8\n"},
		{"", "10.5.34.0/24", exitOK, "reserved 10.5.34.0-24 for 192.0.2.8\n"},
		{"", "10.5.35.0/24 --public-ip 10.5.34.3", exitFailed, "SUBNET is 10.5.35.0-24, which hosts would refuse: its public address 10.5.34.3 lies in 10.5.34.0/24, the subnet of an older lease: choose another"},
		{"", "10.5.34.0/24 --public-ip 192.0.2.9", exitFailed, "release it first"},

		{`{"Network":"10.5.0.0/16","IPv6Network":"fd00:5::/48","EnableIPv6":true}`, "10.5.36.0/24 --public-ip 192.0.2.8", exitFailed,
			"SUBNET is 10.5.36.0-24, and lacks the ipv6 subnet that each host of the network has: give a /64 of fd00:5::/48, from fd00:5:0:1:: to fd00:5:0:ffff:: too"},
	} {
		if tt.config != "" {
			if code, says := tulle("config", "set", tt.config); code != exitOK {
				t.Fatalf("configuration: %s", says)
			}
		}
		if code, says := tulle(append([]string{"leases", "reserve"}, strings.Fields(tt.args)...)...); code != tt.code || !strings.Contains(says, tt.says) {
			t.Errorf("%s: exit code %d, says %q; want code %d and %q", tt.args, code, says, tt.code, tt.says)
		}
	}
}
