//go:build linux

package lab_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/internal/netns"
	"tulle/internal/netns/netnstest"
	"tulle/ip"
)

// Whoever is no peer gets no frame into the overlay, neither from the underlay nor out of a container. Switched off, the
// filter lets the same packets through.
func TestPeersOnly(t *testing.T) {
	for _, filter := range []string{"on", "off"} {
		t.Run(filter, func(t *testing.T) {
			t.Parallel()
			l := upLab(t, lab.Config{Hosts: 2, Containers: 1, DaemonArgs: func(*lab.Host) []string { return []string{"--peer-filter", filter} }})
			requireMatrix(t, l)
			host := l.Hosts[0]
			env, err := host.ReadSubnetFile()
			if err != nil {
				t.Fatal(err)
			}
			router, err := l.Namespace("router")
			if err != nil {
				t.Fatal(err)
			}
			for _, family := range l.Config.Families {
				for _, intruder := range []struct {
					name string
					ns   *netns.Namespace
					door netip.Addr
				}{
					{"router", router, host.Addr.Of(family)},
					{"container", namespace(t, l, host.Containers[0].Name), env.Gateway(family).Addr()},
				} {
					t.Run(fmt.Sprint(family, " ", intruder.name), func(t *testing.T) {
						dropped := strangers(t, host)
						arrived := intrude(t, l, family, intruder.ns, intruder.door)
						if filter == "off" {
							if err := arrived(5 * time.Second); err != nil {
								t.Errorf("nothing arrives although the filter is off: %v", err)
							}
							return
						}
						if !eventually(healTimeout, func() bool { return strangers(t, host) == dropped+1 }) {
							t.Errorf("%d packets counted, want one more than %d", strangers(t, host), dropped)
						}
						if err := arrived(100 * time.Millisecond); err == nil {
							t.Error("the packet arrives in the container")
						}
					})
				}
			}
			requireStatusTells(t, l, host, filter == "on")
			requireMatrix(t, l)
		})
	}
}

func namespace(t *testing.T, l *lab.Lab, name string) *netns.Namespace {
	t.Helper()
	ns, err := l.Namespace(name)
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// intrude sends, from a namespace to a host's address, a VXLAN packet with a datagram for the host's container in it, which
// claims to come from a container of the other host. The function that it returns waits for the datagram.
func intrude(t *testing.T, l *lab.Lab, family ip.Family, from *netns.Namespace, door netip.Addr) (arrived func(time.Duration) error) {
	t.Helper()
	host, victim := l.Hosts[0], l.Hosts[0].Containers[0]
	device := ip.Dual[string]{V4: "flannel.1", V6: "flannel-v6.1"}.Of(family)
	mac, err := host.LinkMAC(device)
	if err != nil {
		t.Fatal(err)
	}
	var inside, outside *net.UDPConn
	if err := victim.Do(func() (err error) {
		inside, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(victim.Addr.Of(family), 0)))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inside.Close() })
	if err := from.Do(func() (err error) {
		outside, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(door, 8472)))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	pretended := netip.AddrPortFrom(l.Hosts[1].Containers[0].Addr.Of(family), 7)
	packet := netnstest.UDP(pretended, inside.LocalAddr().(*net.UDPAddr).AddrPort(), []byte("let me in"))
	if _, err := outside.Write(netnstest.VXLAN(1, netnstest.Frame(net.HardwareAddr{2, 0, 0, 0, 0, 9}, mac, packet))); err != nil {
		t.Fatal(err)
	}
	return func(patience time.Duration) error {
		inside.SetReadDeadline(time.Now().Add(patience))
		_, _, err := inside.ReadFromUDP(make([]byte, 64))
		return err
	}
}

// strangers is how many packets the guards of a host have dropped, as nft(8) shows it.
func strangers(t *testing.T, host *lab.Host) int {
	t.Helper()
	total := 0
	for line := range strings.Lines(run(t, host, "", "nft", "list", "counters")) {
		var packets int
		if n, _ := fmt.Sscanf(strings.TrimSpace(line), "packets %d", &packets); n == 1 {
			total += packets
		}
	}
	return total
}

// requireStatusTells looks for the dropped packets in what an operator sees. Any change makes tulled look at the counters.
func requireStatusTells(t *testing.T, l *lab.Lab, host *lab.Host, dropped bool) {
	t.Helper()
	if err := host.DeleteRoutesTo(l.Hosts[1], ip.IPv4); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("dropped  %d packets from strangers", strangers(t, host))
	if !eventually(healTimeout, func() bool { return strings.Contains(tulle(t, l, host, "status"), want) == dropped }) {
		t.Errorf("status tells %q: %t, want %t", want, !dropped, dropped)
	}
}
