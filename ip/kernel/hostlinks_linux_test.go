package kernel_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tulle/internal/netns/netnstest"
	"tulle/ip"
)

// linkWorld has an uplink, a link of Tulle's, a bridge of containers, and links without addresses: tun0 leads to a peer, and br0 to nobody.
func linkWorld(t *testing.T) (w world, scope ip.Scope) {
	w = newWorld(t)
	w.AddInterface("up0", netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8:1::1/64"))
	must(t, w.Kernel.Apply(t.Context(), ip.Diff(ip.State{}, hostState())))
	for _, name := range []string{"tun0", "tun1"} {
		w.run(t, "", "ip", "link", "add", name, "type", "veth", "peer", "name", name+"-peer")
		w.run(t, "", "ip", "link", "set", name+"-peer", "up")
		w.run(t, "", "ip", "link", "set", name, "up")
	}
	for _, command := range []string{
		"route add default via 192.0.2.9",
		"route add 198.51.100.0/24 dev tun0",
		"link add cni0 type bridge", "link set cni0 up", "address add 10.50.1.1/24 dev cni0",
		"link add br0 type bridge", "link set br0 up",
		"link add veth0 type veth peer name ceth0", "link set ceth0 up", "link set veth0 master cni0 up",
	} {
		w.run(t, "", "ip", strings.Fields(command)...)
	}
	for deadline := time.Now().Add(10 * time.Second); ; { // the kernel tells of a carrier a moment later, and after up to two seconds that an IPv6 address is nobody else's
		links := w.run(t, "", "ip", "-brief", "link", "show", "up")
		tentative := w.run(t, "", "ip", "-6", "-brief", "address", "show", "tentative")
		if !strings.Contains(strings.ReplaceAll(links, "br0 ", ""), " DOWN ") && strings.Count(links, " UP ") >= 8 && strings.TrimSpace(tentative) == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("links are not up:\n%s\nor have addresses that may be taken:\n%s", links, tentative)
		}
	}
	scope = podScope
	scope.Links = append(slices.Clone(scope.Links), "flannel-v6.1")
	scope.Sysctls = []ip.Sysctl{ip.LinkSetting(ip.IPv4, ip.EachLink, "forwarding", "1")}
	return w, scope
}

// look reads as a pass does, and asks about a peer.
func look(t *testing.T, k ip.Kernel, scope ip.Scope) (ip.Snapshot, []ip.Answer) {
	t.Helper()
	snap := snapshot(t, k, scope)
	answers, err := k.Lookup(t.Context(), []ip.Question{{Dst: netip.MustParseAddr("198.51.100.7")}, {Dst: netip.MustParseAddr("203.0.113.5")}, {Dst: netip.MustParseAddr("2001:db8:9::7")}})
	must(t, err)
	for i := range answers { // an uplink that has lost its addresses
		if source := &answers[i].Source; source.IsLinkLocalUnicast() || source.IsLoopback() {
			*source = netip.Addr{}
		}
	}
	// What has no address but on its link is no part of what passes decide from, and neither is the order.
	snap.Interfaces = slices.DeleteFunc(snap.Interfaces, func(i ip.Interface) bool {
		return !slices.ContainsFunc(i.Addrs, func(a ip.InterfaceAddr) bool { return !a.Prefix.Addr().IsLinkLocalUnicast() })
	})
	for i := range snap.Interfaces {
		snap.Interfaces[i].Addrs = slices.DeleteFunc(snap.Interfaces[i].Addrs, func(a ip.InterfaceAddr) bool { return a.Prefix.Addr().IsLinkLocalUnicast() })
	}
	return snap, answers
}

// A host makes and deletes links of containers all day. What they have to do with Tulle is told, and nothing else.
func TestWatchTellsLinksThatMatter(t *testing.T) {
	w, scope := linkWorld(t)
	elsewhere := netnstest.New(t)
	look(t, w.Kernel, scope)
	watch := startWatch(t, w.Kernel)
	run := func(t *testing.T, step string) {
		t.Helper()
		program, args, _ := strings.Cut(step, " ")
		if program == "away" {
			must(t, w.netlink.LinkSetNsFd(w.link(t, args), elsewhere.FD()))
			return
		}
		w.run(t, "", program, strings.Fields(args)...)
	}
	w.marked(t, watch)
	for _, step := range []string{
		"ip link add veth1 type veth peer name ceth1", "ip link set veth1 master cni0", "ip link set veth1 up", "ip link set ceth1 up", "away ceth1", "ip link del veth1",
		"ip link add veth1 type veth peer name ceth1", "ip link set ceth1 up", "ip link set veth1 up", "ip link set veth1 master br0", "ip link set veth1 nomaster",
		"ip link set veth1 mtu 1400", "ip link set veth1 arp off", "ip link set veth1 address 02:00:00:00:00:77", "ip link set veth1 down", "ip link set veth1 name veth2", "ip link set veth2 up",
		"ip link property add dev veth2 altname container2", "ip address add fe80::77/64 dev veth2", "ip address del fe80::77/64 dev veth2",
		"sysctl -q net.ipv4.conf.veth2.forwarding=1", "ip route add 203.0.113.77 dev veth2",
		"ip link set br0 down", "ip link set br0 up", "ip link set br0 mtu 1400", "ip link del br0", "ip link del veth2",
	} {
		before := watch.count.Load()
		run(t, step)
		if n := w.marked(t, watch) - before; n > 0 {
			t.Errorf("%s: notified %d times", step, n)
		}
	}
	for _, link := range []string{"veth1", "veth3"} {
		w.run(t, "", "ip", "link", "add", link, "type", "veth", "peer", "name", link+"-peer")
	}
	for _, step := range []string{
		"ip link add flannel-v6.1 type veth peer name other1", "ip link del flannel-v6.1",
		"ip address add 198.18.0.1/24 dev veth1", "ip link set veth1 up", "ip link set veth1 mtu 1400", "ip link set veth1 arp off",
		"ip link property add dev veth1 altname container1", "ip link set veth1 down", "ip link set veth1 name veth2", "sysctl -q net.ipv4.conf.veth2.forwarding=1", "ip link del veth2",
		"ip -6 address add 2001:db8:5::1/64 dev veth3", "ip -6 address del 2001:db8:5::1/64 dev veth3",
		"ip -6 address add 2001:db8:7::1 peer fe80::9/64 dev veth3", "ip -6 address del 2001:db8:7::1 peer fe80::9/64 dev veth3",
		"ip link set cni0 down", "ip link set cni0 up", "ip link set cni0 mtu 1400", "sysctl -q net.ipv4.conf.cni0.forwarding=1", "ip link del cni0",
		"ip link set tun0-peer down", "ip link set tun0-peer up", "ip link set tun0 mtu 1400", "ip link set tun0 down", "ip link set tun0 up",
		"ip route add 198.51.100.0/24 dev tun0", "away tun0",
		"ip link set up0 mtu 1400", "ip link set up0 down", "ip link set up0 up", "ip route add default via 192.0.2.9", "ip link set up0 name up1", "ip link del up1",
		"sysctl -q net.ipv4.conf.all.forwarding=1", "sysctl -q net.ipv4.conf.all.forwarding=0",
	} {
		t.Run(step, func(t *testing.T) {
			look(t, w.Kernel, scope)
			before := watch.count.Load()
			run(t, step)
			watch.until(t, before+1)
			w.marked(t, watch) // so that nothing of it is told later
		})
	}
}

func sameLook() []cmp.Option {
	return []cmp.Option{cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})}
}

func sameLooks(was, is ip.Snapshot, answered, answers []ip.Answer) bool {
	return cmp.Equal(was, is, sameLook()...) && cmp.Equal(answered, answers, sameLook()...)
}

// markedLate waits for a notification that need not be there yet.
func (w world) markedLate(t *testing.T, watch *watcher, before int64) bool {
	t.Helper()
	const lateMost = 2 * time.Second
	for begin := time.Now(); time.Since(begin) < lateMost; {
		if w.marked(t, watch) > before {
			return true
		}
	}
	return false
}

// After whatever other programs do to links, addresses and routes, either a notification has come, or a pass would decide as before.
func TestWhatIsNotToldChangesNothing(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w, scope := linkWorld(t)
			w.run(t, "", "sysctl", "-q", fmt.Sprintf("net.ipv4.nexthop_compat_mode=%d", seed%2)) // 0: the kernel tells nothing of the routes by a nexthop object that changes
			look(t, w.Kernel, scope)
			look(t, w.Other, scope) // what is asked about is part of what the next one tells
			watch := startWatch(t, w.Kernel)
			w.marked(t, watch)
			draw := rand.New(rand.NewPCG(seed, 0))
			any := func(words ...string) string { return words[draw.IntN(len(words))] }
			was, answered := look(t, w.Other, scope)
			notified, silent := 0, 0
			for range 300 {
				link := any("veth1", "veth2", "veth3", "br0", "cni0", "tun0", "tun1", "up0")
				command := any(
					"link add "+any("veth1", "veth2", "veth3")+" type veth peer name "+any("peer1", "peer2", "peer3"), "link del "+any("veth1", "veth2", "veth3"), "link set "+link+" "+any("up", "down"), "link set "+link+" up", "link set "+link+" up",
					"link set "+any("veth1", "veth2", "veth3", "tun1")+" "+any("master br0", "master cni0", "nomaster"), "link set "+link+" mtu "+any("1400", "1500"), "link set "+link+" name "+any("veth1", "veth2", "tun1"),
					"address "+any("add", "del")+" "+any("198.18.0.1/24", "10.50.7.1/24", "fe80::77/64")+" dev "+link,
					"route "+any("add", "add", "del")+" "+any("default", "198.51.100.0/24", "198.51.100.7", "203.0.113.0/24", "203.0.113.77", "10.50.9.0/24")+" dev "+link+" metric "+any("1", "2"),
					"nexthop "+any("add", "replace", "replace", "del")+" id "+any("7", "8")+" dev "+link, "nexthop "+any("add", "replace", "del")+" id 9 group "+any("7", "8", "7/8"),
					"route "+any("add", "add", "del")+" "+any("default", "198.51.100.0/24", "198.51.100.7", "203.0.113.77")+" nhid "+any("7", "8", "9")+" metric "+any("1", "2"),
					"neigh "+any("replace", "replace", "del")+" 10.50.3.0 lladdr 02:00:00:00:00:"+any("03", "04")+" dev flannel.1 nud "+any("permanent", "stale", "noarp"),
					"-6 address "+any("add", "del")+" 2001:db8:7::1 peer "+any("fe80::9/64", "2001:db8:8::1/64")+" dev "+link+" nodad",
					"rule "+any("add", "del")+" to "+any("198.51.100.0/24", "203.0.113.77")+" lookup 99", "route "+any("add", "del")+" 198.51.100.0/24 table 99 dev "+link,
					"link add vlan5 link "+link+" type vlan id 5", "link set vlan5 up", "route add 198.51.100.0/24 dev vlan5 metric "+any("1", "2"),
					"link add vrf9 type vrf table 99", "link set vrf9 up", "link set "+link+" "+any("master vrf9", "nomaster"), "link del "+any("vlan5", "vrf9"),
					"-6 route "+any("add", "del")+" "+any("2001:db8:9::/48", "default")+" dev "+link+" metric 5",
				)
				before := watch.count.Load()
				cmd := exec.CommandContext(t.Context(), "ip", strings.Fields(command)...)
				must(t, w.ns.Do(cmd.Start))
				if cmd.Wait() != nil {
					continue // there is no such link, or the like
				}
				if w.marked(t, watch) > before {
					notified++
					look(t, w.Kernel, scope)
					was, answered = look(t, w.Other, scope)
					continue
				}
				silent++
				is, answers := look(t, w.Other, scope)
				if !sameLooks(was, is, answered, answers) && w.markedLate(t, watch, before) { // a carrier is seen to come or go by a thread of the kernel's, later
					notified++
					look(t, w.Kernel, scope)
					was, answered = look(t, w.Other, scope)
					continue
				}
				if d := cmp.Diff(was, is, sameLook()...); d != "" {
					t.Fatalf("ip %s is not told, and a pass would see (-before, +after):\n%s", command, d)
				}
				if d := cmp.Diff(answered, answers, sameLook()...); d != "" {
					t.Fatalf("ip %s is not told, and packets to peers go elsewhere (-before, +after):\n%s", command, d)
				}
			}
			if notified < 20 || silent < 20 {
				t.Errorf("%d changes were told and %d were not, want more of both", notified, silent)
			}
		})
	}
}
