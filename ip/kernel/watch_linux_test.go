package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"tulle/ip"
)

// watcher counts notifications.
type watcher struct {
	count atomic.Int64
	by    atomic.Pointer[ip.Actor] // who was named last
	named sync.Map                 // process ids
	woken chan struct{}
	ended chan error
}

func startWatch(t *testing.T, k ip.Kernel) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watcher{woken: make(chan struct{}, 1), ended: make(chan error, 1)}
	go func() { w.ended <- k.Watch(ctx, w.notify) }()
	t.Cleanup(func() {
		cancel()
		if err := <-w.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch = %v, want %v", err, context.Canceled)
		}
	})
	w.until(t, 1)
	return w
}

func (w *watcher) notify(by ip.Actor) {
	if by != (ip.Actor{}) {
		w.by.Store(&by)
		w.named.Store(by.PID, true)
	}
	w.count.Add(1)
	select {
	case w.woken <- struct{}{}:
	default:
	}
}

// until waits for the n-th notification.
func (w *watcher) until(t *testing.T, n int64) {
	t.Helper()
	w.wait(t, fmt.Sprintf("want %d", n), func() bool { return w.count.Load() >= n })
}

func (w *watcher) wait(t *testing.T, want string, done func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for !done() {
		select {
		case <-w.woken:
		case <-deadline:
			t.Fatalf("notified %d times, %s", w.count.Load(), want)
		}
	}
}

// marked makes changes that matter, and waits until they are told. It returns how often other changes have been until then.
func (w world) marked(t *testing.T, watch *watcher) int64 {
	t.Helper()
	for _, verb := range []string{"add", "del"} {
		cmd := exec.CommandContext(t.Context(), "ip", "route", verb, "blackhole", podNetwork.String(), "metric", "77")
		must(t, w.ns.Do(cmd.Start))
		must(t, cmd.Wait())
		watch.wait(t, "want the marker", func() bool { _, named := watch.named.Load(cmd.Process.Pid); return named })
	}
	return watch.count.Add(-2)
}

func TestWatchTellsOwnRulesFromOthers(t *testing.T) {
	w := newWorld(t)
	watch := startWatch(t, w.Kernel)
	table := forwardTable()
	// Notifications come in order, so those of our changes, if any, are counted before the one of the other's.
	for range 20 {
		must(t, w.Kernel.Apply(t.Context(), ip.Plan{{Verb: ip.Add, New: table}}))
	}
	theirs := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "theirs"}
	w.nft(t, func(c *nftables.Conn) { c.AddTable(theirs) })
	watch.until(t, 2)
	w.nft(t, func(c *nftables.Conn) { c.DelTable(theirs) })
	watch.until(t, 3)
	// One transaction is told in at most two datagrams: what changed, and that it is complete.
	if n := watch.count.Load(); n > 1+2*2 {
		t.Errorf("notified %d times: own changes are notified", n)
	}
	before := watch.count.Load()
	w.nft(t, func(c *nftables.Conn) {
		c.FlushTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: ip.TableName})
	})
	watch.until(t, before+1)
}

func TestWatchIgnoresNeighboursOfOthers(t *testing.T) {
	w := newWorld(t)
	w.AddInterface("up0", netip.MustParsePrefix("192.0.2.1/24"))
	must(t, w.Kernel.Apply(t.Context(), ip.Diff(ip.State{}, hostState())))
	snapshot(t, w.Kernel, podScope)
	watch := startWatch(t, w.Kernel)

	set := func(link string, state int, last byte) {
		must(t, w.netlink.NeighSet(&netlink.Neigh{
			LinkIndex: w.link(t, link).Attrs().Index, IP: net.IPv4(192, 0, 2, last).To4(), State: state,
			HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, last},
		}))
	}
	const others = 100
	for last := range byte(others) {
		set("up0", netlink.NUD_PERMANENT, 100+last)
	}
	before := watch.count.Load()
	for i := range byte(5) {
		set("flannel.1", netlink.NUD_PERMANENT, 10+i)
		watch.until(t, before+1)
		before = watch.count.Load()
	}
	if before >= others { // the links, new as they are, cause a few
		t.Errorf("notified %d times of 5 changes: the neighbours of others are notified", before)
	}
}

// What a process makes of a permanent neighbour or forwarding entry is told, permanent or not: packets go by it.
func TestWatchTellsWhatReplacesNeighbours(t *testing.T) {
	w := newWorld(t)
	w.AddInterface("up0", netip.MustParsePrefix("192.0.2.1/24"))
	must(t, w.Kernel.Apply(t.Context(), ip.Diff(ip.State{}, hostState())))
	for _, step := range []string{
		"ip neigh replace 10.50.3.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud stale",
		"ip neigh replace 10.50.3.0 lladdr 02:00:00:00:00:03 dev flannel.1 nud noarp",
		"bridge fdb replace 02:00:00:00:00:03 dev flannel.1 dst 192.0.2.66 self dynamic",
		"bridge fdb replace 02:00:00:00:00:03 dev flannel.1 dst 192.0.2.66 self static",
	} {
		t.Run(step, func(t *testing.T) {
			have := snapshot(t, w.Kernel, podScope).Owned
			must(t, w.Kernel.Apply(t.Context(), ip.Diff(have, hostState())))
			watch := startWatch(t, w.Kernel)
			before := w.marked(t, watch)
			program, args, _ := strings.Cut(step, " ")
			w.run(t, "", program, strings.Fields(args)...)
			if w.marked(t, watch) == before {
				t.Error("it is not told")
			}
		})
	}
}

// Packets to a peer go by a nexthop object. What is done to it is told, though the kernel may tell nothing of the routes by it; what is done to others is not.
func TestWatchTellsNexthopsThatMatter(t *testing.T) {
	w, scope := linkWorld(t)
	w.run(t, "", "sysctl", "-q", "net.ipv4.nexthop_compat_mode=0")
	for _, command := range []string{
		"nexthop add id 7 via 192.0.2.9 dev up0", "nexthop add id 8 via 192.0.2.10 dev up0", "nexthop add id 9 group 7/8", "nexthop add id 17 via 192.0.2.9 dev up0",
		"route replace 198.51.100.0/24 nhid 9", "route add 198.18.0.0/24 nhid 17",
	} {
		w.run(t, "", "ip", strings.Fields(command)...)
	}
	look(t, w.Kernel, scope)
	watch := startWatch(t, w.Kernel)
	for _, test := range []struct {
		step    string
		matters bool
	}{
		{"replace id 7 via 192.0.2.11 dev up0", true},
		{"replace id 17 via 192.0.2.11 dev up0", false},
		{"replace id 17 dev flannel.1", true},
		{"add id 20 via 192.0.2.9 dev up0", false},
		{"replace id 20 via 192.0.2.10 dev up0", false},
		{"replace id 9 group 7", true},
		{"replace id 9 group 7/20", true},
		{"replace id 20 via 192.0.2.9 dev up0", true},
		{"del id 17", true},
		{"del id 8", false},
		{"del id 7", true},
		{"del id 9", true},
	} {
		look(t, w.Kernel, scope)
		before := w.marked(t, watch)
		w.run(t, "", "ip", append([]string{"nexthop"}, strings.Fields(test.step)...)...)
		if notified := w.marked(t, watch) > before; notified != test.matters {
			t.Errorf("nexthop %s: notified is %v", test.step, notified)
		}
	}
}

// A routing daemon changes routes all day: those that lead neither packets to peers nor Tulle's own elsewhere are none of Tulle's business.
func TestWatchTellsRoutesThatMatter(t *testing.T) {
	w := newWorld(t)
	w.AddInterface("up0", netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8:1::1/64"))
	must(t, w.Kernel.Apply(t.Context(), ip.Diff(ip.State{}, hostState())))
	scope := podScope
	scope.Paths = []netip.Addr{netip.MustParseAddr("203.0.113.5")}
	snapshot(t, w.Kernel, scope)
	_, err := w.Kernel.Lookup(t.Context(), []ip.Question{
		{Dst: netip.MustParseAddr("198.51.100.7")}, {Dst: netip.MustParseAddr("2001:db8:9::7")},
	})
	must(t, err)
	w.run(t, "", "ip", "nexthop", "add", "id", "7", "via", "192.0.2.9", "dev", "up0")
	w.run(t, "", "ip", "nexthop", "add", "id", "8", "dev", "flannel.1")
	for deadline := time.Now().Add(10 * time.Second); w.run(t, "", "ip", "-6", "address", "show", "tentative") != ""; {
		if time.Now().After(deadline) { // they would be notified when they are no longer
			t.Fatal("addresses remain tentative")
		}
	}
	watch := startWatch(t, w.Kernel)

	inside := netip.PrefixFrom(podNetwork.Addr().Next(), podNetwork.Addr().BitLen()).String()
	for _, test := range []struct {
		name, route string
		matters     bool
	}{
		{"elsewhere", "198.18.0.0/24 via 192.0.2.9", false},
		{"elsewhere, several hops", "198.18.0.0/24 nexthop via 192.0.2.8 nexthop via 192.0.2.9", false},
		{"elsewhere, by a nexthop object", "198.18.0.0/24 nhid 7", false},
		{"elsewhere, another table", "198.18.0.0/24 via 192.0.2.9 table 99", false},
		{"elsewhere, nowhere", "blackhole 198.18.0.0/24", false},
		{"elsewhere in IPv6", "2001:db8:8::/64 via 2001:db8:1::9", false},
		{"next to the address of a peer", "198.51.100.8/29 via 192.0.2.9", false},
		{"in a network", inside + " via 192.0.2.9", true},
		{"in a network, another table", inside + " via 192.0.2.9 table 99", true},
		{"around a network", "0.0.0.0/1 via 192.0.2.9", true},
		{"the default", "default via 192.0.2.9", true},
		{"the default, another table", "default via 192.0.2.9 table 99", true},
		{"the default of IPv6", "default via 2001:db8:1::9", true},
		{"to the address of a peer", "198.51.100.7/32 via 192.0.2.9", true},
		{"around the address of a peer", "198.51.100.0/24 via 192.0.2.9", true},
		{"around the address of a peer in IPv6", "2001:db8:9::/48 via 2001:db8:1::9", true},
		{"around an address of the scope", "blackhole 203.0.113.0/24", true},
		{"around this host's address", "192.0.2.0/28 via 192.0.2.9", true},
		{"elsewhere by Tulle's link", "198.18.0.0/24 dev flannel.1", true},
		{"elsewhere by Tulle's link, a nexthop object", "198.18.0.0/24 nhid 8", true},
		{"elsewhere by Tulle's link, several hops", "198.18.0.0/24 nexthop via 192.0.2.8 nexthop dev flannel.1", true},
		{"elsewhere with an MTU", "198.18.0.0/24 via 192.0.2.9 mtu 1400", true},
		{"elsewhere, of Tulle's protocol", "198.18.0.0/24 via 192.0.2.9 proto 84", true},
	} {
		for _, verb := range []string{"add", "del"} {
			before := w.marked(t, watch)
			w.run(t, "", "ip", append([]string{"route", verb}, strings.Fields(test.route)...)...)
			if notified := w.marked(t, watch) > before; notified != test.matters {
				t.Errorf("route %s (%s): notified is %v", verb, test.name, notified)
			}
		}
	}
}

// TestWatchSurvivesOverflow makes more changes than the kernel buffers, while nobody listens.
func TestWatchSurvivesOverflow(t *testing.T) {
	w := newWorld(t)
	want := hostState()
	must(t, w.Kernel.Apply(t.Context(), ip.Diff(ip.State{}, want)))
	var calls atomic.Int64
	busy, resume := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- w.Kernel.Watch(ctx, func(ip.Actor) {
			if calls.Add(1) == 2 {
				close(busy)
				<-resume
			}
		})
	}()
	change := ip.Plan{{Verb: ip.Add, New: want.Routes[0]}}
	// notifiedAfter changes something until that is noticed.
	notifiedAfter := func(n int64) {
		t.Helper()
		deadline := time.Now().Add(patience)
		for calls.Load() <= n {
			must(t, w.Other.Apply(t.Context(), change))
			if time.Now().After(deadline) {
				t.Fatalf("notified %d times, want more", n)
			}
		}
	}
	notifiedAfter(1)
	<-busy
	must(t, w.Other.Apply(t.Context(), ip.Diff(ip.State{}, ip.State{Routes: manyPeers(20_000).Routes})))
	close(resume)
	notifiedAfter(calls.Load())
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch = %v, want %v", err, context.Canceled)
	}
}

func TestWatchNamesWhoDidIt(t *testing.T) {
	w := newWorld(t)
	w.AddInterface("up0", netip.MustParsePrefix("192.0.2.1/24"))
	must(t, w.Kernel.Apply(t.Context(), ip.Diff(ip.State{}, hostState())))
	snapshot(t, w.Kernel, podScope)
	watch := startWatch(t, w.Kernel)
	named := func(program string, pid int) {
		t.Helper()
		deadline := time.After(patience)
		for {
			if by := watch.by.Load(); by != nil && by.Name == program && (pid == 0 || by.PID == pid) {
				return
			}
			select {
			case <-watch.woken:
			case <-deadline:
				t.Fatalf("%v was named, want %s", watch.by.Load(), program)
			}
		}
	}
	// nf_tables remembers the name of a program that has ended; for others it must still be there.
	w.run(t, "add table ip theirs\n", "nft", "-f", "-")
	named("nft", 0)

	cmd := exec.CommandContext(t.Context(), "ip", "-batch", "-")
	input, err := cmd.StdinPipe()
	must(t, err)
	must(t, w.ns.Do(cmd.Start))
	defer func() { must(t, cmd.Wait()) }()
	defer input.Close()
	for _, line := range []string{
		"route add 192.0.2.0/28 via 192.0.2.9",
		"neigh flush dev flannel.1 nud permanent",
		"address flush dev flannel.1",
	} {
		watch.by.Store(nil)
		_, err = input.Write([]byte(line + "\n"))
		must(t, err)
		named("ip", cmd.Process.Pid)
	}
}
