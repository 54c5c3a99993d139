//go:build linux

package fastpath_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tulle/backend"
	"tulle/internal/backends"
	"tulle/internal/decision"
	"tulle/internal/netns"
	"tulle/internal/netns/netnstest"
	"tulle/ip"
	"tulle/ip/kernel"
	"tulle/ip/kernel/fastpath"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

const (
	uplink = "eth0" // of each host
	bridge = "cni0" // of each host, with its containers

	underlayMTU = 1500

	liberalSetting = "net/netfilter/nf_conntrack_tcp_be_liberal"
)

// config says what a world is like.
type config struct {
	backend string
	family  ip.Family
	hosts   int // 0: two

	engines      int  // that many of the first hosts run one; 0: two, negative: none
	containerMTU int  // bytes; 0: as the backend has it
	unchecked    bool // what a peer sends may be in anybody's name
	strict       bool // connection tracking minds sequence numbers

	unlisted bool // the engine does not know the epoch of its programs, and so lists no flows

	observed bool // the program that admits what leaves hangs on the tunnel's device too

	hook string // that the programs hang by; zero: the best that the kernel has

	// open makes the engines; nil: fastpath.Open.
	open func(fastpath.Config) (*fastpath.FastPath, error)
}

func (c config) String() string {
	name := c.backend + "/" + c.family.String()
	if c.hook != "" {
		name += "/" + c.hook
	}
	return name
}

// kinds are the networks that every flow is tried in.
func kinds() []config {
	var all []config
	for _, backend := range []string{"vxlan", "host-gw"} {
		for _, f := range ip.Families() {
			all = append(all, config{backend: backend, family: f})
		}
	}
	if testing.Short() { // as under the race detector
		all = []config{all[0], all[2]} // one over each backend
	}
	return append(all, config{backend: "vxlan", family: ip.IPv4, hook: "clsact", open: fastpath.OpenFilters})
}

// world is a network of hosts on one underlay, which is a bridge in a namespace of its own. What is in the kernel of each host is what tulled would
// have put there.
type world struct {
	config
	t        *testing.T
	network  subnet.Network
	underlay *node
	hosts    []*host
}

// node is a network namespace.
type node struct {
	*netns.Namespace
	t       *testing.T
	netlink *netlink.Handle
}

// host is a machine.
type host struct {
	*node
	world      *world
	number     int
	addr       netip.Addr // on the underlay
	mac        ip.MAC     // of the end of its tunnel
	subnet     netip.Prefix
	containers []*container

	kernel  *kernel.Kernel
	backend backend.Backend
	want    ip.State // of the kernel
	exclude []netip.Prefix

	dir    string // of pins
	engine *engine
}

// container is a namespace behind the bridge of a host.
type container struct {
	*node
	host *host
	port string // the host's end
	addr netip.Addr
	mac  net.HardwareAddr
}

// engine is a fast path that runs.
type engine struct {
	*fastpath.FastPath
	stop func() error // ends it as tulled does
}

// newWorld makes a world in which the containers reach each other, two on each host.
func newWorld(t *testing.T, c config) *world {
	t.Helper()
	if c.hosts == 0 {
		c.hosts = 2
	}
	if c.engines == 0 {
		c.engines = 2
	}
	if c.open == nil {
		c.open = fastpath.Open
	}
	w := &world{config: c, t: t, network: networkOf(t, c), underlay: newNode(t)}
	must(t, w.underlay.netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs("underlay", underlayMTU)}))
	must(t, w.underlay.netlink.LinkSetUp(w.underlay.link("underlay")))
	for i := range c.hosts {
		w.hosts = append(w.hosts, w.newHost(i+1))
	}
	w.converge()
	for _, h := range w.hosts {
		for i := range 2 {
			h.plug(fmt.Sprintf("port%d", i+1), nth(h.subnet, 2+i))
		}
	}
	w.converge() // now that there are containers
	for _, h := range w.hosts[:max(c.engines, 0)] {
		h.accelerate()
	}
	return w
}

// networkOf is the network's configuration.
func networkOf(t *testing.T, c config) subnet.Network {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"EnableIPv4": c.family == ip.IPv4, "Network": "10.244.0.0/16",
		"EnableIPv6": c.family == ip.IPv6, "IPv6Network": "fd10:244::/48",
		"Backend": map[string]any{"Type": c.backend},
	})
	must(t, err)
	network, _, err := flannel.ParseNetwork(text, 1)
	must(t, err)
	return network
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{Namespace: netnstest.New(t), t: t}
	must(t, n.Do(func() (err error) {
		n.netlink, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	}))
	t.Cleanup(n.netlink.Close)
	for _, scope := range []string{"all", "default"} {
		n.set("net/ipv6/conf/"+scope+"/accept_dad", "0") // so that addresses are of use at once
	}
	return n
}

// set writes a setting of the namespace.
func (n *node) set(key, value string) {
	n.t.Helper()
	must(n.t, n.Do(func() error { return os.WriteFile("/proc/sys/"+key, []byte(value), 0) }))
}

func (n *node) link(name string) netlink.Link {
	n.t.Helper()
	link, err := n.netlink.LinkByName(name)
	if err != nil {
		n.t.Fatalf("link %s: %v", name, err)
	}
	return link
}

func attrs(name string, mtu int) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU = name, mtu
	return a
}

// join makes a veth from a port of a bridge to eth0 of another namespace.
func (n *node) join(bridge string, port netlink.LinkAttrs, to *node, mac net.HardwareAddr, addr netip.Prefix) {
	n.t.Helper()
	veth := &netlink.Veth{LinkAttrs: port, PeerName: "eth0", PeerNamespace: netlink.NsFd(to.FD()), PeerMTU: uint32(port.MTU), PeerHardwareAddr: mac}
	must(n.t, n.netlink.LinkAdd(veth))
	must(n.t, n.netlink.LinkSetMaster(n.link(port.Name), n.link(bridge)))
	must(n.t, to.netlink.LinkSetUp(to.link("eth0")))
	must(n.t, n.netlink.LinkSetUp(n.link(port.Name)))
	to.address("eth0", addr)
}

func (n *node) address(link string, p netip.Prefix) {
	n.t.Helper()
	must(n.t, n.netlink.AddrAdd(n.link(link), netlinkAddr(p)))
}

func netlinkAddr(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

// nth is an address of a prefix, counted from its first.
func nth(p netip.Prefix, n int) netip.Addr {
	addr := p.Masked().Addr()
	for range n {
		addr = addr.Next()
	}
	return addr
}

func underlayPrefix(f ip.Family) netip.Prefix {
	return ip.Dual[netip.Prefix]{V4: netip.MustParsePrefix("172.30.0.0/24"), V6: netip.MustParsePrefix("fd30::/64")}.Of(f)
}

func (w *world) newHost(number int) *host {
	t := w.t
	t.Helper()
	h := &host{node: newNode(t), world: w, number: number, dir: filepath.Join(pins(), t.Name(), fmt.Sprint("h", number)),
		addr:   nth(underlayPrefix(w.family), number),
		mac:    ip.MAC{2, 0x42, 0, 0, 0, byte(number)},
		subnet: ip.Dual[netip.Prefix]{V4: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(number), 0}), 24), V6: netip.MustParsePrefix(fmt.Sprintf("fd10:244:0:%d::/64", number))}.Of(w.family),
	}
	mac := net.HardwareAddr{2, 0x30, 0, 0, 0, byte(number)}
	w.underlay.join("underlay", attrs(fmt.Sprint("to-h", number), underlayMTU), h.node, mac, netip.PrefixFrom(h.addr, underlayPrefix(w.family).Bits()))
	var err error
	h.backend, _, err = backend.Open(backends.All(), w.network)
	must(t, err)
	must(t, h.Do(func() (err error) {
		h.kernel, err = kernel.Open()
		return err
	}))
	t.Cleanup(func() { must(t, h.kernel.Close()) })
	b := &netlink.Bridge{LinkAttrs: attrs(bridge, w.mtu())}
	b.HardwareAddr = net.HardwareAddr{2, 0xcc, 0, 0, 0, byte(number)}
	must(t, h.netlink.LinkAdd(b))
	must(t, h.netlink.LinkSetUp(h.link(bridge)))
	h.address(bridge, netip.PrefixFrom(nth(h.subnet, 1), h.subnet.Bits()))
	h.set(liberalSetting, "0")
	return h
}

// mtu is that of containers.
func (w *world) mtu() int {
	if w.containerMTU != 0 {
		return w.containerMTU
	}
	b, _, err := backend.Open(backends.All(), w.network)
	must(w.t, err)
	mtu, err := b.MTU(ip.Uplink{Link: uplink, MTU: underlayMTU})
	must(w.t, err)
	return mtu
}

// plug gives the host a container.
func (h *host) plug(port string, addr netip.Addr) *container {
	h.t.Helper()
	return h.plugAs(attrs(port, h.world.mtu()), addr)
}

func (h *host) plugAs(port netlink.LinkAttrs, addr netip.Addr) *container {
	h.t.Helper()
	c := &container{node: newNode(h.t), host: h, port: port.Name, addr: addr}
	h.join(bridge, port, c.node, nil, netip.PrefixFrom(addr, h.subnet.Bits()))
	c.mac = c.link("eth0").Attrs().HardwareAddr
	gateway := nth(h.subnet, 1)
	must(h.t, c.netlink.RouteAdd(&netlink.Route{LinkIndex: c.link("eth0").Attrs().Index, Gw: gateway.AsSlice()}))
	h.containers = append(h.containers, c)
	return c
}

// unplug takes a container off the host, as its end does.
func (h *host) unplug(c *container) {
	h.t.Helper()
	h.containers = slices.DeleteFunc(h.containers, func(other *container) bool { return other == c })
	must(h.t, h.netlink.LinkDel(h.link(c.port)))
}

// lease is what the host announces.
func (h *host) lease() *subnet.Lease {
	l := &subnet.Lease{Created: subnet.Revision(h.number), Revision: subnet.Revision(h.number)}
	l.Subnets.Set(h.world.family, h.subnet)
	l.Attrs = subnet.Attrs{Node: fmt.Sprint("h", h.number), BackendType: h.world.network.Backend.Type}
	l.Attrs.Public.Set(h.world.family, h.addr)
	l.Attrs.BackendData.Set(h.world.family, fmt.Appendf(nil, `{"VNI":1,"VtepMAC":"%s"}`, h.mac))
	return l
}

// converge makes the kernels of all hosts as wanted.
func (w *world) converge() {
	w.t.Helper()
	for _, h := range w.hosts {
		h.converge()
	}
}

// converge makes the host's kernel as wanted, of all other hosts' leases, and tells the engine if it runs.
func (h *host) converge() {
	h.t.Helper()
	var plan ip.Plan
	for range 5 {
		if plan = h.pass(); len(plan) == 0 {
			if h.engine != nil {
				h.engine.Want(h.fastPath())
			}
			return
		}
	}
	h.t.Fatalf("host %d does not converge:\n%s", h.number, plan)
}

// pass is one pass of tulled. It returns what there was to do.
func (h *host) pass() ip.Plan {
	t, w := h.t, h.world
	t.Helper()
	var peers []*subnet.Lease
	for _, other := range w.hosts {
		if other != h {
			peers = append(peers, other.lease())
		}
	}
	scope := h.backend.Scope(peers)
	scope.Networks, scope.Uplinks = w.network.Prefixes(), []string{uplink}
	options := decision.Options{IPMasq: true, PeerFilter: true, SourceCheck: !w.unchecked, FastPath: !w.strict}
	scope.Sysctls = append(scope.Sysctls, decision.Settings(w.network, options)...)
	snap, err := h.kernel.Snapshot(t.Context(), scope)
	must(t, err)
	in := decision.Inputs{
		Network: &w.network, Backend: h.backend, Self: *h.lease(), Leases: append(peers, h.lease()), Usable: peers, Kernel: snap,
		Options: options,
		Host:    backend.Host{Node: fmt.Sprint("h", h.number), Links: snap.Owned.Links, Paths: snap.Paths, Own: map[netip.Addr]bool{}},
	}
	in.Host.Uplink = ip.Uplink{Link: uplink, MTU: underlayMTU}
	in.Host.Uplink.Addr.Set(w.family, h.addr)
	in.Host.Uplink.Public = in.Host.Uplink.Addr
	for _, i := range snap.Interfaces {
		for _, a := range i.Addrs {
			in.Host.Own[a.Prefix.Addr()] = true
		}
	}
	d := decision.Decide(in)
	if len(d.Unserved) > 0 {
		t.Fatalf("host %d cannot serve %v", h.number, d.Unserved)
	}
	h.want = d.Want
	plan := ip.Diff(snap.Owned, d.Want)
	must(t, h.kernel.Apply(t.Context(), plan))
	return plan
}

// fastPath is what tulled would want of the engine.
func (h *host) fastPath() ip.FastPath {
	return ip.FastPathOf(h.want, []string{uplink}, []string{bridge}, []netip.Prefix{h.subnet}, h.exclude)
}

// accelerate runs an engine on the host, and returns once it is on.
func (h *host) accelerate() {
	h.t.Helper()
	h.engine = h.start(h.world.open)
	h.awaitOn()
	if h.world.observed {
		h.observeAtDevice()
	}
}

// start runs an engine on the host until the test ends, or it is stopped.
func (h *host) start(open func(fastpath.Config) (*fastpath.FastPath, error)) *engine {
	h.t.Helper()
	e := &engine{}
	must(h.t, h.Do(func() (err error) {
		e.FastPath, err = open(fastpath.Config{Dir: h.dir, Log: testLog(h.t, h.number)})
		return err
	}))
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	e.Want(h.fastPath())
	e.stop = sync.OnceValue(func() error {
		cancel()
		if err := <-ended; ctx.Err() == nil {
			return fmt.Errorf("it ends by itself: %w", err)
		}
		return e.Close()
	})
	h.t.Cleanup(func() {
		must(h.t, e.stop())
		must(h.t, h.Do(func() error { return fastpath.Remove(h.dir) }))
	})
	return e
}

// awaitOn waits until all ports of containers have the fast path.
func (h *host) awaitOn() {
	h.t.Helper()
	ports := len(h.containers)
	if !eventually(healTimeout, func() bool { s := h.engine.State(); return s.On && s.Ports == ports }) {
		h.t.Fatalf("the fast path of host %d stands at %s, want on, with %d ports", h.number, show(h.engine.State()), ports)
	}
}

func show(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pollInterval is the time between two looks.
const pollInterval = time.Millisecond

// healTimeout is how long a busy machine may take for what happens within two seconds.
const healTimeout = 10 * time.Second

// eventually reports whether something becomes true in time.
func eventually(timeout time.Duration, done func() bool) bool {
	for deadline := time.Now().Add(timeout); ; <-time.After(pollInterval) {
		if done() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}
