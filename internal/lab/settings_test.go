//go:build linux

package lab_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tulle/internal/lab"
)

// set does what sysctl(8) does.
func set(t *testing.T, host *lab.Host, key, value string) {
	t.Helper()
	if err := host.Do(func() error { return os.WriteFile("/proc/sys/"+key, []byte(value), 0) }); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, host *lab.Host, key string) string {
	t.Helper()
	var value []byte
	if err := host.Do(func() (err error) { value, err = os.ReadFile("/proc/sys/" + key); return err }); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(value))
}

// rest waits until the daemon of a host has had nothing to do for a second.
func rest(t *testing.T, host *lab.Host) {
	t.Helper()
	var passes uint64
	since := time.Now()
	if !eventually(20*time.Second, func() bool {
		var status struct{ Work struct{ Passes uint64 } }
		if err := host.Status(t.Context(), &status); err != nil || status.Work.Passes != passes {
			passes, since = status.Work.Passes, time.Now()
		}
		return time.Since(since) > time.Second
	}) {
		t.Fatal("the daemon never rests")
	}
}

// Whatever stops forwarding, and nothing else, is put back within two seconds on a host at rest.
func TestSettingsHeal(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 2, Containers: 1})
	requireMatrix(t, l)
	host := l.Hosts[0]
	for _, setting := range []struct{ key, broken string }{
		{"net/ipv4/ip_forward", "0"},
		{"net/ipv6/conf/all/forwarding", "0"},
		{"net/ipv4/conf/flannel.1/forwarding", "0"},
		{"net/ipv4/conf/cni0/forwarding", "0"},
		{"net/ipv4/conf/eth0/forwarding", "0"},
		{"net/ipv6/conf/flannel-v6.1/disable_ipv6", "1"},
	} {
		t.Run(strings.ReplaceAll(setting.key, "/", " "), func(t *testing.T) {
			before, was := fingerprint(t, host), get(t, host, setting.key)
			rest(t, host)
			set(t, host, setting.key, setting.broken)
			if !eventually(healTimeout, func() bool { return get(t, host, setting.key) == was && fingerprint(t, host) == before }) {
				t.Errorf("%s is %s, was %s", setting.key, get(t, host, setting.key), was)
			}
		})
	}
	requireMatrix(t, l)
}

// A host that was hardened before tulled came forwards all the same, by the links that must.
func TestHardenedHost(t *testing.T) {
	l := newLab(t, lab.Config{Hosts: 2, Containers: 1})
	host := l.Hosts[0]
	set(t, host, "net/ipv4/ip_forward", "1")
	set(t, host, "net/ipv6/conf/all/forwarding", "1")
	set(t, host, "net/ipv4/conf/default/forwarding", "0")
	set(t, host, "net/ipv4/conf/eth0/forwarding", "0")
	set(t, host, "net/ipv6/conf/default/disable_ipv6", "1")
	begin(t, l)
	if err := l.StartDaemons(t.Context()); err != nil {
		t.Fatal(err)
	}
	set(t, host, "net/ipv6/conf/default/disable_ipv6", "0") // what follows makes a bridge, and is not Tulle
	if err := l.StartContainers(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !eventually(healTimeout, func() bool { return get(t, host, "net/ipv4/conf/cni0/forwarding") == "1" }) {
		t.Error("the bridge of the containers does not forward")
	}
	requireMatrix(t, l)
}

// A host that learns its way to the world by router advertisements in the kernel keeps it, and goes on learning.
func TestRouterAdvertisements(t *testing.T) {
	for name, before := range map[string]string{"forwarding was off": "0", "forwarding was on": "1"} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, lab.Config{Hosts: 2, Containers: 1, FindUplink: true})
			host, router := l.Hosts[0], l.Hosts[1]
			learnt := func() bool {
				return strings.Contains(run(t, host, "", "ip", "-6", "route", "show", "default", "dev", "eth0"), "proto ra")
			}
			learn := func() {
				t.Helper()
				if !eventually(10*time.Second, func() bool { advertise(t, router); return learnt() }) {
					t.Fatal("no default route by router advertisements")
				}
			}
			run(t, host, "", "ip", "-6", "route", "del", "default")
			set(t, host, "net/ipv6/conf/eth0/accept_ra", "1")
			learn()
			if before == "1" { // as Docker does
				set(t, host, "net/ipv6/conf/all/forwarding", "1")
				if learnt() {
					t.Fatal("this kernel keeps the route by itself")
				}
			}
			begin(t, l)
			if err := l.StartDaemons(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := l.StartContainers(t.Context()); err != nil {
				t.Fatal(err)
			}
			if before == "0" && !learnt() {
				t.Error("tulled took the host's default route away")
			}
			requireMatrix(t, l)
			run(t, host, "", "sh", "-c", "ip -6 route del default || true")
			learn()
			if got := get(t, host, "net/ipv6/conf/cni0/accept_ra"); got == "2" {
				t.Error("containers may become routers of their host")
			}
		})
	}
}

// advertise has a host advertise itself as a router to its segment for half an hour (RFC 4861, 4.2), with a prefix for addresses.
func advertise(t *testing.T, host *lab.Host) {
	t.Helper()
	message := []byte{134, 0, 0, 0, 64, 0, 1800 >> 8, 1800 & 0xff, 0, 0, 0, 0, 0, 0, 0, 0}
	option := []byte{3, 4, 64, 0xc0} // prefix information (4.6.2): on link, autonomous
	option = binary.BigEndian.AppendUint32(option, 3600)
	option = binary.BigEndian.AppendUint32(option, 1800)
	option = append(option, 0, 0, 0, 0)
	prefix := netip.MustParseAddr("fd77::").As16()
	message = append(append(message, option...), prefix[:]...)
	if err := host.Do(func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
			return err
		}
		allNodes := netip.MustParseAddr("ff02::1").As16()
		return unix.Sendto(fd, message, 0, &unix.SockaddrInet6{Addr: allNodes, ZoneId: uint32(eth0.Index)})
	}); err != nil {
		t.Fatal(err)
	}
}
