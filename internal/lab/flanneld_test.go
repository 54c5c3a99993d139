//go:build linux

package lab_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tulle/internal/lab"
	"tulle/ip"
)

// protocolBoot is the protocol of routes that name none, as flanneld's do not.
const protocolBoot = 3

// flanneld is a host as flanneld's vxlan backend leaves it.
type flanneld struct {
	lab    *lab.Lab
	host   *lab.Host
	subnet ip.Dual[netip.Prefix]
	mac    ip.Dual[net.HardwareAddr]
	link   ip.Dual[*netlink.Vxlan]
}

func newFlanneld(t *testing.T, l *lab.Lab, host *lab.Host) *flanneld {
	t.Helper()
	f := &flanneld{lab: l, host: host}
	f.subnet.V4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, 77, 0}), 24)
	f.subnet.V6 = netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0x10, 0x02, 0x44, 7: 0x4d}), 64)
	f.mac.V4 = net.HardwareAddr{0x5a, 0x1c, 0x3e, 0x77, 0x00, 0x04}
	f.mac.V6 = net.HardwareAddr{0x5a, 0x1c, 0x3e, 0x77, 0x00, 0x06}
	for _, family := range l.Config.Families {
		f.addDevice(t, family)
	}
	f.writeSubnetFile(t)
	f.forward(t)
	return f
}

func (f *flanneld) device(family ip.Family) string {
	if family == ip.IPv4 {
		return "flannel.1"
	}
	return "flannel-v6.1"
}

func (f *flanneld) addDevice(t *testing.T, family ip.Family) {
	t.Helper()
	uplink, err := f.host.Netlink.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = f.device(family)
	attrs.HardwareAddr = f.mac.Of(family)
	attrs.MTU = 1450
	if family == ip.IPv6 {
		attrs.MTU = 1430
	}
	link := &netlink.Vxlan{
		LinkAttrs:    attrs,
		VxlanId:      1,
		VtepDevIndex: uplink.Attrs().Index,
		SrcAddr:      f.host.Addr.Of(family).AsSlice(),
	}
	if err := f.host.Netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	if err := f.host.Netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	subnet := f.subnet.Of(family)
	own := netip.PrefixFrom(subnet.Addr(), subnet.Addr().BitLen())
	if err := f.host.Netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(own)}); err != nil {
		t.Fatal(err)
	}
	f.link.Set(family, link)
}

func (f *flanneld) writeSubnetFile(t *testing.T) {
	t.Helper()
	var text strings.Builder
	mtu := 1450
	for _, family := range f.lab.Config.Families {
		prefix := ""
		if family == ip.IPv6 {
			prefix, mtu = "IPV6_", 1430
		}
		subnet := f.subnet.Of(family)
		fmt.Fprintf(&text, "FLANNEL_%sNETWORK=%s\n", prefix, f.lab.Config.Network.Of(family))
		fmt.Fprintf(&text, "FLANNEL_%sSUBNET=%s/%d\n", prefix, subnet.Addr().Next(), subnet.Bits())
	}
	fmt.Fprintf(&text, "FLANNEL_MTU=%d\nFLANNEL_IPMASQ=true\n", mtu)
	if err := os.MkdirAll(f.host.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.host.SubnetFile(), []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// forward does what flanneld leaves to its operator.
func (f *flanneld) forward(t *testing.T) {
	t.Helper()
	if err := f.host.Do(func() error {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
			return err
		}
		return os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0)
	}); err != nil {
		t.Fatal(err)
	}
}

// lease writes the host's lease as flanneld does.
func (f *flanneld) lease(t *testing.T) {
	t.Helper()
	dual := len(f.lab.Config.Families) == 2
	name := keyPart(f.subnet.V4)
	publicIPv6 := "null"
	var more string
	if dual {
		name += "&" + keyPart(f.subnet.V6)
		publicIPv6 = `"` + f.host.Addr.V6.String() + `"`
		more = fmt.Sprintf(`,"BackendV6Data":{"VNI":1,"VtepMAC":"%s"}`, f.mac.V6)
	}
	value := fmt.Sprintf(`{"PublicIP":"%s","PublicIPv6":%s,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"%s"}%s}`,
		f.host.Addr.V4, publicIPv6, f.mac.V4, more)
	if err := f.lab.Etcd.PutLeased(t.Context(), f.lab.Etcd.Key("subnets/"+name), value, 24*time.Hour); err != nil {
		t.Fatal(err)
	}
}

func keyPart(subnet netip.Prefix) string { return fmt.Sprintf("%s-%d", subnet.Addr(), subnet.Bits()) }

// peerLease is a lease as flanneld reads it.
type peerLease struct {
	PublicIP      netip.Addr
	PublicIPv6    netip.Addr
	BackendData   struct{ VtepMAC string }
	BackendV6Data struct{ VtepMAC string }
}

// connect programs the other host's lease as flanneld does: neighbour, FDB
// entry, and a route with neither metric nor protocol.
func (f *flanneld) connect(t *testing.T, peer *lab.Host) {
	t.Helper()
	env, err := peer.ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	leases, err := f.lab.Etcd.Get(t.Context(), f.lab.Etcd.Key("subnets/"))
	if err != nil {
		t.Fatal(err)
	}
	prefix := keyPart(env.Subnets.V4)
	for key, value := range leases {
		if !strings.HasPrefix(path.Base(key), prefix) {
			continue
		}
		var lease peerLease
		if err := json.Unmarshal([]byte(value), &lease); err != nil {
			t.Fatal(err)
		}
		public := ip.Dual[netip.Addr]{V4: lease.PublicIP, V6: lease.PublicIPv6}
		mac := ip.Dual[string]{V4: lease.BackendData.VtepMAC, V6: lease.BackendV6Data.VtepMAC}
		for _, family := range f.lab.Config.Families {
			f.addPeer(t, family, env.Subnets.Of(family), public.Of(family), mac.Of(family))
		}
		return
	}
	t.Fatalf("no lease of %s in %v", peer, leases)
}

func (f *flanneld) addPeer(t *testing.T, family ip.Family, subnet netip.Prefix, public netip.Addr, vtepMAC string) {
	t.Helper()
	mac, err := net.ParseMAC(vtepMAC)
	if err != nil {
		t.Fatal(err)
	}
	index := f.link.Of(family).Index
	gateway := subnet.Addr().AsSlice()
	for _, add := range []func() error{
		func() error {
			return f.host.Netlink.NeighSet(&netlink.Neigh{
				LinkIndex: index, State: unix.NUD_PERMANENT, Type: unix.RTN_UNICAST, IP: gateway, HardwareAddr: mac,
			})
		},
		func() error {
			return f.host.Netlink.NeighSet(&netlink.Neigh{
				LinkIndex: index, State: unix.NUD_PERMANENT, Family: unix.AF_BRIDGE, Flags: unix.NTF_SELF,
				IP: public.AsSlice(), HardwareAddr: mac,
			})
		},
		func() error {
			return f.host.Netlink.RouteReplace(&netlink.Route{
				LinkIndex: index, Scope: unix.RT_SCOPE_UNIVERSE, Dst: ipNet(subnet), Gw: gateway, Flags: int(netlink.FLAG_ONLINK),
			})
		},
	} {
		if err := add(); err != nil {
			t.Fatal(err)
		}
	}
}

func ipNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
}
