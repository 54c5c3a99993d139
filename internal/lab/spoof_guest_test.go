//go:build linux

package lab_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/internal/netns"
	"tulle/internal/netns/netnstest"
	"tulle/ip"
)

// Whatever bridge a guest is behind, and whoever translates its address, it injects nothing. A guest that is a peer itself, and
// routed as it is, goes on being one.
func TestGuestsOfOtherBridges(t *testing.T) {
	s := newSpoofing(t, lab.Config{})
	guest := netnstest.New(t)
	s.addGuest(t, guest)
	for f, program := range map[ip.Family]string{ip.IPv4: "iptables", ip.IPv6: "ip6tables"} {
		addr, port := guestAddr(f), uint16(40000) // another for each: what is not translated once is not later
		inject := func(outer, inner netip.Addr, text string) []string {
			t.Helper()
			to := netip.AddrPortFrom(s.victim.Addr.Of(f), 8472)
			payload := s.tunnelled(t, f, inner, s.inside[f], text)
			netnstest.SendIP(t, guest.Do, netnstest.UDP(netip.AddrPortFrom(outer, port), to, payload))
			port++
			return s.arrived(t, f, s.inside[f])
		}
		own := s.attacker.Containers[0].Addr.Of(f)
		injected, strangers := dropped(t, s.attacker, "injected"), dropped(t, s.victim, "strangers")
		if texts := inject(addr, own, "routed"); len(texts) > 0 {
			t.Errorf("%s: a stranger is let in: %s", f, texts)
		}
		s.requireDropped(t, s.attacker, "injected", injected, 0)
		s.requireDropped(t, s.victim, "strangers", strangers, 1)

		run(t, s.attacker, "", program+"-nft", "-w", "5", "-t", "nat", "-A", "POSTROUTING", "-s", addr.String(), "-j", "MASQUERADE")
		if texts := inject(addr, own, "masqueraded"); len(texts) > 0 {
			t.Errorf("%s: what is masqueraded arrives: %s", f, texts)
		}
		if texts := inject(s.third.Addr.Of(f), s.third.Containers[0].Addr.Of(f), "as a peer"); len(texts) > 0 {
			t.Errorf("%s: what has another host's source arrives: %s", f, texts)
		}
		s.requireDropped(t, s.attacker, "injected", injected, 1)
		s.requireDropped(t, s.victim, "strangers", strangers, 2) // it came as it was
		run(t, s.attacker, "", program+"-nft", "-w", "5", "-t", "nat", "-D", "POSTROUTING", "-s", addr.String(), "-j", "MASQUERADE")

		// Another VXLAN on that port is nobody's business, and is translated as ever.
		router, err := s.Namespace("router")
		if err != nil {
			t.Fatal(err)
		}
		there := listen(t, router.Do, s.RouterAddr(f, s.attacker.Segment), 8472)
		run(t, s.attacker, "", program+"-nft", "-w", "5", "-t", "nat", "-A", "POSTROUTING", "-s", addr.String(), "-j", "MASQUERADE")
		netnstest.SendIP(t, guest.Do, netnstest.UDP(netip.AddrPortFrom(addr, port), addrOf(there), netnstest.VXLAN(42, []byte("another"))))
		there.SetReadDeadline(time.Now().Add(labtest.Limit(healTimeout)))
		if _, from, err := there.ReadFromUDPAddrPort(make([]byte, 64)); err != nil || from.Addr().Unmap() != s.attacker.Addr.Of(f) {
			t.Errorf("%s: another VXLAN comes from %v, %v, want %v", f, from, err, s.attacker.Addr.Of(f))
		}
		there.Close()
		port++
		run(t, s.attacker, "", program+"-nft", "-w", "5", "-t", "nat", "-D", "POSTROUTING", "-s", addr.String(), "-j", "MASQUERADE")

		// Others may translate before iptables does.
		family := ip.Dual[string]{V4: "ip", V6: "ip6"}.Of(f)
		run(t, s.attacker, "", "nft", fmt.Sprintf("add table %[1]s early; add chain %[1]s early post { type nat hook postrouting priority -150; policy accept; }; add rule %[1]s early post %[1]s saddr %[2]s masquerade", family, addr))
		if texts := inject(addr, own, "masqueraded early"); len(texts) > 0 {
			t.Errorf("%s: what is masqueraded before iptables arrives: %s", f, texts)
		}
		s.requireDropped(t, s.victim, "strangers", strangers, 3)
		run(t, s.attacker, "", "nft", "delete table "+family+" early")

		// An answer leaves with the address that was asked, which is its host's.
		published := netip.AddrPortFrom(addr, port)
		run(t, s.attacker, "", program+"-nft", "-w", "5", "-t", "nat", "-A", "PREROUTING", "-p", "udp", "--dport", fmt.Sprint(port), "-j", "DNAT", "--to-destination", published.String())
		at := listen(t, guest.Do, addr, port)
		question := netnstest.UDP(netip.AddrPortFrom(s.victim.Addr.Of(f), 8472), netip.AddrPortFrom(s.attacker.Addr.Of(f), port), []byte("hello"))
		netnstest.SendIP(t, s.victim.Do, question)
		at.SetReadDeadline(time.Now().Add(labtest.Limit(healTimeout)))
		if _, err := at.Read(make([]byte, 16)); err != nil {
			t.Fatal(err)
		}
		if texts := inject(addr, own, "answered"); len(texts) > 0 {
			t.Errorf("%s: an answer arrives: %s", f, texts)
		}
		s.requireDropped(t, s.attacker, "injected", injected, 2)
	}

	// Now the guest gets a lease.
	if err := s.Etcd.Put(t.Context(), s.Etcd.Key("subnets/10.244.77.0-24"),
		`{"PublicIP":"`+guestAddr(ip.IPv4).String()+`","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:77"}}`); err != nil {
		t.Fatal(err)
	}
	if !eventually(healTimeout, func() bool {
		to := netip.AddrPortFrom(s.victim.Addr.V4, 8472)
		payload := s.tunnelled(t, ip.IPv4, netip.MustParseAddr("10.244.77.5"), s.inside[ip.IPv4], "from a peer")
		netnstest.SendIP(t, guest.Do, netnstest.UDP(netip.AddrPortFrom(guestAddr(ip.IPv4), 40000), to, payload))
		return len(s.arrived(t, ip.IPv4, s.inside[ip.IPv4])) > 0
	}) {
		t.Error("a guest that is a peer is not heard")
	}
}

func guestAddr(f ip.Family) netip.Addr {
	return ip.Dual[netip.Addr]{V4: netip.MustParseAddr("203.0.113.2"), V6: netip.MustParseAddr("2001:db8:113::2")}.Of(f)
}

// Nobody behind a host speaks to its tunnel as a peer, whichever of the host's addresses that is.
func TestGuestIsNoPeer(t *testing.T) {
	s := newSpoofing(t, lab.Config{})
	container := s.victim.Containers[0]
	for _, f := range s.Config.Families {
		before := dropped(t, s.victim, "injected")
		targets := []netip.Addr{s.victim.Addr.Of(f), container.Addr.Of(f).Prev()}
		for _, to := range targets {
			payload := s.tunnelled(t, f, s.third.Containers[0].Addr.Of(f), s.inside[f], "by way of "+to.String())
			netnstest.SendIP(t, container.Do, netnstest.UDP(netip.AddrPortFrom(s.third.Addr.Of(f), 40000), netip.AddrPortFrom(to, 8472), payload))
		}
		if texts := s.arrived(t, f, s.inside[f]); len(texts) > 0 {
			t.Errorf("%s: what comes as a peer's arrives: %s", f, texts)
		}
		s.requireDropped(t, s.victim, "injected", before, len(targets))
	}
}

// addGuest puts a namespace behind a bridge of the attacker that has nothing to do with the network.
func (s *spoofing) addGuest(t *testing.T, guest *netns.Namespace) {
	t.Helper()
	script := func(ns *netns.Namespace, text string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "ip", "-batch", "-")
		cmd.Stdin = strings.NewReader(text)
		var output bytes.Buffer
		cmd.Stdout, cmd.Stderr = &output, &output
		if err := ns.Do(cmd.Start); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v: %s", err, &output)
		}
	}
	script(s.attacker.Namespace(), `link add virbr0 type bridge
link set virbr0 up
address add 203.0.113.1/24 dev virbr0
address add 2001:db8:113::1/64 dev virbr0 nodad
link add vnet0 type veth peer name vnet1
link set vnet0 master virbr0 up
`)
	link, err := s.attacker.Netlink.LinkByName("vnet1")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.attacker.Netlink.LinkSetNsFd(link, guest.FD()); err != nil {
		t.Fatal(err)
	}
	script(guest, `link set vnet1 up
address add 203.0.113.2/24 dev vnet1
address add 2001:db8:113::2/64 dev vnet1 nodad
route add default via 203.0.113.1
route add default via 2001:db8:113::1
`)
}
