package kernel_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"tulle/internal/netns/netnstest"
	"tulle/ip"
)

// knock sends a packet of a tunnel through the other end of an interface made by addInterface.
func (w world) knock(t testing.TB, name string, from, to netip.Addr, tunnel ip.Tunnel, inner netip.Addr) {
	t.Helper()
	packet := netnstest.UDP(netip.AddrPortFrom(inner, 1), netip.AddrPortFrom(inner, 2), nil)
	if tunnel.IPIP {
		w.send(t, name, netnstest.IPIP(from, to, packet))
		return
	}
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	w.send(t, name, netnstest.UDP(netip.AddrPortFrom(from, 4789), netip.AddrPortFrom(to, tunnel.Port), netnstest.VXLAN(tunnel.VNI, netnstest.Frame(mac, mac, packet))))
}

func (w world) send(t testing.TB, name string, packet []byte) {
	t.Helper()
	near, far := w.link(t, name).Attrs(), w.link(t, name+"-peer").Attrs()
	must(t, w.ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		frame := netnstest.Frame(far.HardwareAddr, near.HardwareAddr, packet)
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: far.Index})
	}))
}

// TestStrangersInFragmentsAreDropped cuts a packet between the UDP and the VXLAN header, so that no fragment shows both port
// and VNI. In IPv6, nothing puts it together before the guard if the namespace has no connection tracking.
func TestStrangersInFragmentsAreDropped(t *testing.T) {
	w := newWorld(t)
	w.AddInterface("up0", netip.MustParsePrefix("2001:db8::1/64"))
	guard := guards()[1]
	must(t, w.Kernel.Apply(t.Context(), ip.Plan{{Verb: ip.Add, New: guard}}))
	whole := netnstest.UDP(netip.MustParseAddrPort("[2001:db8::9]:4789"), netip.AddrPortFrom(netip.MustParseAddr("2001:db8::1"), guard.Port),
		netnstest.VXLAN(guard.VNI, make([]byte, 64)))
	for _, part := range netnstest.Fragments(whole, 8) {
		w.send(t, "up0", part)
	}
	if n := strangers(snapshot(t, w.Kernel, podScope)); n != 1 {
		t.Errorf("%d packets dropped, want the first fragment", n)
	}
}

// TestHiddenPortIsNotDelivered moves the UDP header out of the first fragment by an option header before it, so that no rule can
// read the port. Linux itself discards such fragments (RFC 7112), but not fragments of fragments whose first ends with a header.
func TestHiddenPortIsNotDelivered(t *testing.T) {
	for _, tracked := range []bool{false, true} {
		t.Run(fmt.Sprintf("connection tracking %t", tracked), func(t *testing.T) {
			w := newWorld(t)
			w.AddInterface("up0", netip.MustParsePrefix("2001:db8::1/64"))
			guard := guards()[1]
			plan := ip.Plan{{Verb: ip.Add, New: guard}}
			if tracked {
				inside := ip.Match{Prefix: guard.Network}
				plan = append(plan, ip.Op{Verb: ip.Add, New: ip.Table{Family: ip.IPv6, Rules: []ip.Rule{{Chain: ip.Postrouting, Src: inside, Verdict: ip.Masquerade}}}})
			}
			must(t, w.Kernel.Apply(t.Context(), plan))
			var conn *net.UDPConn
			must(t, w.ns.Do(func() (err error) {
				conn, err = net.ListenUDP("udp6", &net.UDPAddr{Port: int(guard.Port)})
				return err
			}))
			defer conn.Close()
			from, to := netip.MustParseAddrPort("[2001:db8::9]:4789"), netip.AddrPortFrom(netip.MustParseAddr("2001:db8::1"), guard.Port)
			whole := netnstest.UDP(from, to, netnstest.VXLAN(guard.VNI, make([]byte, 64)))
			packet := netnstest.WithOptions(whole, 1)
			w.send(t, "up0", packet)
			for _, part := range append(netnstest.Fragments(packet, 8), netnstest.Nested(whole)...) {
				w.send(t, "up0", part)
			}
			w.send(t, "up0", netnstest.UDP(from, to, []byte("other VXLANs pass")))
			buffer := make([]byte, 128)
			conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			n, err := conn.Read(buffer)
			if err != nil || string(buffer[:n]) != "other VXLANs pass" {
				t.Errorf("read %q (%v), want only what comes last", buffer[:n], err)
			}
			if n := strangers(snapshot(t, w.Kernel, podScope)); n != 4 {
				t.Errorf("%d packets are dropped by the guard, want 4: the one in one piece, the first fragment, and both in a fragment", n)
			}
		})
	}
}

func guards() []ip.Guard {
	peers := func(texts ...string) []ip.Peer {
		var list []ip.Peer
		for _, text := range texts {
			var p ip.Peer
			if err := p.UnmarshalText([]byte(text)); err != nil {
				panic(err)
			}
			list = append(list, p)
		}
		return list
	}
	return []ip.Guard{
		{
			Family: ip.IPv4, VNI: 1, Port: 8472, Link: "flannel.1", Uplink: "up0", Network: netip.MustParsePrefix("10.50.0.0/16"), Bits: 22,
			Peers: peers("192.0.2.3", "192.0.2.3 10.50.4.0/22", "192.0.2.4", "192.0.2.4 10.50.8.0/22"),
		},
		{
			Family: ip.IPv6, VNI: 0x0a0b0c, Port: 4789, Link: "flannel-v6.1", Uplink: "up0", Network: netip.MustParsePrefix("fd50::/44"), Bits: 64,
			Peers: peers("2001:db8::3", "2001:db8::3 fd50:0:0:3::/64", "2001:db8::4"),
		},
	}
}

// ipipGuard is the first of the guards, for IPIP.
func ipipGuard() ip.Guard {
	g := guards()[0]
	g.VNI, g.Port, g.IPIP, g.Link = 0, 0, true, "flannel.ipip"
	return g
}

// TestGuestsInjectNoIPIP has something behind this host send IPIP on to others, in one piece and in fragments.
func TestGuestsInjectNoIPIP(t *testing.T) {
	w := newWorld(t)
	guest, far := netip.MustParseAddr("10.50.4.7"), netip.MustParseAddr("192.0.2.3")
	w.AddInterface("up0", netip.MustParsePrefix("192.0.2.1/24"))
	w.AddInterface("cni0", netip.MustParsePrefix("10.50.4.1/24"))
	router := netip.MustParsePrefix("198.51.100.1/24")
	w.AddInterface("wan0", router)
	must(t, w.Kernel.Apply(t.Context(), ip.Plan{
		{Verb: ip.Add, New: ip.Sysctl{Key: "net/ipv4/ip_forward", Value: "1"}},
		{Verb: ip.Add, New: ipipGuard()},
	}))
	inner := netnstest.UDP(netip.AddrPortFrom(netip.MustParseAddr("10.50.8.9"), 1), netip.AddrPortFrom(netip.MustParseAddr("10.50.5.1"), 2), make([]byte, 64))
	var want uint64
	send := func(what, in string, packet []byte, dropped uint64) {
		t.Helper()
		w.send(t, in, packet)
		want += dropped
		if n := snapshot(t, w.Kernel, podScope).Drops[""].V4.Injected; n != want {
			t.Errorf("after %s, %d are dropped, want %d", what, n, want)
		}
	}
	send("IPIP of a container", "cni0", netnstest.IPIP(guest, far, inner), 1)
	send("IPIP in another's name", "cni0", netnstest.IPIP(netip.MustParseAddr("192.0.2.4"), far, inner), 1)
	for _, part := range netnstest.Fragments(netnstest.IPIP(guest, far, inner), 24) {
		w.send(t, "cni0", part)
	}
	want++
	send("other packets of a container", "cni0", netnstest.UDP(netip.AddrPortFrom(guest, 1), netip.AddrPortFrom(far, 8472), inner), 0)
	send("IPIP of a host behind this one", "wan0", netnstest.IPIP(router.Addr().Next(), far, inner), 0)
	send("IPIP to this host as a peer's, from a container", "cni0", netnstest.IPIP(guest, netip.MustParseAddr("192.0.2.1"), inner), 0)
	if n := strangers(snapshot(t, w.Kernel, podScope)); n != 1 {
		t.Errorf("%d strangers, want 1", n)
	}
	send("IPIP to this host in a peer's name, from a container", "cni0", netnstest.IPIP(far, netip.MustParseAddr("192.0.2.1"), inner), 1)
}

// TestGuardReadsAsCommands has nft(8) make what a plan prints, and reads it back.
func TestGuardReadsAsCommands(t *testing.T) {
	w := newWorld(t)
	run := func(have, want ip.State) {
		t.Helper()
		w.run(t, ip.Diff(have, want).String(), "sh", "-e")
		if got := snapshot(t, w.Kernel, podScope).Owned; !got.Equal(want) {
			t.Fatalf("got:\n%swant:\n%s", got, want)
		}
	}
	want := ip.State{Guards: guards()}
	run(ip.State{}, want)
	fewer := ip.State{Guards: guards()}
	fewer.Guards[0].Peers, fewer.Guards[1].Peers = fewer.Guards[0].Peers[:1], nil
	run(want, fewer)
	run(fewer, want)
	fewer.Guards[0].Port, fewer.Guards[1].VNI = 1, 2
	run(want, fewer)
	fewer.Guards[0], fewer.Guards[1] = fewer.Guards[0].Unchecked(), guards()[1].Unchecked()
	run(want, fewer)
	fewer.Guards[0].Network, fewer.Guards[1].Network = netip.MustParsePrefix("10.50.0.0/15"), netip.MustParsePrefix("fd50::/48")
	run(want, fewer)
	over := ip.State{Guards: []ip.Guard{ipipGuard()}}
	run(fewer, over)
	fewer = ip.State{Guards: []ip.Guard{ipipGuard().Unchecked()}}
	run(over, fewer)
	run(fewer, ip.State{})
}

// TestRulesetCanBeSaved lists what tulled makes with nft(8), and loads the list: hosts that save all rules at once must
// not fail to load them at the next boot.
func TestRulesetCanBeSaved(t *testing.T) {
	for _, guards := range [][]ip.Guard{guards(), {ipipGuard()}} {
		rulesetCanBeSaved(t, guards)
	}
}

func rulesetCanBeSaved(t *testing.T, guards []ip.Guard) {
	t.Helper()
	w := newWorld(t)
	want := ip.State{Guards: guards, Tables: []ip.Table{{Family: ip.IPv4, Rules: []ip.Rule{{Chain: ip.Forward, In: "cni0", Unrouted: true, Verdict: ip.DropSpoof}}}}}
	must(t, w.Kernel.Apply(t.Context(), ip.Diff(ip.State{}, want)))
	saved := w.run(t, "", "nft", "list", "ruleset")
	must(t, w.Kernel.Apply(t.Context(), ip.Diff(want, ip.State{})))
	w.run(t, saved, "nft", "-f", "-")
	if got := (ip.State{Guards: snapshot(t, w.Kernel, podScope).Owned.Guards}); !got.Equal(ip.State{Guards: want.Guards}) {
		t.Errorf("saved:\n%s\ngot:\n%s", saved, got)
	}
}

func TestTamperedGuardIsMended(t *testing.T) {
	g := guards()[0]
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: ip.GuardTable}
	chain := &nftables.Chain{Table: table, Name: ip.GuardInput}
	accept := []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	set := &nftables.Set{Table: table, Name: ip.GuardPeers, KeyType: nftables.TypeIPAddr}
	for name, tamper := range map[string]func(c *nftables.Conn){
		"table deleted":  func(c *nftables.Conn) { c.DelTable(table) },
		"all flushed":    func(c *nftables.Conn) { c.FlushRuleset() },
		"rules flushed":  func(c *nftables.Conn) { c.FlushTable(table) },
		"rule put first": func(c *nftables.Conn) { c.InsertRule(&nftables.Rule{Table: table, Chain: chain, Exprs: accept}) },
		"set flushed":    func(c *nftables.Conn) { c.FlushSet(set) },
		"peer deleted": func(c *nftables.Conn) {
			must(t, c.SetDeleteElements(set, []nftables.SetElement{{Key: []byte{192, 0, 2, 3}}}))
		},
		"stranger let in": func(c *nftables.Conn) {
			must(t, c.SetAddElements(set, []nftables.SetElement{{Key: []byte{192, 0, 2, 9}}}))
		},
		"policy dropped": func(c *nftables.Conn) {
			drop := nftables.ChainPolicyDrop
			c.AddChain(&nftables.Chain{Table: table, Name: ip.GuardInput, Type: nftables.ChainTypeFilter,
				Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityRaw, Policy: &drop})
		},
		"chain added": func(c *nftables.Conn) { c.AddChain(&nftables.Chain{Table: table, Name: "x"}) },
		"set added": func(c *nftables.Conn) {
			must(t, c.AddSet(&nftables.Set{Table: table, Name: "x", ID: 1, KeyType: nftables.TypeIPAddr}, nil))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			want := ip.State{Guards: []ip.Guard{g}}
			must(t, w.Kernel.Apply(t.Context(), ip.Diff(ip.State{}, want)))
			w.nft(t, tamper)
			w.mends(t, want)
		})
	}
	for name, command := range map[string]string{
		"all let in":        "add element ip tulle-peers peers { * }",
		"table asleep":      "add table ip tulle-peers { flags dormant; }",
		"rule changed":      "flush chain ip tulle-peers postrouting; add rule ip tulle-peers postrouting udp dport 8472 accept",
		"forward flushed":   "flush chain ip tulle-peers forward",
		"chain deleted":     "flush chain ip tulle-peers forward; delete chain ip tulle-peers forward",
		"sources flushed":   "flush set ip tulle-peers sources",
		"source let in":     "add element ip tulle-peers sources { 192.0.2.3 . 0x0a320c00 }",
		"any source let in": "add element ip tulle-peers sources { * }",
		"of an earlier Tulle": `delete table ip tulle-peers; add table ip tulle-peers; add set ip tulle-peers peers { type ipv4_addr; elements = { 192.0.2.3 }; };
			add counter ip tulle-peers strangers; add chain ip tulle-peers input { type filter hook input priority raw; policy accept; };
			add rule ip tulle-peers input udp dport 8472 @th,96,24 != 1 accept; add rule ip tulle-peers input udp dport 8472 ip saddr != @peers counter name strangers drop`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			want := ip.State{Guards: []ip.Guard{g}}
			must(t, w.Kernel.Apply(t.Context(), ip.Diff(ip.State{}, want)))
			w.run(t, "", "nft", command)
			w.mends(t, want)
		})
	}
}

// mends makes one op right what somebody did to the only object that is wanted, or as many as it has peers.
func (w world) mends(t *testing.T, want ip.State) {
	t.Helper()
	plan := ip.Diff(snapshot(t, w.Kernel, podScope).Owned, want)
	if len(plan) == 0 || len(plan) > len(want.Guards[0].Peers) {
		t.Fatalf("plan after tampering:\n%swant one op, or two", plan)
	}
	must(t, w.Kernel.Apply(t.Context(), plan))
	if got := snapshot(t, w.Kernel, podScope).Owned; !got.Equal(want) {
		t.Errorf("after mending:\n%s", got)
	}
}

func strangers(s ip.Snapshot) uint64 { return s.Drops[""].V4.Plus(s.Drops[""].V6).Strangers }
