package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tulle/internal/netns"
	"tulle/internal/netns/netnstest"
	"tulle/ip"
)

// segment is two hosts, and a router between them that can drop and be narrow:
//
//	host 0                       router                       host 1
//	eth0 10.0.0.2, fd00::2 ── r0 10.0.0.1, fd00::1
//	                          r1 10.0.1.1, fd00:1::1 ── eth0 10.0.1.2, fd00:1::2
//
// Packets of up to 1500 bytes go through. The fabric is played by a second address of each host.
type segment struct {
	t      *testing.T
	router *netns.Namespace
	hosts  [2]*netns.Namespace
}

func newSegment(t *testing.T) *segment {
	s := &segment{t: t, router: netnstest.New(t), hosts: [2]*netns.Namespace{netnstest.New(t), netnstest.New(t)}}
	must(t, s.router.Do(func() error {
		return errors.Join(
			os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0),
			os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0))
	}))
	for i, host := range s.hosts {
		near, far := fmt.Sprintf("r%d", i), fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), host.FD())
		s.run(s.router, "ip", "link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", far)
		s.run(s.router, "ip", "addr", "add", fmt.Sprintf("10.0.%d.1/24", i), "dev", near)
		s.run(s.router, "ip", "addr", "add", fmt.Sprintf("fd00:%d::1/64", i), "dev", near, "nodad")
		s.run(s.router, "ip", "link", "set", near, "up")
		s.run(host, "ip", "link", "set", "eth0", "up")
		for _, way := range Ways() {
			s.address(i, way, "add")
		}
		s.run(host, "ip", "route", "add", "default", "via", fmt.Sprintf("10.0.%d.1", i))
		s.run(host, "ip", "-6", "route", "add", "default", "via", fmt.Sprintf("fd00:%d::1", i))
	}
	return s
}

func (s *segment) address(host int, way Way, verb string) {
	s.run(s.hosts[host], "ip", "addr", verb, hostAddress(host, way, ip.IPv4).String()+"/24", "dev", "eth0")
	s.run(s.hosts[host], "ip", "addr", verb, hostAddress(host, way, ip.IPv6).String()+"/64", "dev", "eth0", "nodad")
}

func hostAddress(host int, way Way, f ip.Family) netip.Addr {
	if f == ip.IPv4 {
		return netip.AddrFrom4([4]byte{10, 0, byte(host), 2 + byte(way)})
	}
	return netip.AddrFrom16([16]byte{0xfd, 0, 0, byte(host), 15: 2 + byte(way)})
}

func (s *segment) run(ns *netns.Namespace, program string, args ...string) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), program, args...)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	must(s.t, ns.Do(cmd.Start))
	if err := cmd.Wait(); err != nil {
		s.t.Fatalf("%s: %v: %s", cmd, err, &complaint)
	}
}

// filter has the router forward all but what the rules, of nft, drop.
func (s *segment) filter(rules ...string) {
	s.t.Helper()
	text := "add table inet t\ndelete table inet t\ntable inet t { chain c { type filter hook forward priority 0;\n" + strings.Join(rules, "\n") + "\n}\n}"
	s.run(s.router, "nft", text)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const testPort = 8473

// self is a host of the segment as others ask it.
func self(host int) Self {
	w := Self{Key: Key{byte(host + 1)}, Port: testPort}
	for _, way := range Ways() {
		for _, f := range ip.Families() {
			w.Addr[way].Set(f, hostAddress(host, way, f))
		}
	}
	return w
}

// other is a host of the segment as this one asks it.
func other(host int, f ip.Family) Peer {
	p := Peer{Lease: fmt.Sprintf("lease %d", host), Family: f, Key: self(host).Key}
	for _, way := range Ways() {
		p.At[way] = netip.AddrPortFrom(hostAddress(host, way, f), testPort)
		p.Size[way] = 1500
	}
	return p
}

// start runs a prober in a namespace until the end of the test.
func start(t *testing.T, ns *netns.Namespace, w Want) (p *Prober, changes *atomic.Int64) {
	changes = new(atomic.Int64)
	p = New(Config{Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Changed: func() { changes.Add(1) }})
	p.Want(w)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := ns.Do(func() error { return p.Run(ctx) }); !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v, want the end of its context", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return p, changes
}

// await retries until something is so, which is to be within most.
func await(t *testing.T, most time.Duration, what string, so func() error) {
	t.Helper()
	begin := time.Now()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := so()
		if err == nil {
			t.Logf("%s after %v", what, time.Since(begin).Round(time.Millisecond))
			return
		}
		if time.Since(begin) > most {
			t.Fatalf("not within %v: %s: %v", most, what, err)
		}
		<-ticker.C
	}
}

// expected is a state of each way, and a size.
type expected struct {
	f     ip.Family
	way   Way
	state State
	size  int
}

// all returns what is not as expected.
func all(p *Prober, want ...expected) func() error {
	return func() (err error) {
		for _, w := range want {
			var v Verdict
			for _, r := range p.Reports() {
				if r.Peer.Family == w.f {
					v = r.Ways[w.way]
				}
			}
			if v.Since.IsZero() || v.State != w.state || v.Size != w.size {
				err = errors.Join(err, fmt.Errorf("%s, %s: %+v, want %s with %d bytes", w.f, w.way, v, w.state, w.size))
			}
		}
		return err
	}
}

// Over real sockets and a router: a path is narrow although no one says so, another is lost, and both mend. What the kernel believes of the path does not matter.
func TestHostsAskEachOther(t *testing.T) {
	t.Parallel()
	s := newSegment(t)
	var probers [2]*Prober
	well := []expected{{ip.IPv4, Underlay, Well, 1500}, {ip.IPv4, Fabric, Well, 1500}, {ip.IPv6, Underlay, Well, 1500}, {ip.IPv6, Fabric, Well, 1500}}
	t.Cleanup(func() { // after their end, they know what they knew
		for _, p := range probers {
			if err := all(p, well...)(); err != nil && !t.Failed() {
				t.Error(err)
			}
		}
	})
	for i := range probers {
		for command, via := range map[string]string{"-4": "10.0.%d.1", "-6": "fd00:%d::1"} {
			s.run(s.hosts[i], "ip", command, "route", "replace", "default", "via", fmt.Sprintf(via, i), "mtu", "lock", "1300")
		}
		probers[i], _ = start(t, s.hosts[i], Want{Self: self(i), Peers: []Peer{other(1-i, ip.IPv4), other(1-i, ip.IPv6)}})
	}
	for _, p := range probers {
		await(t, 10*time.Second, "all is well", all(p, well...))
		if b := p.Bad(); len(b.Reports) != 0 || b.Asked != 2 || b.Blocked != nil {
			t.Errorf("bad: %+v", b)
		}
		if sum := p.Summary(); sum.Peers[Fabric][Well] != 2 || sum.RTT[Fabric].Count == 0 {
			t.Errorf("summary: %+v", sum)
		}
	}

	s.filter("ip saddr 10.0.0.3 meta length > 1410 drop", // of the fabric, one direction
		"ip6 daddr fd00:1::2 meta length > 1399 drop", // of the underlay, the questions of one and the answers to the other
		"ip6 saddr fd00:1::3 drop")
	hurt := []expected{{ip.IPv4, Underlay, Well, 1500}, {ip.IPv4, Fabric, Narrow, 1410}, {ip.IPv6, Underlay, Narrow, 1399}, {ip.IPv6, Fabric, Unreachable, 1500}}
	for i, p := range probers {
		await(t, 100*time.Second, "what is wrong is known", all(p, hurt...))
		if b := p.Bad(); len(b.Reports) != 2 || b.Reports[0].Peer != other(1-i, ip.IPv4) || b.Blocked != nil {
			t.Errorf("bad: %+v", b)
		}
	}
	s.filter()
	for _, p := range probers {
		p.update(func(s *schedule) { // not after a minute
			for _, peer := range s.peers {
				for way := range peer.lines {
					peer.lines[way].again = time.Now()
				}
			}
		})
	}
	for _, p := range probers {
		await(t, 20*time.Second, "all is well again", all(p, well...))
	}
}

// A socket is opened when its address appears, and moves with it.
func TestAddressesComeAndGo(t *testing.T) {
	t.Parallel()
	s := newSegment(t)
	s.address(0, Fabric, "del")
	wanted := Want{Self: self(0), Peers: []Peer{other(1, ip.IPv4), other(1, ip.IPv6)}}
	p, changes := start(t, s.hosts[0], wanted)
	start(t, s.hosts[1], Want{Self: self(1)})
	await(t, 10*time.Second, "the underlay is well, the fabric is not known",
		all(p, expected{ip.IPv4, Underlay, Well, 1500}, expected{ip.IPv6, Underlay, Well, 1500}, expected{ip.IPv4, Fabric, Unknown, 0}))
	if b := p.Bad(); b.Blocked != nil {
		t.Errorf("blocked: %v", b.Blocked)
	}
	before := changes.Load()
	s.address(0, Fabric, "add")
	well := all(p, expected{ip.IPv4, Underlay, Well, 1500}, expected{ip.IPv6, Fabric, Well, 1500}, expected{ip.IPv4, Fabric, Well, 1500})
	await(t, 20*time.Second, "the fabric is well", well)
	if changes.Load() == before {
		t.Error("nobody was told")
	}

	elsewhere := netip.MustParseAddr("10.0.0.77")
	s.run(s.hosts[0], "ip", "addr", "add", elsewhere.String()+"/24", "dev", "eth0")
	wanted.Self.Addr[Underlay].V4 = elsewhere
	s.filter("ip saddr 10.0.0.2 drop", "ip daddr 10.0.0.2 drop")
	moved := time.Now()
	p.Want(wanted)
	await(t, 15*time.Second, "from another address, it has become unknown", func() error {
		if at := p.Reports()[0].Ways[Underlay].Since; at.Before(moved) {
			return fmt.Errorf("since %v", at)
		}
		return nil
	})
	await(t, 15*time.Second, "it is well", well)
	p.Want(Want{})
	await(t, 5*time.Second, "all sockets are closed", func() error {
		for _, way := range Ways() {
			if err := s.hosts[0].Do(func() error {
				conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(hostAddress(0, way, ip.IPv6), testPort)))
				if err == nil {
					conn.Close()
				}
				return err
			}); err != nil {
				return err
			}
		}
		return nil
	})
}
