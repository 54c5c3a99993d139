//go:build linux

package lab_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
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
	subnet, err := peer.ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	leases, err := f.lab.Etcd.Get(t.Context(), f.lab.Etcd.Key("subnets/"))
	if err != nil {
		t.Fatal(err)
	}
	prefix := keyPart(subnet.Gateway.V4.Masked())
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
			f.addPeer(t, family, subnet.Gateway.Of(family).Masked(), public.Of(family), mac.Of(family))
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

// addIPTables makes the chains of flanneld's iptables mode.
func (f *flanneld) addIPTables(t *testing.T) {
	for _, family := range f.lab.Config.Families {
		network, pod := f.lab.Config.Network.Of(family).String(), f.subnet.Of(family).String()
		multicast := family.Multicast().String()
		for _, line := range []string{
			"-t nat -N FLANNEL-POSTRTG",
			"-t nat -A POSTROUTING -m comment --comment flanneld_masq -j FLANNEL-POSTRTG",
			"-t nat -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN",
			"-t nat -A FLANNEL-POSTRTG -s " + pod + " -d " + network + " -j RETURN",
			"-t nat -A FLANNEL-POSTRTG -s " + network + " -d " + pod + " -j RETURN",
			"-t nat -A FLANNEL-POSTRTG ! -s " + network + " -d " + pod + " -j RETURN",
			"-t nat -A FLANNEL-POSTRTG -s " + network + " ! -d " + multicast + " -j MASQUERADE --random-fully",
			"-t nat -A FLANNEL-POSTRTG ! -s " + network + " -d " + network + " -j MASQUERADE --random-fully",
			"-N FLANNEL-FWD",
			"-A FORWARD -m comment --comment flanneld_forward -j FLANNEL-FWD",
			"-A FLANNEL-FWD -s " + network + " -j ACCEPT",
			"-A FLANNEL-FWD -d " + network + " -j ACCEPT",
		} {
			f.run(t, family, "", ruleArgs(line)...)
		}
	}
}

// ruleArgs splits a rule into arguments. An underscore stands for a blank.
func ruleArgs(rule string) []string {
	args := strings.Fields(rule)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "_", " ")
	}
	return args
}

// run runs iptables, ip6tables, or what their names begin with, in the host.
func (f *flanneld) run(t *testing.T, family ip.Family, suffix string, args ...string) string {
	t.Helper()
	program := "iptables" + suffix
	if family == ip.IPv6 {
		program = "ip6tables" + suffix
	}
	var output, errors bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Stdout, cmd.Stderr = &output, &errors
	if err := f.host.Namespace().Start(cmd); err != nil {
		t.Fatalf("%v (Debian has it in the package iptables)", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s: %v: %s", cmd, err, &errors)
	}
	return output.String()
}

// addNFTables makes the tables and chains of flanneld's nftables mode. Both
// tables exist in every mode. Of their rules one stands for all.
func (f *flanneld) addNFTables(t *testing.T) {
	conn, err := nftables.New(nftables.WithNetNSFd(f.host.Namespace().FD()))
	if err != nil {
		t.Fatal(err)
	}
	accept := nftables.ChainPolicyAccept
	for name, family := range map[string]nftables.TableFamily{
		"flannel-ipv4": nftables.TableFamilyIPv4,
		"flannel-ipv6": nftables.TableFamilyIPv6,
	} {
		table := conn.AddTable(&nftables.Table{Name: name, Family: family})
		conn.AddChain(&nftables.Chain{
			Name: "postrtg", Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
		})
		forward := conn.AddChain(&nftables.Chain{
			Name: "forward", Table: table, Type: nftables.ChainTypeFilter, Policy: &accept,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
		})
		conn.AddRule(&nftables.Rule{Table: table, Chain: forward, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}})
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
}

func ipNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
}
