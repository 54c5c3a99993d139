package kernel_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tulle/internal/netns"
	"tulle/internal/netns/netnstest"
	"tulle/ip"
	"tulle/ip/iptest"
	"tulle/ip/kernel"
	"tulle/ip/kernel/xtables"
)

func TestConformance(t *testing.T) {
	iptest.Conformance(t, func(t *testing.T) iptest.World { return newWorld(t).World })
}

// patience is how long a test waits for what the kernel does at once on a machine at rest: much of it is done by queues, and under a lock, that all namespaces share.
const patience = 30 * time.Second

// world is a fresh network namespace.
type world struct {
	iptest.World
	ns      *netns.Namespace
	netlink *netlink.Handle // to do what Tulle never does
}

func newWorld(t testing.TB) world {
	t.Helper()
	ns := netnstest.New(t)
	w := world{ns: ns}
	w.Kernel, w.Other = open(t, ns), open(t, ns)
	if err := ns.Do(func() (err error) {
		w.netlink, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.netlink.Close)
	w.AddInterface = func(name string, addrs ...netip.Prefix) { w.addInterface(t, name, addrs) }
	w.SetInterface = func(name string, up bool) {
		set := w.netlink.LinkSetDown
		if up {
			set = w.netlink.LinkSetUp
		}
		must(t, set(w.link(t, name)))
	}
	w.Knock = func(name string, from, to netip.Addr, tunnel ip.Tunnel, inner netip.Addr) {
		w.knock(t, name, from, to, tunnel, inner)
	}
	w.Forward = func(name string, src, dst netip.Addr) {
		w.send(t, name, netnstest.UDP(netip.AddrPortFrom(src, 4789), netip.AddrPortFrom(dst, 4789), nil))
	}
	w.AddRoute = func(r iptest.TableRoute) { w.route(t, "add", r) }
	w.DelRoute = func(r iptest.TableRoute) { w.route(t, "del", r) }
	w.AddRule = func(r iptest.Rule) { w.rule(t, "add", r) }
	w.DelRule = func(r iptest.Rule) { w.rule(t, "del", r) }
	w.Restore = func(engine ip.Engine, family ip.Family, text string) { w.restore(t, engine, family, text) }
	return w
}

// route runs ip-route(8).
func (w world) route(t testing.TB, verb string, r iptest.TableRoute) {
	t.Helper()
	args := []string{"-" + strings.TrimPrefix(ip.FamilyOf(r.Dst.Addr()).String(), "ipv"), "route", verb, string(r.Kind), r.Dst.String()}
	if r.Kind == ip.Unicast {
		args = append(args, "via", r.Via.String(), "dev", r.Link)
	}
	w.run(t, "", "ip", append(args, "table", fmt.Sprint(r.Table), "metric", fmt.Sprint(r.Metric), "proto", fmt.Sprint(r.Protocol))...)
}

// rule runs ip-rule(8).
func (w world) rule(t testing.TB, verb string, r iptest.Rule) {
	t.Helper()
	family, args := ip.IPv4, []string{"rule", verb}
	for word, p := range map[string]netip.Prefix{"from": r.From, "to": r.To} {
		if p.IsValid() {
			family, args = ip.FamilyOf(p.Addr()), append(args, word, p.String())
		}
	}
	args = append([]string{"-" + strings.TrimPrefix(family.String(), "ipv")}, args...)
	w.run(t, "", "ip", append(args, "lookup", fmt.Sprint(r.Table))...)
}

// restore runs iptables-restore in the namespace.
func (w world) restore(t testing.TB, engine ip.Engine, family ip.Family, text string) {
	t.Helper()
	if engine == ip.IPTables {
		unlock, err := xtables.Lock(t.Context())
		netnstest.Require(t, err)
		must(t, unlock())
	}
	program := map[ip.Family]string{ip.IPv4: "iptables-", ip.IPv6: "ip6tables-"}[family] +
		map[ip.Engine]string{ip.NFTables: "nft", ip.IPTables: "legacy"}[engine] + "-restore"
	w.run(t, text, program, "-w", "5")
}

// run runs a program in the namespace and returns what it prints.
func (w world) run(t testing.TB, input, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	var output, complaint bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &output, &complaint
	must(t, w.ns.Do(cmd.Start))
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s: %v: %s", cmd, err, &complaint)
	}
	return output.String()
}

func open(t testing.TB, ns *netns.Namespace) ip.Kernel {
	t.Helper()
	var k *kernel.Kernel
	if err := ns.Do(func() (err error) {
		k, err = kernel.Open()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, k.Close()) })
	return k
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w world) link(t testing.TB, name string) netlink.Link {
	t.Helper()
	link, err := w.netlink.LinkByName(name)
	must(t, err)
	return link
}

// addInterface makes a veth whose other end gives it a carrier.
func (w world) addInterface(t testing.TB, name string, addrs []netip.Prefix) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	must(t, w.netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: name + "-peer"}))
	must(t, w.netlink.LinkSetUp(w.link(t, name+"-peer")))
	must(t, w.netlink.LinkSetUp(w.link(t, name)))
	for _, a := range addrs {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())}}
		if a.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		must(t, w.netlink.AddrAdd(w.link(t, name), addr))
		w.awaitLocal(t, a.Addr())
	}
}

// awaitLocal waits for the kernel to take up an address; it does so in the background in IPv6.
func (w world) awaitLocal(t testing.TB, addr netip.Addr) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); runtime.Gosched() {
		routes, err := w.netlink.RouteGet(addr.AsSlice())
		if err == nil && len(routes) == 1 && routes[0].Type == unix.RTN_LOCAL {
			return
		}
	}
	t.Fatalf("address %s does not come up", addr)
}
