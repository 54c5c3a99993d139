//go:build linux

package lab_test

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/internal/netns/netnstest"
	"tulle/ip"
)

// spoofing is a lab of three hosts with a container each. The first host attacks the second in the name of the third.
type spoofing struct {
	*lab.Lab
	attacker, victim, third *lab.Host
	inside, onHost          map[ip.Family]*net.UDPConn // of the victim's container, and of the victim itself
}

func newSpoofing(t *testing.T, config lab.Config) *spoofing {
	t.Helper()
	config.Hosts, config.Containers = 3, 1
	l := upLab(t, config)
	requireMatrix(t, l)
	requireHostsReach(t, l)
	requireNothingDropped(t, l.Hosts[1])
	s := &spoofing{Lab: l, attacker: l.Hosts[0], victim: l.Hosts[1], third: l.Hosts[2],
		inside: map[ip.Family]*net.UDPConn{}, onHost: map[ip.Family]*net.UDPConn{}}
	env, err := s.victim.ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range l.Config.Families {
		s.inside[f] = listen(t, s.victim.Containers[0].Do, s.victim.Containers[0].Addr.Of(f))
		s.onHost[f] = listen(t, s.victim.Do, env.Gateway(f).Addr())
	}
	return s
}

func listen(t testing.TB, do func(func() error) error, addr netip.Addr, port ...uint16) *net.UDPConn {
	t.Helper()
	local := netip.AddrPortFrom(addr, append(port, 0)[0])
	var conn *net.UDPConn
	if err := do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(local))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func addrOf(conn *net.UDPConn) netip.AddrPort { return conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// tunnelled is a datagram from a source to a socket of the victim in a VXLAN packet.
func (s *spoofing) tunnelled(t *testing.T, f ip.Family, source netip.Addr, to *net.UDPConn, text string) []byte {
	t.Helper()
	mac, err := s.victim.LinkMAC(ip.Dual[string]{V4: "flannel.1", V6: "flannel-v6.1"}.Of(f))
	if err != nil {
		t.Fatal(err)
	}
	packet := netnstest.UDP(netip.AddrPortFrom(source, 7), addrOf(to), []byte(text))
	return netnstest.VXLAN(1, netnstest.Frame(net.HardwareAddr{2, 0, 0, 0, 0, 9}, mac, packet))
}

// sources are the addresses that an attacker may pretend to have, by what they are, without its own container's.
func (s *spoofing) sources(f ip.Family) map[string]netip.Addr {
	return map[string]netip.Addr{
		"the world":            ip.Dual[netip.Addr]{V4: netip.MustParseAddr("8.8.8.8"), V6: netip.MustParseAddr("2001:4860:4860::8888")}.Of(f),
		"another host":         s.third.Addr.Of(f),
		"the attacking host":   s.attacker.Addr.Of(f),
		"another container":    s.third.Containers[0].Addr.Of(f),
		"the attacked subnet":  s.victim.Containers[0].Addr.Of(f).Next(),
		"the other's gateway":  s.third.Containers[0].Addr.Of(f).Prev(),
		"a subnet of nobody's": ip.Dual[netip.Addr]{V4: netip.MustParseAddr("10.244.255.9"), V6: netip.MustParseAddr("fd10:244:0:ffff::9")}.Of(f),
	}
}

// arrived reads what has come to a socket of the victim until a datagram comes that is sent the ordinary way.
func (s *spoofing) arrived(t *testing.T, f ip.Family, at *net.UDPConn) []string {
	t.Helper()
	from := listen(t, s.third.Containers[0].Do, s.third.Containers[0].Addr.Of(f))
	own := listen(t, s.attacker.Containers[0].Do, s.attacker.Containers[0].Addr.Of(f))
	var texts []string
	seen := map[string]bool{}
	if !eventually(healTimeout, func() bool {
		for _, conn := range []*net.UDPConn{from, own} {
			if _, err := conn.WriteToUDPAddrPort([]byte("end of "+addrOf(conn).String()), addrOf(at)); err != nil {
				t.Fatal(err)
			}
		}
		at.SetReadDeadline(time.Now().Add(time.Second))
		buffer := make([]byte, 2048)
		for len(seen) < 2 {
			n, err := at.Read(buffer)
			if err != nil {
				return false
			}
			if text := string(buffer[:n]); strings.HasPrefix(text, "end of ") {
				seen[text] = true
			} else {
				texts = append(texts, text)
			}
		}
		return true
	}) {
		t.Fatal("nothing arrives any more")
	}
	for drained := false; !drained; { // what was sent twice
		at.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		_, err := at.Read(make([]byte, 2048))
		drained = err != nil
	}
	return texts
}

// dropped reads how many packets of a kind a host says that it has dropped.
func dropped(t *testing.T, host *lab.Host, kind string) int {
	t.Helper()
	st := map[string]any{}
	if err := host.Status(t.Context(), &st); err != nil {
		t.Fatal(err)
	}
	n, _ := st[kind].(float64)
	return int(n)
}

// requireDropped waits until a host tells of as many more dropped packets of a kind.
func (s *spoofing) requireDropped(t *testing.T, host *lab.Host, kind string, before, more int) {
	t.Helper()
	if err := host.DeleteRoutesTo(s.third, s.Config.Families[0]); err != nil { // so that tulled looks
		t.Fatal(err)
	}
	if !eventually(healTimeout, func() bool { return dropped(t, host, kind) == before+more }) {
		t.Errorf("%s tells of %d packets %s, want %d more than %d", host.Name, dropped(t, host, kind), kind, more, before)
	}
	if !eventually(healTimeout, func() bool {
		routes, err := host.RoutesTo(s.third, s.Config.Families[0])
		return err == nil && len(routes) > 0
	}) {
		t.Error("the route does not come back")
	}
}

// TestFragmentsPass sends datagrams between containers of two hosts that take several packets.
func TestFragmentsPass(t *testing.T) {
	s := newSpoofing(t, lab.Config{})
	for _, f := range s.Config.Families {
		from := listen(t, s.attacker.Containers[0].Do, s.attacker.Containers[0].Addr.Of(f))
		want := strings.Repeat("x", 4000)
		if _, err := from.WriteToUDPAddrPort([]byte(want), addrOf(s.inside[f])); err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, 2*len(want))
		s.inside[f].SetReadDeadline(time.Now().Add(healTimeout))
		if n, err := s.inside[f].Read(buffer); err != nil || string(buffer[:n]) != want {
			t.Errorf("%s: %d bytes arrive (%v), want %d", f, n, err, len(want))
		}
	}
}

// A container injects nothing into another host's overlay, whatever its own host masquerades, in one piece or several.
func TestContainerInjectsNothing(t *testing.T) {
	for name, test := range map[string]struct {
		daemon string
		bridge ip.Engine
	}{
		"tulled masquerades":         {"--ip-masq", ""},
		"bridge masquerades":         {"--ip-masq=false", ip.NFTables},
		"bridge masquerades, legacy": {"--ip-masq=false", ip.IPTables},
		"nobody masquerades":         {"--ip-masq=false", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSpoofing(t, lab.Config{DaemonArgs: func(*lab.Host) []string { return []string{test.daemon} }})
			if test.bridge != "" {
				bridgeMasquerades(t, s.attacker, test.bridge)
			}
			for _, f := range s.Config.Families {
				t.Run(f.String(), func(t *testing.T) { s.inject(t, f) })
			}
		})
	}
}

func (s *spoofing) inject(t *testing.T, f ip.Family) {
	container := s.attacker.Containers[0]
	before, sent := dropped(t, s.attacker, "injected"), 0
	to := netip.AddrPortFrom(s.victim.Addr.Of(f), 8472)
	sources := s.sources(f)
	sources["itself"] = container.Addr.Of(f)
	for _, at := range []*net.UDPConn{s.inside[f], s.onHost[f]} {
		for what, source := range sources {
			// From a socket, from a raw one as another host and as the own one, and in fragments.
			outer := map[string]netip.Addr{"": container.Addr.Of(f), " as another host": s.third.Addr.Of(f), " as its own host": s.attacker.Addr.Of(f)}
			for as, from := range outer {
				payload := s.tunnelled(t, f, source, at, what+as)
				netnstest.SendIP(t, container.Do, netnstest.UDP(netip.AddrPortFrom(from, 40000), to, payload))
				sent++
				if as == " as its own host" && f == ip.IPv4 {
					sent-- // the kernel drops packets that come in with its own address
				}
			}
			if f == ip.IPv6 {
				for as, from := range outer {
					payload := s.tunnelled(t, f, source, at, what+as+" in fragments of fragments")
					for _, part := range netnstest.Nested(netnstest.UDP(netip.AddrPortFrom(from, 40002), to, payload)) {
						netnstest.SendIP(t, container.Do, part)
						sent++
					}
				}
			}
			payload := s.tunnelled(t, f, source, at, what+" in fragments")
			for _, part := range netnstest.Fragments(netnstest.UDP(netip.AddrPortFrom(container.Addr.Of(f), 40001), to, payload), 8, 24) {
				netnstest.SendIP(t, container.Do, part)
			}
			sent++
		}
		if texts := s.arrived(t, f, at); len(texts) > 0 {
			t.Errorf("at %s arrive: %s", addrOf(at), strings.Join(texts, ", "))
		}
	}
	s.requireDropped(t, s.attacker, "injected", before, sent)
}

// What a peer sends has a source in the peer's own subnet. Here a program on the peer sends whatever it likes.
func TestPeerSpeaksForItsOwnSubnet(t *testing.T) {
	for _, check := range []string{"on", "off"} {
		t.Run(check, func(t *testing.T) {
			t.Parallel()
			s := newSpoofing(t, lab.Config{DaemonArgs: func(*lab.Host) []string { return []string{"--source-check=" + check} }})
			for _, f := range s.Config.Families {
				t.Run(f.String(), func(t *testing.T) { s.forge(t, f, check == "on") })
			}
		})
	}
}

func (s *spoofing) forge(t *testing.T, f ip.Family, checked bool) {
	before, strangers, sent := dropped(t, s.victim, "forged"), dropped(t, s.victim, "strangers"), 0
	to := netip.AddrPortFrom(s.victim.Addr.Of(f), 8472)
	for _, at := range []*net.UDPConn{s.inside[f], s.onHost[f]} {
		for what, source := range s.sources(f) {
			payload := s.tunnelled(t, f, source, at, what)
			netnstest.SendIP(t, s.attacker.Do, netnstest.UDP(netip.AddrPortFrom(s.attacker.Addr.Of(f), 40000), to, payload))
			sent++
		}
		own := s.attacker.Containers[0].Addr.Of(f)
		netnstest.SendIP(t, s.attacker.Do, netnstest.UDP(netip.AddrPortFrom(s.attacker.Addr.Of(f), 40000), to, s.tunnelled(t, f, own, at, "its own")))
		texts := s.arrived(t, f, at)
		if checked && strings.Join(texts, ", ") != "its own" {
			t.Errorf("at %s arrive: %s; want what has the sender's own source", addrOf(at), strings.Join(texts, ", "))
		}
		if !checked && len(texts) < 3 {
			t.Errorf("switched off, only this arrives at %s: %s", addrOf(at), strings.Join(texts, ", "))
		}
	}
	if !checked {
		sent = 0
	}
	s.requireDropped(t, s.victim, "forged", before, sent)
	s.requireDropped(t, s.victim, "strangers", strangers, 0)
}

// A container sends in its own name only, on every backend. What its host routes to it is its own.
func TestContainerSendsInItsOwnName(t *testing.T) {
	for _, backend := range bothBackends() {
		for _, check := range []string{"on", "off"} {
			t.Run(backend+" "+check, func(t *testing.T) {
				t.Parallel()
				s := newSpoofing(t, lab.Config{Backend: map[string]any{"Type": backend}, DaemonArgs: func(*lab.Host) []string { return []string{"--source-check=" + check} }})
				for _, f := range s.Config.Families {
					t.Run(f.String(), func(t *testing.T) { s.spoof(t, f, backend, check == "on") })
				}
			})
		}
	}
}

func (s *spoofing) spoof(t *testing.T, f ip.Family, backend string, checked bool) {
	container := s.attacker.Containers[0]
	before, sent := dropped(t, s.attacker, "spoofed"), 0
	send := func(source netip.Addr, at *net.UDPConn, text string) {
		t.Helper()
		netnstest.SendIP(t, container.Do, netnstest.UDP(netip.AddrPortFrom(source, 7), addrOf(at), []byte(text)))
	}
	gateway := container.Addr.Of(f).Prev()
	hosts := []netip.Addr{s.attacker.Addr.Of(f), gateway, gateway.Prev()}
	sources := s.sources(f)
	if checked { // the guard at the other end lets the last two pass, which the host itself may send from
		sources["the gateway"], sources["the host's end of the tunnel"] = hosts[1], hosts[2]
	}
	for _, at := range []*net.UDPConn{s.inside[f], s.onHost[f]} {
		for what, source := range sources {
			if backend != "vxlan" && source == hosts[2] {
				continue // there is none
			}
			send(source, at, what)
			sent++
			if f == ip.IPv4 && slices.Contains(hosts, source) {
				sent-- // the kernel drops packets that come in with its own address
			}
		}
		send(container.Addr.Of(f), at, "its own")
		texts := s.arrived(t, f, at)
		if checked && strings.Join(texts, ", ") != "its own" {
			t.Errorf("at %s arrive: %s; want what has the sender's own source", addrOf(at), strings.Join(texts, ", "))
		}
		if !checked && len(texts) < 3 {
			t.Errorf("switched off, only this arrives at %s: %s", addrOf(at), strings.Join(texts, ", "))
		}
	}
	if !checked {
		sent = 0
	}
	s.requireDropped(t, s.attacker, "spoofed", before, sent)
	if !checked || backend == "vxlan" {
		return // over VXLAN, the peer wants to see its own
	}
	behind := ip.Dual[netip.Prefix]{V4: netip.MustParsePrefix("198.51.100.7/32"), V6: netip.MustParsePrefix("2001:db8:7::7/128")}.Of(f)
	if err := s.attacker.AddRoute(behind, container.Addr.Of(f)); err != nil {
		t.Fatal(err)
	}
	send(behind.Addr(), s.inside[f], "routed")
	if texts := s.arrived(t, f, s.inside[f]); strings.Join(texts, ", ") != "routed" {
		t.Errorf("what the host routes to its container arrives as %q", texts)
	}
}

// requireHostsReach fails the test unless every host itself reaches the containers of all others.
func requireHostsReach(t *testing.T, l *lab.Lab) {
	t.Helper()
	for _, from := range l.Hosts {
		for _, c := range l.Containers() {
			for _, f := range l.Config.Families {
				at := listen(t, c.Do, c.Addr.Of(f))
				if !eventually(healTimeout, func() bool {
					if err := from.Do(func() error {
						conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addrOf(at)))
						if err != nil {
							return err
						}
						defer conn.Close()
						_, err = conn.Write([]byte("hello"))
						return err
					}); err != nil {
						t.Fatal(err)
					}
					at.SetReadDeadline(time.Now().Add(time.Second))
					_, err := at.Read(make([]byte, 16))
					return err == nil
				}) {
					t.Errorf("%s itself does not reach %s at %s", from.Name, c.Name, c.Addr.Of(f))
				}
			}
		}
	}
}

// requireNothingDropped looks at all counters of a host. Of strangers there may be some, while hosts come to know each other.
func requireNothingDropped(t *testing.T, host *lab.Host) {
	t.Helper()
	out := run(t, host, "", "nft", "list", "counters")
	for _, kind := range []string{ip.CountForged, ip.CountInjected, ip.CountSpoofed} {
		for _, counter := range strings.Split(out, "counter "+kind+" {")[1:] {
			if !strings.HasPrefix(strings.TrimSpace(counter), "packets 0 ") {
				t.Errorf("%s drops what it should not:\n%s", host.Name, out)
			}
		}
	}
}
