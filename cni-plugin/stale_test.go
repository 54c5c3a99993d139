//go:build linux

package cniplugin

import (
	"net/netip"
	"strings"
	"testing"
)

func TestStale(t *testing.T) {
	for name, tt := range map[string]struct{ addrs, want string }{
		"no address":                     {"", ""},
		"today's":                        {"10.50.7.1/24 fc00:50:0:5d::1/64 fe80::1/64", ""},
		"an earlier lease's":             {"10.50.8.1/24 fc00:50:0:5e::1/64", "10.50.8.1/24 and fc00:50:0:5e::1/64"},
		"an earlier lease's of one kind": {"10.50.7.1/24 fc00:50:0:5e::1/64", "fc00:50:0:5e::1/64"},
		"both":                           {"10.50.7.1/24 10.50.8.1/24", "10.50.8.1/24"},
		"another length":                 {"10.50.7.1/25", "10.50.7.1/25"},
		"an earlier network's":           {"10.9.8.1/24 fd00:9::1/64", "10.9.8.1/24 and fd00:9::1/64"},
		"the operator's":                 {"192.0.2.7/24 2001:db8::7/64", ""},
		"the operator's beside today's":  {"10.50.7.1/24 192.0.2.1/24 fc00:50:0:5d::1/64 2001:db8::1/64", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var addrs []netip.Prefix
			for text := range strings.FieldsSeq(tt.addrs) {
				addrs = append(addrs, netip.MustParsePrefix(text))
			}
			if got := join(stale(addrs, dualEnv())); got != tt.want {
				t.Errorf("stale(%s) = %s, want %s", tt.addrs, got, tt.want)
			}
		})
	}
}
