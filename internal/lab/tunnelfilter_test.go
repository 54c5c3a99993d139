//go:build linux

package lab_test

import (
	"strings"
	"testing"

	"tulle/internal/lab"
	"tulle/internal/trouble"
	"tulle/ip"
)

// hostFirewall is what a host is often given that is to be reached by ssh alone.
const hostFirewall = `*filter
:INPUT DROP
:FORWARD ACCEPT
:OUTPUT ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p ICMP -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
COMMIT
`

// What drops the packets of the tunnel on a host is named there, by table and chain, and what is said to help does.
func TestTunnelBlockedIsNamed(t *testing.T) {
	for _, f := range ip.Families() {
		t.Run(f.String(), func(t *testing.T) {
			l := upLab(t, lab.Config{Hosts: 2, Containers: 1, Families: []ip.Family{f}})
			requireMatrix(t, l)
			host, peer := l.Hosts[0], l.Hosts[1]
			program, icmp := map[ip.Family]string{ip.IPv4: "iptables", ip.IPv6: "ip6tables"}[f], map[ip.Family]string{ip.IPv4: "icmp", ip.IPv6: "ipv6-icmp"}[f]
			firewall := strings.ReplaceAll(hostFirewall, "ICMP", icmp)
			for _, test := range []struct{ name, load, rules, clear, want string }{
				{"iptables-nft", program + "-nft-restore", firewall, program + "-nft -P INPUT ACCEPT", "nft table " + map[ip.Family]string{ip.IPv4: "ip", ip.IPv6: "ip6"}[f] + " filter chain INPUT drops"},
				{"iptables-legacy", program + "-legacy-restore", firewall, program + "-legacy -P INPUT ACCEPT", program + "-legacy table filter chain INPUT drops"},
				{"nft", "nft -f -", "table inet fw {\nchain input {\ntype filter hook input priority 0; policy drop;\niif lo accept\nct state established,related accept\n" +
					"meta l4proto { icmp, ipv6-icmp } accept\ntcp dport { 22, 9100 } accept\nudp dport { 53, 123 } accept\n}\n}\n", "nft delete table inet fw", "nft table inet fw chain input drops"},
				{"raw", program + "-legacy-restore", "*raw\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\n-A PREROUTING -p udp -m udp --dport 8000:9000 -j DROP\nCOMMIT\n",
					program + "-legacy -t raw -F", program + "-legacy table raw chain PREROUTING drops"},
				{"output", "nft -f -", "table inet fw {\nchain output {\ntype filter hook output priority 0;\nudp dport 8472 reject\n}\n}\n",
					"nft delete table inet fw", "nft table inet fw chain output drops"},
			} {
				t.Run(test.name, func(t *testing.T) {
					load := strings.Fields(test.load)
					run(t, host, test.rules, load[0], load[1:]...)
					defer func() {
						clear := strings.Fields(test.clear)
						run(t, host, "", clear[0], clear[1:]...)
						if !eventually(healTimeout, func() bool { ready, _ := host.Ready(t.Context()); return ready }) {
							t.Error("not ready with the rules gone")
						}
					}()
					var reason string
					if !eventually(healTimeout, func() bool {
						var ready bool
						ready, reason = host.Ready(t.Context())
						return !ready && strings.Contains(reason, test.want) && strings.Contains(reason, peer.Addr.Of(f).String())
					}) {
						t.Fatalf("readyz says %q, want %q", reason, test.want)
					}
					var status struct{ Troubles trouble.List }
					if err := host.Status(t.Context(), &status); err != nil {
						t.Fatal(err)
					}
					if text := strings.Join(status.Troubles.Texts(trouble.TunnelBlocked), "\n"); text != reason {
						t.Errorf("status says %q, readyz %q", text, reason)
					}
					if matrix, err := l.Matrix(t.Context()); err != nil || matrix.Pass {
						t.Errorf("packets pass all the same, %v", err)
					}
					_, remedy, _ := strings.Cut(reason, ": run ")
					words := strings.Fields(remedy)
					run(t, host, "", words[0], words[1:]...)
					if !eventually(healTimeout, func() bool { ready, _ := host.Ready(t.Context()); return ready }) {
						t.Errorf("not ready after %s", remedy)
					}
					requireMatrix(t, l)
				})
			}
		})
	}
}
