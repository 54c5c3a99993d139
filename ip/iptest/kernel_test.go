package iptest_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"

	"tulle/ip"
	"tulle/ip/iptest"
)

// other is another program on the host of the Kernel.
type other struct{ *iptest.Kernel }

func (o other) Apply(_ context.Context, plan ip.Plan) error { return o.External(plan) }

func TestConformance(t *testing.T) {
	iptest.Conformance(t, func(*testing.T) iptest.World {
		k := iptest.New()
		up := map[string]ip.Interface{}
		var rules []iptest.Rule
		var routes []iptest.TableRoute
		set := func() { k.SetPolicy(rules, routes) }
		return iptest.World{
			Kernel: k,
			Other:  other{k},
			AddInterface: func(name string, addrs ...netip.Prefix) {
				i := ip.Interface{Name: name, MTU: 1500, Up: true}
				for _, a := range addrs {
					i.Addrs = append(i.Addrs, ip.InterfaceAddr{Prefix: a})
				}
				up[name] = i
				k.AddInterface(i)
			},
			AddRoute: func(r iptest.TableRoute) { routes = append(routes, r); set() },
			DelRoute: func(r iptest.TableRoute) {
				routes = slices.DeleteFunc(routes, func(o iptest.TableRoute) bool { return o == r })
				set()
			},
			AddRule: func(r iptest.Rule) { rules = append(rules, r); set() },
			DelRule: func(r iptest.Rule) {
				rules = slices.DeleteFunc(rules, func(o iptest.Rule) bool { return o == r })
				set()
			},
			Restore: k.Restore,
			Knock:   func(_ string, from, _ netip.Addr, tunnel ip.Tunnel, inner netip.Addr) { k.Knock(from, tunnel, inner) },
			Forward: k.Forward,
			SetInterface: func(name string, isUp bool) {
				i := up[name]
				i.Up = isUp
				k.SetInterface(i)
			},
		}
	})
}
