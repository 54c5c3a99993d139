//go:build linux

package lab_test

import (
	"net/netip"
	"strings"
	"testing"

	"tulle/internal/lab"
	"tulle/internal/trouble"
	"tulle/ip"
)

// replaceDefaults has the default route of each family lead the same way by other means. GW stands for its gateway, and N for the family.
func replaceDefaults(t *testing.T, l *lab.Lab, host *lab.Host, commands string) {
	t.Helper()
	for _, f := range ip.Families() {
		number := strings.TrimPrefix(f.String(), "ipv")
		for command := range strings.Lines(commands) {
			command = strings.NewReplacer("GW", l.RouterAddr(f, host.Segment).String(), "N", number).Replace(command)
			args := strings.Fields(command)
			if !strings.Contains(command, " group ") { // which has no family
				args = append([]string{"-" + number}, args...)
			}
			run(t, host, "", "ip", args...)
		}
	}
}

// objectsAlone has the kernel tell of routes by nexthop objects without their interfaces and gateways.
func objectsAlone(t *testing.T, host *lab.Host) {
	t.Helper()
	run(t, host, "", "sysctl", "-qw", "net.ipv4.nexthop_compat_mode=0")
}

// The uplink is found wherever the kernel has the default route: by a nexthop object that alone names the interface, or in a table to which a
// rule leads. It is the one by which the kernel sends, though another leads elsewhere.
func TestDefaultRouteInOtherForms(t *testing.T) {
	for name, commands := range map[string]string{
		"nexthop object": `nexthop add id N via GW dev eth0
			route replace default nhid N metric 1024
			route add default dev idle0 metric 2000`,
		"group of nexthop objects": `nexthop add id N via GW dev eth0
			nexthop add id N0 group N
			route replace default nhid N0 metric 1024`,
		"table of a rule": `route add default via GW dev eth0 table 100
			rule add pref 40000 lookup 100
			route del default`,
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, lab.Config{Hosts: 2, Containers: 1, FindUplink: true})
			begin(t, l)
			host := l.Hosts[0]
			objectsAlone(t, host)
			addVPN(t, host, "idle0")
			if strings.HasPrefix(commands, "nexthop") {
				run(t, host, "", "ip", "-4", "route", "del", "default")
				run(t, host, "", "ip", "-6", "route", "del", "default")
			}
			replaceDefaults(t, l, host, commands)
			startTulled(t, host)
			startTulled(t, l.Hosts[1])
			var st uplinkStatus
			if err := host.Status(t.Context(), &st); err != nil || st.Uplink.Link != "eth0" {
				t.Errorf("uplink %+v, %v, want eth0", st.Uplink, err)
			}
			if err := l.StartContainers(t.Context()); err != nil {
				t.Fatal(err)
			}
			requireMatrix(t, l)
		})
	}
}

// A route of another program into a peer's subnet is told though it names nothing but a nexthop object, and no other route is taken for it.
func TestShadowedByNexthopObject(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 2, Containers: 1})
	host := l.Hosts[0]
	objectsAlone(t, host)
	env, err := l.Hosts[1].ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range ip.Families() {
		peer := env.Subnets.Of(f).Masked()
		upper := netip.PrefixFrom(ip.Last(peer), peer.Bits()+1).Masked()
		for name, object := range map[string]string{"gateway": "via " + l.RouterAddr(f, 1).String() + " dev eth0", "blackhole": "blackhole"} {
			t.Run(f.String()+" "+name, func(t *testing.T) {
				rest(t, host)
				row := shadowRow{}
				row.do(t, host, f, []string{"nexthop add id 7 " + object, "route add " + upper.String() + " nhid 7"})
				var st uplinkStatus
				if !eventually(healTimeout, func() bool {
					st = uplinkStatus{}
					return host.Status(t.Context(), &st) == nil && !st.Ready && st.Troubles.Has(trouble.RouteShadowed)
				}) {
					t.Errorf("not told: ready %t, %+v", st.Ready, st.Troubles)
				}
				row.do(t, host, f, []string{"nexthop del id 7"}) // the route goes with it
				rest(t, host)
			})
		}
	}
	requireMatrix(t, l)
}
