//go:build linux

package lab_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/ip"
)

// Traffic that leaves the network has its host's address if tulled or the containers' bridge masquerades. Traffic inside keeps its
// own in any case.
func TestMasquerade(t *testing.T) {
	for name, test := range map[string]struct {
		daemon string
		bridge ip.Engine // that masquerades as Docker and the bridge plugin do; empty: it does not
		leaves bool      // with the host's address
	}{
		"tulled":                  {"--ip-masq", "", true},
		"tulled and bridge":       {"--ip-masq", ip.NFTables, true},
		"bridge":                  {"--ip-masq=false", ip.NFTables, true},
		"bridge, iptables-legacy": {"--ip-masq=false", ip.IPTables, true},
		"none":                    {"--ip-masq=false", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := upLab(t, lab.Config{Hosts: 2, Containers: 1, DaemonArgs: func(*lab.Host) []string { return []string{test.daemon} }})
			if test.bridge != "" {
				for _, host := range l.Hosts {
					bridgeMasquerades(t, host, test.bridge)
				}
			}
			requireMatrix(t, l)
			for _, family := range l.Config.Families {
				requireOutside(t, l, family, test.leaves)
			}
		})
	}
}

// bridgeMasquerades adds the rules that Docker has for docker0.
func bridgeMasquerades(t *testing.T, host *lab.Host, engine ip.Engine) {
	t.Helper()
	env, err := host.ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	for family, program := range map[ip.Family]string{ip.IPv4: "iptables", ip.IPv6: "ip6tables"} {
		run(t, host, "", program+engines()[engine], "-w", "5", "-t", "nat", "-A", "POSTROUTING",
			"-s", env.Subnets.Of(family).String(), "!", "-o", "cni0", "-j", "MASQUERADE")
	}
}

// requireOutside sends from a container to the router, which is no part of the network, and has no route to answer containers by.
func requireOutside(t *testing.T, l *lab.Lab, family ip.Family, masqueraded bool) {
	t.Helper()
	router, err := l.Namespace("router")
	if err != nil {
		t.Fatal(err)
	}
	var outside *net.UDPConn
	if err := router.Do(func() (err error) {
		outside, err = net.ListenUDP("udp", nil)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	port := outside.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	container := l.Hosts[0].Containers[0]
	to := netip.AddrPortFrom(l.RouterAddr(family, 1), port)
	var inside *net.UDPConn
	if err := container.Do(func() (err error) {
		inside, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	if _, err := inside.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	outside.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, from, err := outside.ReadFromUDPAddrPort(make([]byte, 16))
	if err != nil {
		t.Errorf("%s: nothing arrives outside the network: %v", family, err)
		return
	}
	want := container.Addr.Of(family)
	if masqueraded {
		want = l.Hosts[0].Addr.Of(family)
	}
	if got := from.Addr().Unmap(); got != want {
		t.Errorf("%s source outside the network = %s, want %s", family, got, want)
	}
	if !masqueraded {
		return
	}
	if _, err := outside.WriteToUDPAddrPort([]byte("hello yourself"), from); err != nil {
		t.Fatal(err)
	}
	inside.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := inside.Read(make([]byte, 16)); err != nil {
		t.Errorf("%s: no answer from outside the network: %v", family, err)
	}
}
