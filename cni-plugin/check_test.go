//go:build linux

package cniplugin

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"tulle/ip/kernel/bridge"
)

func TestCheckInterface(t *testing.T) {
	const result = `{"routes":[{"dst":"0.0.0.0/0","gw":"10.50.7.1"},{"dst":"::/0"},{"dst":"10.50.0.0/16"}]}`
	fine := func() bridge.Interface {
		return bridge.Interface{
			MTU:    1450,
			Routes: []netip.Prefix{netip.MustParsePrefix("::/0"), netip.MustParsePrefix("10.50.0.0/16"), netip.MustParsePrefix("0.0.0.0/0")},
			Addrs: []netip.Prefix{
				netip.MustParsePrefix("10.50.7.2/24"), netip.MustParsePrefix("fc00:50:0:5d::2/64"), netip.MustParsePrefix("fe80::2/64"),
			},
		}
	}
	for name, tt := range map[string]struct {
		spoil  func(*bridge.Interface)
		result string
		want   string
	}{
		"as it was":        {func(*bridge.Interface) {}, result, ""},
		"smaller MTU":      {func(i *bridge.Interface) { i.MTU = 1300 }, result, ""},
		"larger MTU":       {func(i *bridge.Interface) { i.MTU = 1500 }, result, "MTU is 1500, must be at most the 1450"},
		"route gone":       {func(i *bridge.Interface) { i.Routes = i.Routes[1:] }, result, "the route to ::/0 is gone"},
		"network gone":     {func(i *bridge.Interface) { i.Routes = slices.Delete(i.Routes, 1, 2) }, result, "the route to 10.50.0.0/16 is gone"},
		"never a route":    {func(i *bridge.Interface) { i.Routes = nil }, `{}`, ""},
		"address gone":     {func(i *bridge.Interface) { i.Addrs = i.Addrs[1:] }, result, "no address in 10.50.7.0/24, this host's ipv4 subnet"},
		"another lease":    {func(i *bridge.Interface) { i.Addrs[1] = netip.MustParsePrefix("fc00:50:0:5e::2/64") }, result, "address fc00:50:0:5e::2 is not in fc00:50:0:5d::/64"},
		"result not JSON":  {func(*bridge.Interface) {}, `{`, "prevResult"},
		"other interfaces": {func(i *bridge.Interface) { i.Addrs = append(i.Addrs, netip.MustParsePrefix("169.254.1.1/16")) }, result, ""},
	} {
		t.Run(name, func(t *testing.T) {
			i := fine()
			tt.spoil(&i)
			err := checkInterface(i, json.RawMessage(tt.result), dualEnv())
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want it to say %q", err, tt.want)
			}
		})
	}
}
