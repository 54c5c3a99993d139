package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

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
			own := a.agent.Status().Lease.Subnets[0]
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
				return h != a || st.Ready == ready && strings.Join(st.Blocked, "\n") == what && (ready || st.Reason == what)
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
