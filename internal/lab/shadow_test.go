//go:build linux

package lab_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/internal/trouble"
	"tulle/ip"
)

// addVPN gives a host a second way out, as a VPN does, which leads nowhere.
func addVPN(t *testing.T, host *lab.Host, link string) {
	t.Helper()
	for command := range strings.Lines(`link add LINK type veth peer name LINK-end
		link set LINK-end up
		link set LINK up
		address add 10.8.0.2/24 dev LINK
		address add fd08::2/64 dev LINK nodad`) {
		run(t, host, "", "ip", strings.Fields(strings.ReplaceAll(command, "LINK", link))...)
	}
}

// Whatever on a host leads packets to a peer astray is told within two seconds, with the peer, and the host is ready again within two seconds of
// its end.
func TestShadowedRoutes(t *testing.T) {
	for _, backend := range bothBackends() {
		t.Run(backend, func(t *testing.T) {
			l := upLab(t, lab.Config{Hosts: 3, Containers: 1, Backend: map[string]any{"Type": backend}})
			requireMatrix(t, l)
			host := l.Hosts[0]
			addVPN(t, host, "tun0")
			for _, f := range ip.Families() {
				for _, row := range shadowRows(t, l, f, backend) {
					if backend == "host-gw" && row.tunnelled {
						continue
					}
					t.Run(fmt.Sprintf("%s %s", f, row.name), func(t *testing.T) {
						rest(t, host)
						row.do(t, host, f, row.begin)
						var st uplinkStatus
						if !eventually(healTimeout, func() bool {
							st = uplinkStatus{}
							return host.Status(t.Context(), &st) == nil && !st.Ready && slices.ContainsFunc(st.Troubles.Of(row.code), func(tr trouble.Trouble) bool {
								return strings.Contains(tr.Subject, strings.ReplaceAll(row.peer, "/", "-")) && strings.Contains(tr.Text, row.peer)
							})
						}) {
							t.Errorf("not told: ready %t, %+v", st.Ready, st.Troubles)
						}
						for _, tr := range st.Troubles.Of(row.code) {
							look, _, _ := strings.Cut(tr.Text, ", or have")
							for _, command := range asking.FindAllString(look, -1) {
								// What a packet that is dropped is asked about is refused with words of the kernel.
								out := run(t, host, "", "sh", "-c", command+" 2>&1 || true")
								if out == "" || strings.Contains(out, "Error") || strings.Contains(out, "Usage") || strings.Contains(out, "unknown") {
									t.Errorf("%s: %s", command, out)
								}
							}
						}
						row.do(t, host, f, row.end)
						if !eventually(healTimeout, func() bool {
							st = uplinkStatus{}
							return host.Status(t.Context(), &st) == nil && st.Ready && !st.Troubles.Has(row.code)
						}) {
							t.Errorf("not ready again: %s", st.Reason)
						}
					})
				}
			}
			requireMatrix(t, l)
		})
	}
}

// asking matches the commands of a text that ask.
var asking = regexp.MustCompile(`\bip (-6 )?(route (show|get)|rule\b)[^,;()]*`)

// shadowRow is one way to lead packets astray.
type shadowRow struct {
	name       string
	code       trouble.Code
	tunnelled  bool     // only where packets are: host-gw refuses a peer that is no neighbour
	peer       string   // that is named; empty: any
	begin, end []string // for ip(8)
}

func (shadowRow) do(t *testing.T, host *lab.Host, f ip.Family, commands []string) {
	t.Helper()
	for _, command := range commands {
		run(t, host, "", "ip", append([]string{"-" + strings.TrimPrefix(f.String(), "ipv")}, strings.Fields(command)...)...)
	}
}

func shadowRows(t *testing.T, l *lab.Lab, f ip.Family, backend string) []shadowRow {
	t.Helper()
	env, err := l.Hosts[1].ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	peer := env.Subnets.Of(f).Masked()
	upper := netip.PrefixFrom(ip.Last(peer), peer.Bits()+1).Masked()
	via, public := l.RouterAddr(f, 1).String(), l.Hosts[1].Addr.Of(f).String()
	own := l.Hosts[0].Addr.Of(f).String()
	env, err = l.Hosts[0].ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	lease := env.Subnets.Of(f).Masked()
	in := "eth0"
	if backend == "vxlan" {
		in = ip.Dual[string]{V4: "flannel.1", V6: "flannel-v6.1"}.Of(f)
	}
	row := func(name string, code trouble.Code, tunnelled bool, pairs ...string) shadowRow {
		r := shadowRow{name: name, code: code, tunnelled: tunnelled, peer: peer.String()}
		if strings.Contains(pairs[len(pairs)-1], "OWN") || strings.Contains(pairs[len(pairs)-1], "ONE") {
			r.peer = "" // it is all the same for all
		}
		for _, command := range pairs {
			command = strings.NewReplacer("LEASE", lease.String(), "NEXT", peer.Addr().String(), "VPN", ip.Dual[string]{V4: "10.8.0.1", V6: "fd08::1"}.Of(f), "UPPEROWN", netip.PrefixFrom(ip.Last(lease), lease.Bits()+1).Masked().String(), "ONE", ip.Last(lease).Prev().String(), "LOWEROWN", netip.PrefixFrom(lease.Addr(), lease.Bits()+1).String(), "TUNNEL", in, "PEER", peer.String(), "UPPER", upper.String(), "VIA", via, "HOST", public, "HERE", own,
				"NETWORK", l.Config.Network.Of(f).String()).Replace(command)
			r.begin = append(r.begin, strings.Replace(command, "DO", "add", 1))
			r.end = slices.Insert(r.end, 0, strings.Replace(command, "DO", "del", 1))
		}
		return r
	}
	shadowed, diverted := trouble.RouteShadowed, trouble.UplinkDiverted
	rows := []shadowRow{
		row("same prefix", shadowed, false, "route DO PEER via VIA metric 1"),
		row("blackhole", shadowed, false, "route DO blackhole PEER metric 1"),
		row("unreachable", shadowed, false, "route DO unreachable PEER metric 1"),
		row("longer prefix", shadowed, false, "route DO UPPER dev tun0"),
		row("rule for all", shadowed, true, "route DO default via VIA dev eth0 table 100", "rule DO from all lookup 100"),
		row("rule for the network", shadowed, false, "route DO default via VIA dev eth0 table 100", "rule DO from NETWORK lookup 100"),
		row("rule for the bridge that forbids", shadowed, false, "rule DO iif cni0 prohibit"),
		row("rule for the bridge that has no route", shadowed, false, "rule DO iif cni0 unreachable"),
		row("rule for the bridge that drops", shadowed, false, "rule DO iif cni0 blackhole"),
		row("rule for the bridge to where nothing leads", shadowed, false, "route DO unreachable default table 97", "rule DO iif cni0 lookup 97"),
		row("rule for answers that drops", shadowed, false, "rule DO to NETWORK iif TUNNEL blackhole"),
		row("rule for answers that leads away", shadowed, false, "route DO default dev tun0 table 96", "rule DO from PEER iif TUNNEL lookup 96"),
		row("longer prefix of the host's own", shadowed, false, "route DO LOWEROWN dev tun0"),
		row("another longer prefix of the host's own", shadowed, false, "route DO unreachable UPPEROWN"),
		row("rule for one container", shadowed, false, "route DO default dev tun0 table 94", "rule DO from ONE lookup 94"),
		row("rule for answers to one container", shadowed, false, "rule DO to ONE iif TUNNEL prohibit"),
		row("one hop of two", shadowed, true, "route DO default table 95 nexthop via NEXT dev TUNNEL onlink nexthop via VIA dev eth0", "rule DO from NETWORK to PEER lookup 95"),
		row("rule for the peer", shadowed, false, "route DO default dev tun0 table 99", "rule DO to PEER lookup 99"),
		row("peer through a VPN", diverted, false, "route DO HOST dev tun0"),
		row("peer to which a rule has no route", diverted, true, "rule DO to HOST unreachable"),
		row("host through a VPN", diverted, true, "route DO default dev tun0 table 98", "rule DO from HERE lookup 98"),
	}
	if f == ip.IPv4 {
		rows = append(rows, row("metric 0", shadowed, false, "route DO PEER via VIA"), row("blackhole of metric 0", shadowed, false, "route DO blackhole PEER"),
			row("peer's address taken for one of this host", diverted, true, "route DO local HOST dev lo"))
	} else {
		rows = append(rows, row("route for the lease alone", shadowed, false, "route DO PEER from LEASE dev tun0 metric 1"))
	}
	return rows
}

// What leads some packets astray, and it is not known whether there are such, is a warning with a command that helps. What leads none astray is none.
func TestUncertainRoutes(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 2, Containers: 1})
	requireMatrix(t, l)
	host := l.Hosts[0]
	addVPN(t, host, "tun0")
	env, err := l.Hosts[1].ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	status := func() (st uplinkStatus, ok bool) {
		err := host.Status(t.Context(), &st)
		return st, err == nil
	}
	quiet := func() bool {
		st, ok := status()
		return ok && st.Ready && !st.Troubles.Has(trouble.RouteUncertain)
	}
	for _, f := range ip.Families() {
		command := "ip " + map[ip.Family]string{ip.IPv6: "-6 "}[f]
		peer := env.Subnets.Of(f).Masked()
		// do has commands run, one in a line, until the test of the row ends.
		do := func(t *testing.T, commands string) (undo func()) {
			commands = strings.ReplaceAll(commands, "PEER", peer.String())
			run(t, host, "", "sh", "-ec", commands)
			return func() {
				lines := strings.Split(commands, "\n")
				slices.Reverse(lines)
				run(t, host, "", "sh", "-ec", strings.ReplaceAll(strings.Join(lines, "\n"), " add ", " del "))
			}
		}
		rows := map[string]string{
			"mark":               "ip route add default dev tun0 table 200; ip rule add fwmark 0x1 lookup 200",
			"some bits":          "ip rule add fwmark 0x2000/0x2000 blackhole",
			"not another mark":   "ip rule add priority 100 not fwmark 0x5 lookup main; ip rule add priority 101 prohibit",
			"port":               "ip route add default dev tun0 table 200; ip rule add ipproto tcp dport 443 lookup 200",
			"port of the host":   "ip rule add ipproto udp dport 8472 prohibit",
			"type of service":    "ip route add unreachable default table 200; ip rule add tos 0x10 lookup 200",
			"mark to the peer":   "ip rule add fwmark 0x7 to PEER prohibit",
			"mark of the answer": "ip rule add fwmark 0x7 from PEER prohibit",
		}
		if f == ip.IPv4 {
			rows["route for a type of service"] = "ip route add PEER tos 0x10 dev tun0"
		}
		in := func(row string) string { return strings.NewReplacer("ip ", command, "; ", "\n").Replace(row) }
		for name, row := range rows {
			t.Run(fmt.Sprintf("%s %s", f, name), func(t *testing.T) {
				rest(t, host)
				undo := do(t, in(row))
				defer func() { undo() }()
				var text string
				warned := func() bool {
					st, ok := status()
					ts := st.Troubles.Of(trouble.RouteUncertain)
					if !ok || !st.Ready || len(ts) != 1 || ts[0].Text == text {
						return false
					}
					text = ts[0].Text
					return true
				}
				if !eventually(healTimeout, warned) {
					st, _ := status()
					t.Fatalf("not told: %s %+v", st.Reason, st.Troubles)
				}
				for { // some have one thing to be done for containers, and another for what goes between hosts
					_, show, _ := strings.Cut(text, "(")
					show, _, _ = strings.Cut(show, ")")
					if run(t, host, "", "sh", "-ec", show) == "" {
						t.Errorf("%q shows nothing", show)
					}
					if _, remedy, found := strings.Cut(text, "asked before: "); found {
						defer do(t, remedy)()
					} else {
						undo()
						undo = func() {}
					}
					after := text
					if !eventually(healTimeout, func() bool { return quiet() || warned() }) {
						t.Fatalf("still told after what it says to do: %s", text)
					}
					if text == after {
						break
					}
				}
			})
		}
		for name, row := range map[string]string{
			"of wg-quick": "ip route add default dev tun0 table 200; ip rule add not fwmark 0xca6c lookup 200; ip rule add lookup main suppress_prefixlength 0",
			"of nothing":  "ip rule add fwmark 0x1 lookup 200; ip rule add oif tun0 prohibit; ip rule add to 198.18.0.0/15 fwmark 0x9 prohibit",
		} {
			if f == ip.IPv6 {
				row = strings.ReplaceAll(row, "198.18.0.0/15", "2001:db8::/32")
			}
			t.Run(fmt.Sprintf("%s rules %s", f, name), func(t *testing.T) {
				defer do(t, in(row))()
				rest(t, host)
				if !quiet() {
					st, _ := status()
					t.Errorf("told: %s %+v", st.Reason, st.Troubles)
				}
			})
		}
	}
	requireMatrix(t, l)
}

// Of two interfaces in one subnet packets leave by the first, though tulled is told to use the second.
func TestSecondInterfaceOfOneSubnet(t *testing.T) {
	l := newLab(t, lab.Config{Hosts: 2, Containers: 1, Families: []ip.Family{ip.IPv4}, FindUplink: true, DaemonArgs: func(h *lab.Host) []string {
		if h.Name == "h1" {
			return []string{"--iface", "eth1"}
		}
		return nil
	}})
	begin(t, l)
	host := l.Hosts[0]
	for command := range strings.Lines(`link add eth1 link eth0 type macvlan mode bridge
		link set eth1 up
		address add 172.30.1.101/24 dev eth1`) {
		run(t, host, "", "ip", strings.Fields(command)...)
	}
	for _, h := range l.Hosts {
		if err := h.StartDaemon(); err != nil {
			t.Fatal(err)
		}
	}
	var st uplinkStatus
	if !eventually(15*time.Second, func() bool {
		st = uplinkStatus{}
		return host.Status(t.Context(), &st) == nil && !st.Ready && st.Troubles.Has(trouble.UplinkDiverted)
	}) {
		t.Fatalf("not told: ready %t, uplink %+v, %+v", st.Ready, st.Uplink, st.Troubles)
	}
	text := st.Troubles.Of(trouble.UplinkDiverted)[0].Text
	_, remedy, _ := strings.Cut(text, "that leads there: ")
	remedy, _, _ = strings.Cut(remedy, ";")
	run(t, host, "", "sh", "-ec", remedy)
	if !eventually(healTimeout, func() bool { ready, _ := host.Ready(t.Context()); return ready }) {
		t.Errorf("not ready after what the text says: %s", text)
	}
}

// Packets are asked about for each bridge that holds a part of the lease.
func TestShadowedBehindSecondBridge(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 2, Containers: 1})
	host := l.Hosts[0]
	env, err := host.ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	run(t, host, "", "ip", "link", "add", "br-two", "up", "type", "bridge")
	for _, f := range ip.Families() {
		lease := env.Subnets.Of(f).Masked()
		half := lease.Bits() + 1
		upper := netip.PrefixFrom(ip.Last(lease), half).Masked()
		run(t, host, "", "ip", "address", "del", netip.PrefixFrom(lease.Addr().Next(), lease.Bits()).String(), "dev", "cni0")
		run(t, host, "", "ip", "address", "add", netip.PrefixFrom(lease.Addr().Next(), half).String(), "dev", "cni0", "nodad")
		run(t, host, "", "ip", "address", "add", netip.PrefixFrom(upper.Addr().Next(), half).String(), "dev", "br-two", "nodad")
	}
	requireMatrix(t, l)
	ready := func() bool { ready, _ := host.Ready(t.Context()); return ready }
	for _, f := range ip.Families() {
		shadowRow{}.do(t, host, f, []string{"rule add iif br-two blackhole"})
	}
	for _, f := range ip.Families() {
		again := "ask again with ip " + map[ip.Family]string{ip.IPv6: "-6 "}[f] + "route get"
		if !eventually(healTimeout, func() bool {
			return !ready() && named(t, host, trouble.RouteShadowed, "iif br-two") && named(t, host, trouble.RouteShadowed, again)
		}) {
			t.Errorf("%s: not told", f)
		}
		shadowRow{}.do(t, host, f, []string{"rule del iif br-two blackhole"})
	}
	if !eventually(healTimeout, ready) {
		t.Error("not ready again")
	}
}
