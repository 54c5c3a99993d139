package bridge_test

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"tulle/internal/netns/netnstest"
	"tulle/ip/kernel/bridge"
)

func TestBridge(t *testing.T) {
	ns := netnstest.New(t)
	err := ns.Do(func() error {
		build(t)
		v4, v6 := netip.MustParsePrefix("10.50.7.1/24"), netip.MustParsePrefix("fc00:50::1/64")
		if got := globalAddrs(t, "br0"); !slices.Equal(got, []netip.Prefix{v4, v6}) {
			t.Errorf("addresses = %v, want %v and %v", got, v4, v6)
		}
		ports, err := bridge.Ports("br0")
		if want := []string{"port"}; err != nil || !slices.Equal(ports, want) {
			t.Errorf("ports = %q, %v; want %q", ports, err, want)
		}
		for range 2 {
			for _, addr := range []netip.Prefix{v4, v6} {
				if err := bridge.RemoveAddr("br0", addr); err != nil {
					t.Errorf("remove %s: %v", addr, err)
				}
			}
		}
		if got := globalAddrs(t, "br0"); len(got) > 0 {
			t.Errorf("addresses after their removal = %v", got)
		}
		for _, name := range []string{"none", "port"} {
			if got := globalAddrs(t, name); len(got) > 0 {
				t.Errorf("addresses of %s, which is no bridge = %v", name, got)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMark(t *testing.T) {
	ns := netnstest.New(t)
	err := ns.Do(func() error {
		build(t)
		want := func(want ...bridge.Marked) {
			t.Helper()
			got, err := bridge.ListMarked()
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("marked bridges, %v, differ (-want +got):\n%s", err, diff)
			}
		}
		want()
		for _, name := range []string{"none", "port", "br0", "br0"} {
			if err := bridge.Mark(name); err != nil {
				t.Error(err)
			}
		}
		want(bridge.Marked{Name: "br0", Ports: []string{"port"}})
		for _, name := range []string{"port", "br0", "br0"} {
			if err := bridge.Remove(name); err != nil {
				t.Error(err)
			}
		}
		want()
		if exists, err := bridge.Exists("br0"); err != nil || exists {
			t.Errorf("the bridge exists = %t, %v after its removal", exists, err)
		}

		// What an alias says is the operator's.
		build(t)
		link, err := netlink.LinkByName("br0")
		if err != nil {
			return err
		}
		if err := errors.Join(netlink.LinkSetAlias(link, "mine"), bridge.Mark("br0")); err != nil {
			return err
		}
		want()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestRemoveRoute(t *testing.T) {
	ns := netnstest.New(t)
	err := ns.Do(func() error {
		build(t)
		link, err := netlink.LinkByName("br0")
		if err != nil {
			return err
		}
		for _, text := range []string{"10.51.0.0/24", "fc00:51::/64"} {
			network := netip.MustParsePrefix(text)
			to := &net.IPNet{IP: network.Addr().AsSlice(), Mask: net.CIDRMask(network.Bits(), network.Addr().BitLen())}
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: to}); err != nil {
				return err
			}
			for range 2 {
				if err := bridge.RemoveRoute("br0", network); err != nil {
					t.Errorf("remove route to %s: %v", network, err)
				}
			}
			left, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Dst: to}, netlink.RT_FILTER_DST)
			if err != nil || len(left) > 0 {
				t.Errorf("routes to %s after their removal = %v (%v)", network, left, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestReadInterface(t *testing.T) {
	ns := netnstest.New(t)
	err := ns.Do(func() error {
		build(t)
		if _, err := bridge.ReadInterface("none"); err == nil {
			t.Error("an interface that does not exist is read")
		}
		i, err := bridge.ReadInterface("br0")
		if err != nil || i.MTU != 1450 {
			t.Errorf("interface = %+v, %v; want MTU 1450", i, err)
		}
		for gateway, everywhere := range map[string]string{"10.50.7.9": "0.0.0.0/0", "fc00:50::9": "::/0"} {
			addr, all := netip.MustParseAddr(gateway), netip.MustParsePrefix(everywhere)
			if slices.Contains(i.Routes, all) {
				t.Errorf("routes %v, want none to %s", i.Routes, all)
			}
			if err := netlink.RouteAdd(&netlink.Route{Gw: addr.AsSlice()}); err != nil {
				t.Fatal(err)
			}
			if i, err = bridge.ReadInterface("br0"); err != nil || !slices.Contains(i.Routes, all) {
				t.Errorf("routes %v, %v; want one to %s", i.Routes, err, all)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// build makes a bridge with addresses and a port in the namespace of the calling thread.
func build(t *testing.T) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = "br0", 1450
	br := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(br); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"10.50.7.1/24", "fc00:50::1/64"} {
		p := netip.MustParsePrefix(text)
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
		if err := netlink.AddrAdd(br, addr); err != nil {
			t.Fatal(err)
		}
	}
	attrs = netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.MasterIndex = "port", 1450, br.Index
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer"}); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(br); err != nil {
		t.Fatal(err)
	}
}

func globalAddrs(t *testing.T, name string) []netip.Prefix {
	t.Helper()
	addrs, err := bridge.Addrs(name)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(addrs, func(p netip.Prefix) bool { return !p.Addr().IsGlobalUnicast() })
}
