//go:build linux

package cniplugin

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tulle/subnet"
	"tulle/subnet/flannel"
)

func dual(v4, v6 string) subnet.Subnets {
	var d subnet.Subnets
	if v4 != "" {
		d.V4 = netip.MustParsePrefix(v4)
	}
	if v6 != "" {
		d.V6 = netip.MustParsePrefix(v6)
	}
	return d
}

func dualEnv() flannel.Env {
	return flannel.Env{
		Network: dual("10.50.0.0/16", "fc00:50::/48"),
		Subnets: dual("10.50.7.0/24", "fc00:50:0:5d::/64"),
		MTU:     1450,
		IPMasq:  true,
	}
}

// The delegate gets what the flannel plugin 1.x was seen to give it, byte for byte.
func TestDelegateConfIsFlannels(t *testing.T) {
	const network = `{"name": "cbr0", "cniVersion": "0.3.1", "type": "flannel",
		"delegate": {"hairpinMode": true, "isDefaultGateway": true}, "runtimeConfig": {"mac": "00:11:22:33:44:66"}}`
	const want = `{"cniVersion":"0.3.1","hairpinMode":true,"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.50.7.0/24"}],[{"subnet":"fc00:50:0:5d::/64"}]],` +
		`"routes":[{"dst":"10.50.0.0/16"},{"dst":"fc00:50::/48"}],"type":"host-local"},"isDefaultGateway":true,"isGateway":true,"mtu":1450,` +
		`"name":"cbr0","runtimeConfig":{"mac":"00:11:22:33:44:66"},"type":"bridge"}`
	if got := delegateOf(t, network, dualEnv()); got != want {
		t.Errorf("delegate's configuration differs (-want +got):\n%s", cmp.Diff(want, got))
	}
}

func TestDelegateConf(t *testing.T) {
	v4 := flannel.Env{Network: dual("10.50.0.0/16", ""), Subnets: dual("10.50.7.0/24", ""), MTU: 1450}
	lists := v4
	lists.More = []netip.Prefix{netip.MustParsePrefix("10.60.0.0/16"), netip.MustParsePrefix("fd00::/48")}
	const ipam = `"ipam":{"ranges":[[{"subnet":"10.50.7.0/24"}]],"routes":[{"dst":"10.50.0.0/16"}],"type":"host-local"}`
	for name, tt := range map[string]struct {
		conf string
		env  flannel.Env
		want string
	}{
		"nothing said": {`{"name":"n"}`, v4, `{"ipMasq":true,` + ipam + `,"isGateway":true,"mtu":1450,"name":"n","type":"bridge"}`},
		"all said": {`{"name":"n","delegate":{"ipMasq":false,"mtu":1400,"isGateway":false,"bridge":"br1"}}`, v4,
			`{"bridge":"br1","ipMasq":false,` + ipam + `,"isGateway":false,"mtu":1400,"name":"n","type":"bridge"}`},
		"another delegate": {`{"name":"n","delegate":{"type":"macvlan","master":"eth0"}}`, v4,
			`{"ipMasq":true,` + ipam + `,"master":"eth0","mtu":1450,"name":"n","type":"macvlan"}`},
		"address management": {`{"name":"n","ipam":{"type":"x","ranges":[],"dataDir":"/d","routes":[{"dst":"10.9.0.0/16","gw":"10.50.7.9"}]}}`, v4,
			`{"ipMasq":true,"ipam":{"dataDir":"/d","ranges":[[{"subnet":"10.50.7.0/24"}]],` +
				`"routes":[{"dst":"10.9.0.0/16","gw":"10.50.7.9"},{"dst":"10.50.0.0/16"}],"type":"x"},"isGateway":true,"mtu":1450,"name":"n","type":"bridge"}`},
		"lists of networks": {`{"name":"n"}`, lists,
			`{"ipMasq":true,"ipam":{"ranges":[[{"subnet":"10.50.7.0/24"}]],"routes":[{"dst":"10.50.0.0/16"},{"dst":"10.60.0.0/16"},{"dst":"fd00::/48"}],"type":"host-local"},` +
				`"isGateway":true,"mtu":1450,"name":"n","type":"bridge"}`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := delegateOf(t, tt.conf, tt.env); got != tt.want {
				t.Errorf("delegate's configuration differs (-want +got):\n%s", cmp.Diff(tt.want, got))
			}
		})
	}
}

func delegateOf(t *testing.T, network string, env flannel.Env) string {
	t.Helper()
	c, err := parseConf([]byte(network))
	if err != nil {
		t.Fatal(err)
	}
	got, err := delegateConf(c, env)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

func TestParseConfRefuses(t *testing.T) {
	for conf, want := range map[string]string{
		`{"name":"n"`:                               "network configuration: ",
		`{"name":"n","delegate":7}`:                 "delegate",
		`{"name":"n","delegate":{"name":"x"}}`:      `delegate.name is "x", must be absent`,
		`{"name":"n","delegate":{"ipam":{}}}`:       `delegate.ipam is {}, must be absent: put it beside`,
		`{"name":"n","delegate":{"type":["x"]}}`:    `delegate.type is ["x"], must be a string such as "bridge"`,
		`{"name":"n","ipam":{"type":1}}`:            `ipam.type is 1, must be a string such as "host-local"`,
		`{"name":"n","ipam":{"routes":"10.0.0.0"}}`: `ipam.routes is "10.0.0.0", must be a list`,
		`{"name":"n","subnetFile":false}`:           "subnetFile",
	} {
		c, err := parseConf([]byte(conf))
		if err == nil {
			err = c.check()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want it to say %s", conf, err, want)
		}
	}
}

func TestParseConfDefaults(t *testing.T) {
	c, err := parseConf([]byte(`{"name":"n","unknown":{"member":1},"` + validAttachments + `":null}`))
	if err != nil {
		t.Fatal(err)
	}
	want := conf{Name: "n", SubnetFile: "/run/flannel/subnet.env", DataDir: "/var/lib/cni/flannel", RunDir: "/run/tulle", attachments: json.RawMessage("null")}
	if diff := cmp.Diff(want, c, cmp.AllowUnexported(conf{})); diff != "" {
		t.Errorf("configuration differs (-want +got):\n%s", diff)
	}
}
