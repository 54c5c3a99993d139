//go:build linux

package lab_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"tulle/internal/lab"
	"tulle/internal/netns"
	"tulle/internal/netns/netnstest"
	"tulle/ip"
)

const (
	podPort  = 8080 // of what listens in containers and on hosts
	hostPort = 8081 // of the host, which leads to podPort of its first container

	// flowTimeout is how long a connection may take that nothing drops.
	flowTimeout = 500 * time.Millisecond

	// openingTime is how long a host may take to let through what should pass.
	openingTime = 10 * time.Second
)

// end is where packets come from or go to.
type end struct {
	do   func(func() error) error
	addr ip.Dual[netip.Addr]
}

// flowWorld is a host with more than the lab gives it: a second bridge with the lease, a network that is no business of Tulle's,
// and a port that leads to a container. Behind the router is the world outside.
type flowWorld struct {
	t    *testing.T
	lab  *lab.Lab
	host *lab.Host
	peer *lab.Host

	one, two, second, stranger, remote, here, there, outside end

	last string // the connection that was made last, for who did not expect it
}

func newFlowWorld(t *testing.T, l *lab.Lab) *flowWorld {
	t.Helper()
	host, peer := l.Hosts[0], l.Hosts[1]
	router, err := l.Namespace("router")
	if err != nil {
		t.Fatal(err)
	}
	w := &flowWorld{
		t: t, lab: l, host: host, peer: peer,
		here: end{host.Do, host.Addr}, there: end{peer.Do, peer.Addr}, outside: end{do: router.Do},
	}
	for _, c := range []struct {
		*end
		from *lab.Container
	}{{&w.one, host.Containers[0]}, {&w.two, host.Containers[1]}, {&w.remote, peer.Containers[0]}} {
		*c.end = end{c.from.Do, c.from.Addr}
	}
	env, err := host.ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	var second, others ip.Dual[netip.Prefix]
	for _, f := range l.Config.Families {
		w.outside.addr.Set(f, l.RouterAddr(f, host.Segment))
		routeToContainers(t, l, host, f)
		second.Set(f, netip.PrefixFrom(after(env.Gateway(f).Addr(), 200), f.Bits()-2))
		others.Set(f, ip.Dual[netip.Prefix]{
			V4: netip.MustParsePrefix("192.0.2.1/24"), V6: netip.MustParsePrefix("2001:db8:2::1/64"),
		}.Of(f))
	}
	for n := range host.Containers {
		// As flannel's configuration of the bridge plugin has it: a container that reaches itself comes back through its own port.
		runIn(t, host.Do, "", "bridge", "link", "set", "dev", fmt.Sprintf("vethc%d", n+1), "hairpin", "on")
	}
	w.second, w.stranger = w.attach("cni1", second), w.attach("other0", others)
	for _, f := range l.Config.Families {
		to := netip.PrefixFrom(w.second.addr.Of(f), f.Bits()).String()
		runIn(t, w.one.do, "", "ip", "route", "add", to, "via", env.Gateway(f).Addr().String())
		w.publish(f, env.Subnets.Of(f))
	}
	return w
}

// after is the address n after addr.
func after(addr netip.Addr, n int) netip.Addr {
	for range n {
		addr = addr.Next()
	}
	return addr
}

// attach makes a bridge with the addresses, and a container behind it that has those that follow.
func (w *flowWorld) attach(bridge string, gateway ip.Dual[netip.Prefix]) end {
	t := w.t
	t.Helper()
	ns := netnstest.New(t)
	runIn(t, w.host.Do, "", "ip", "link", "add", bridge, "type", "bridge")
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "eth0", PeerNamespace: netlink.NsFd(ns.FD())}
	veth.Name = "v" + bridge
	if err := w.host.Netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	c := end{do: doer(ns)}
	for _, link := range []string{bridge, veth.Name} {
		w.up(w.host.Do, link)
	}
	w.up(c.do, "eth0")
	runIn(t, w.host.Do, "", "ip", "link", "set", veth.Name, "master", bridge)
	for _, f := range w.lab.Config.Families {
		g := gateway.Of(f)
		c.addr.Set(f, g.Addr().Next())
		w.address(w.host.Do, bridge, g)
		w.address(c.do, "eth0", netip.PrefixFrom(g.Addr().Next(), g.Bits()))
		runIn(t, c.do, "", "ip", "route", "add", anywhere(f), "via", g.Addr().String())
	}
	return c
}

func doer(ns *netns.Namespace) func(func() error) error { return ns.Do }

// up sets a link up whose addresses are usable at once.
func (w *flowWorld) up(do func(func() error) error, link string) {
	w.t.Helper()
	runIn(w.t, do, "", "sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/"+link+"/accept_dad && ip link set "+link+" up")
}

func (w *flowWorld) address(do func(func() error) error, link string, p netip.Prefix) {
	w.t.Helper()
	args := []string{"address", "add", p.String(), "dev", link}
	if p.Addr().Is6() {
		args = append(args, "nodad")
	}
	runIn(w.t, do, "", "ip", args...)
}

func anywhere(f ip.Family) string {
	if f == ip.IPv4 {
		return "0.0.0.0/0"
	}
	return "::/0"
}

// publish leads a port of the host to its first container, as the portmap plugin does.
func (w *flowWorld) publish(f ip.Family, own netip.Prefix) {
	w.t.Helper()
	family := map[ip.Family]string{ip.IPv4: "ip", ip.IPv6: "ip6"}[f]
	to := netip.AddrPortFrom(w.one.addr.Of(f), podPort)
	rule := fmt.Sprintf("fib daddr type local tcp dport %d dnat to %s", hostPort, to)
	runIn(w.t, w.host.Do, strings.NewReplacer("FAMILY", family, "RULE", rule, "OWN", own.String()).Replace(`table FAMILY published {
	chain prerouting { type nat hook prerouting priority dstnat; RULE
	}
	chain output { type nat hook output priority -100; RULE
	}
	chain postrouting { type nat hook postrouting priority srcnat; FAMILY saddr OWN FAMILY daddr OWN ct status dnat masquerade
	}
}
`), "nft", "-f", "-")
}

// runIn runs a program in a namespace and returns what it prints.
func runIn(t *testing.T, do func(func() error) error, input, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	var output, complaint strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &output, &complaint
	if err := do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s: %v: %s", cmd, err, &complaint)
	}
	return output.String()
}

// connect makes a connection from an end to what listens at another, by an address that leads there, and returns the source address
// that arrives. Without a source the kernel chooses.
func (w *flowWorld) connect(from end, source netip.Addr, to end, by netip.AddrPort) (seen netip.Addr, err error) {
	w.t.Helper()
	var listener net.Listener
	// A program that another test is just starting has a copy of the last listener until it runs.
	eventually(openingTime, func() bool {
		err = to.do(func() (err error) {
			listener, err = (&net.ListenConfig{}).Listen(w.t.Context(), "tcp", fmt.Sprintf(":%d", podPort))
			return err
		})
		return !errors.Is(err, syscall.EADDRINUSE)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().String())
			_ = conn.Close()
		}
	}()
	defer func() { _ = listener.Close(); <-served }()
	dialer := net.Dialer{Timeout: flowTimeout}
	if source.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	var conn net.Conn
	if err := from.do(func() (err error) {
		conn, err = dialer.DialContext(w.t.Context(), "tcp", by.String())
		return err
	}); err != nil {
		return seen, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(flowTimeout)); err != nil {
		return seen, err
	}
	text, err := io.ReadAll(conn)
	if err != nil {
		return seen, err
	}
	w.last = fmt.Sprintf("%s from %s, seen as from %s", time.Now().Format(time.TimeOnly), conn.LocalAddr(), text)
	return netip.ParseAddr(string(text))
}

// multicast sends a datagram from an end to those that listen on the link, and waits for it at another.
func (w *flowWorld) multicast(f ip.Family, from, to end) error {
	w.t.Helper()
	group := ip.Dual[net.IP]{V4: net.IPv4(224, 0, 0, 251), V6: net.ParseIP("ff02::fb")}.Of(f)
	network := map[ip.Family]string{ip.IPv4: "udp4", ip.IPv6: "udp6"}[f]
	var heard, conn *net.UDPConn
	if err := to.do(func() error {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		heard, err = net.ListenMulticastUDP(network, link, &net.UDPAddr{IP: group, Port: 5353})
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	defer heard.Close()
	if err := from.do(func() (err error) {
		remote := &net.UDPAddr{IP: group, Port: 5353}
		if f == ip.IPv6 {
			remote.Zone = "eth0"
		}
		conn, err = net.DialUDP(network, &net.UDPAddr{IP: from.addr.Of(f).AsSlice()}, remote)
		return err
	}); err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("hello")); err != nil {
		return err
	}
	if err := heard.SetDeadline(time.Now().Add(flowTimeout)); err != nil {
		return err
	}
	_, _, err := heard.ReadFrom(make([]byte, 16))
	return err
}
