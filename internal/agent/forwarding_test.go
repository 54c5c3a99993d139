package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"tulle/internal/trouble"
	"tulle/ip"
)

// dockerForward are chains in which Docker drops what comes from other hosts.
const dockerForward = `*filter
:FORWARD DROP
:DOCKER-USER -
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i docker0 -j ACCEPT
COMMIT
`

// Filters that drop are opened as they come, for each way to other hosts, and closed when they go.
func TestOpensFilters(t *testing.T) {
	for _, test := range []struct{ config, link string }{
		{`{"Network":"10.5.0.0/16"}`, "flannel.1"},
		{`{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}`, "eth0"},
	} {
		simulate(t, test.config, 2, func(t *testing.T, w *world) {
			w.start()
			w.converged(soon)
			a := w.hosts[0]
			own := a.agent.Status().Of("").Lease.Subnets[0]
			gateway := netip.PrefixFrom(own.Addr().Next(), own.Bits())
			a.kernel.AddInterface(ip.Interface{Name: "docker0", MTU: 1450, Up: true, Addrs: []ip.InterfaceAddr{{Prefix: gateway}}})
			has := func(want ...string) {
				t.Helper()
				w.within(soon, fmt.Sprintf("openings %q", want), func(h *node) bool {
					var got []string
					for _, o := range a.owned().Openings {
						got = append(got, strings.TrimSuffix(ip.Op{Verb: ip.Add, New: o}.String(), " -m comment --comment tulle -j ACCEPT"))
					}
					return slices.Equal(got, want) && h.agent.Status().Ready && len(h.drift()) == 0
				})
			}
			has()
			in := fmt.Sprintf(" -s 10.5.0.0/16 -d %s -i %s", own, test.link)
			out := fmt.Sprintf(" -s %s -d 10.5.0.0/16 -o %s", own, test.link)
			a.kernel.Restore(ip.IPTables, ip.IPv4, "*filter\n:FORWARD DROP\nCOMMIT\n")
			has("iptables-legacy -t filter -A FORWARD -d "+own.String()+" -i eth0 -m conntrack --ctstate RELATED,ESTABLISHED",
				"iptables-legacy -t filter -I FORWARD"+in,
				"iptables-legacy -t filter -A FORWARD -s "+own.String()+" -o eth0",
				"iptables-legacy -t filter -I FORWARD"+out)
			a.kernel.Restore(ip.NFTables, ip.IPv4, dockerForward)
			a.kernel.Restore(ip.IPTables, ip.IPv4, "*filter\n:FORWARD ACCEPT\nCOMMIT\n")
			has("iptables -t filter -I DOCKER-USER" + in)
			a.kernel.Restore(ip.NFTables, ip.IPv4, dockerForward) // Docker restarts
			has("iptables -t filter -I DOCKER-USER" + in)
			a.kernel.Restore(ip.NFTables, ip.IPv4, "*filter\n:FORWARD ACCEPT\nCOMMIT\n")
			has()
		})
	}
}

// A filter that is not to be opened makes the host unready and is named; a doubtful one is only named.
func TestNamesFiltersThatDrop(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		a := w.hosts[0]
		filter := ip.Filter{
			Place: ip.Place{Engine: ip.NFTables, Table: "fw", Chain: "fwd"}, Hook: ip.AtForward, Policy: ip.Drop,
			Rules: []ip.FilterRule{{More: true, Verdict: ip.Accept}},
		}
		const remedy = " packets between containers of this host and others: its owner must accept them first in that chain, as by " +
			"nft insert rule inet fw fwd ip saddr 10.5.0.0/16 ip daddr 10.5.0.0/16 accept"
		says := func(ready bool, what string) {
			t.Helper()
			w.within(2*time.Second, "named", func(h *node) bool {
				st := h.agent.Status()
				return h != a || st.Ready == ready && strings.Join(h.texts(trouble.ForwardBlocked, trouble.ForwardUncertain), "\n") == what && (ready || st.Reason == what)
			})
		}
		a.kernel.SetFilters(filter)
		says(true, "nft table inet fw chain fwd may drop, for a rule in it is not understood,"+remedy)
		filter.Rules = nil
		a.kernel.SetFilters(filter)
		says(false, "nft table inet fw chain fwd drops"+remedy)
		filter.Policy = ip.Accept
		a.kernel.SetFilters(filter)
		says(true, "")
	})
}

// On a bridge that is not Docker's, containers of one host reach each other, and published ports are reached, through a policy to drop. What
// Docker protects stays protected, by whichever name it calls its bridge.
func TestOpensBridgesThatAreNotDockers(t *testing.T) {
	const dropped = "*filter\n:FORWARD DROP\nCOMMIT\n"
	for _, test := range []struct {
		bridge, rules string
		opened        bool
	}{
		{"cni0", dropped, true},
		{"podman0", dropped, true},
		{"br-lan", dropped, true},
		{"docker0", dropped, false},
		{"br-0123456789ab", dropped, false},
		{"fabric0", dropped, true},
		{"fabric0", strings.Replace(dockerForward, "COMMIT", ":DOCKER -\n-A FORWARD -o fabric0 -j DOCKER\nCOMMIT", 1), false},
		{"fabric0", strings.Replace(dockerForward, "COMMIT", ":DOCKER -\n-A FORWARD -j DOCKER\n-A DOCKER ! -i fabric0 -o fabric0 -j DROP\nCOMMIT", 1), false},
		{"cni0", dockerForward, true},
	} {
		t.Run(test.bridge, func(t *testing.T) {
			simulate(t, `{"Network":"10.5.0.0/16"}`, 2, func(t *testing.T, w *world) {
				w.start()
				w.converged(soon)
				a := w.hosts[0]
				own := a.agent.Status().Of("").Lease.Subnets[0]
				gateway := netip.PrefixFrom(own.Addr().Next(), own.Bits())
				a.kernel.AddInterface(ip.Interface{Name: test.bridge, MTU: 1450, Up: true, Addrs: []ip.InterfaceAddr{{Prefix: gateway}}})
				a.kernel.Restore(ip.NFTables, ip.IPv4, test.rules)
				local := func() (n int) {
					for _, o := range a.owned().Openings {
						if answers := o.Known && o.Src.IsValid(); o.DNAT || answers || o.In == test.bridge {
							n++
						}
					}
					return n
				}
				const all = 4 // published ports, their answers, own to own, own to multicast
				w.within(soon, "openings", func(h *node) bool {
					return h != a || h.agent.Status().Ready && len(h.drift()) == 0 && len(a.owned().Openings) > 0
				})
				if n := local(); n != map[bool]int{true: all}[test.opened] {
					t.Errorf("%d openings for %s, want %d or none: %t", n, test.bridge, all, test.opened)
				}
			})
		})
	}
}

// What only the world outside needs is told, and keeps no host from being ready.
func TestNamesFiltersThatDropOutside(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		a := w.hosts[0]
		own := a.agent.Status().Of("").Lease.Subnets[0]
		gateway := netip.PrefixFrom(own.Addr().Next(), own.Bits())
		a.kernel.AddInterface(ip.Interface{Name: "cni0", MTU: 1450, Up: true, Addrs: []ip.InterfaceAddr{{Prefix: gateway}}})
		inside := ip.Match{Prefix: netip.MustParsePrefix("10.5.0.0/16")}
		a.kernel.SetFilters(ip.Filter{
			Place: ip.Place{Engine: ip.NFTables, Table: "fw", Chain: "fwd"}, Hook: ip.AtForward, Policy: ip.Drop,
			Rules: []ip.FilterRule{
				{Known: true, Verdict: ip.Accept}, {Src: inside, Dst: inside, Verdict: ip.Accept},
				{Src: inside, Dst: ip.Match{Prefix: ip.IPv4.Multicast()}, Verdict: ip.Accept},
			},
		})
		const want = "nft table inet fw chain fwd drops packets from the outside to published ports of containers and from containers to the outside: " +
			"if that is not on purpose, its owner must accept them there, before; list it with nft list chain inet fw fwd"
		w.within(2*time.Second, "named", func(h *node) bool {
			st := h.agent.Status()
			return h != a || st.Ready && strings.Join(h.texts(trouble.OutsideBlocked), "\n") == want
		})
	})
}
