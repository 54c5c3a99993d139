//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tulle/internal/netns"
	"tulle/ip"
)

// node is a namespace with a netlink socket in it: a host, a container or the
// router.
type node struct {
	name string
	ns   *netns.Namespace
	// Netlink acts inside the namespace, from any goroutine.
	Netlink *netlink.Handle
}

// newNode creates a node, pinned in directory pins unless that is empty.
func newNode(name, pins string) (*node, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	if pins != "" {
		if err := ns.Pin(pinPath(pins, name)); err != nil {
			return nil, errors.Join(err, ns.Close())
		}
	}
	return attach(name, ns)
}

// openNode returns a node that another process has pinned.
func openNode(name, pins string) (*node, error) {
	ns, err := netns.Open(pinPath(pins, name))
	if err != nil {
		return nil, err
	}
	return attach(name, ns)
}

func pinPath(pins, name string) string {
	return filepath.Join(pins, strings.ReplaceAll(name, "/", "-"))
}

func attach(name string, ns *netns.Namespace) (*node, error) {
	n := &node{name: name, ns: ns}
	err := ns.Do(func() (err error) {
		n.Netlink, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open netlink in %s: %w", name, err), ns.Close())
	}
	return n, nil
}

func (n *node) close() error {
	n.Netlink.Close()
	return n.ns.Close()
}

// String is the node's name.
func (n *node) String() string { return n.name }

// Do runs fn inside the node: see [netns.Namespace.Do].
func (n *node) Do(fn func() error) error { return n.ns.Do(fn) }

// addAddress gives link an address that is usable at once: without duplicate
// address detection.
func (n *node) addAddress(link netlink.Link, prefix netip.Prefix) error {
	address := &netlink.Addr{IPNet: ipNet(prefix)}
	if ip.FamilyOf(prefix.Addr()) == ip.IPv6 {
		address.Flags = unix.IFA_F_NODAD
	}
	if err := n.Netlink.AddrAdd(link, address); err != nil {
		return fmt.Errorf("add address %s to %s of %s: %w", prefix, link.Attrs().Name, n, err)
	}
	return nil
}

func (n *node) addDefaultRoute(gateway netip.Addr) error {
	route := &netlink.Route{Gw: gateway.AsSlice()}
	if err := n.Netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("add default route of %s via %s: %w", n, gateway, err)
	}
	return nil
}

// AddRoute adds a route through a gateway on a connected network.
func (n *node) AddRoute(to netip.Prefix, via netip.Addr) error {
	if err := n.Netlink.RouteAdd(&netlink.Route{Dst: ipNet(to), Gw: via.AsSlice()}); err != nil {
		return fmt.Errorf("add route of %s to %s via %s: %w", n, to, via, err)
	}
	return nil
}

// linkUp sets the named link up and returns it. Its link-local address skips
// duplicate address detection: until it is usable, for up to 2 seconds, the
// kernel cannot resolve neighbours for traffic that it forwards.
func (n *node) linkUp(name string) (netlink.Link, error) {
	link, err := n.Netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find link %s of %s: %w", name, n, err)
	}
	if err := n.setSysctls(map[string]string{"ipv6/conf/" + name + "/accept_dad": "0"}); err != nil {
		return nil, err
	}
	if err := n.Netlink.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("set link %s of %s up: %w", name, n, err)
	}
	return link, nil
}

// addBridge makes a bridge that is up. Its MAC is fixed: the kernel would
// otherwise change it whenever a port with a lower one is attached.
func (n *node) addBridge(name string, mtu int, mac net.HardwareAddr) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = name, mtu, mac
	snooping := false
	bridge := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}
	if err := n.Netlink.LinkAdd(bridge); err != nil {
		return nil, fmt.Errorf("add bridge %s to %s: %w", name, n, err)
	}
	return n.linkUp(name)
}

// plug connects link "eth0" of leaf to a port of bridge in n. Both are up.
func (n *node) plug(bridge netlink.Link, port string, leaf *node, mtu int) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = port, mtu
	veth := &netlink.Veth{
		LinkAttrs:     attrs,
		PeerName:      uplink,
		PeerNamespace: netlink.NsFd(leaf.ns.FD()),
		PeerMTU:       uint32(mtu),
	}
	if err := n.Netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("connect %s to %s: %w", leaf, n, err)
	}
	near, err := n.linkUp(port)
	if err != nil {
		return nil, err
	}
	if err := n.Netlink.LinkSetMaster(near, bridge); err != nil {
		return nil, fmt.Errorf("attach %s to bridge %s of %s: %w", port, bridge.Attrs().Name, n, err)
	}
	return leaf.linkUp(uplink)
}

// setSysctls writes settings below /proc/sys/net, such as "ipv4/ip_forward".
func (n *node) setSysctls(settings map[string]string) error {
	return n.Do(func() error {
		for key, value := range settings {
			if err := os.WriteFile(filepath.Join("/proc/sys/net", key), []byte(value), 0); err != nil {
				return fmt.Errorf("set sysctl of %s: %w", n, err)
			}
		}
		return nil
	})
}

// sysctl reads a setting below /proc/sys/net.
func (n *node) sysctl(key string) (value string, err error) {
	err = n.Do(func() error {
		text, err := os.ReadFile(filepath.Join("/proc/sys/net", key))
		value = strings.TrimSpace(string(text))
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read sysctl of %s: %w", n, err)
	}
	return value, nil
}

func ipNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{
		IP:   prefix.Addr().AsSlice(),
		Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
	}
}
