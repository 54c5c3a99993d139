//go:build linux

package fastpath_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"tulle/ip"
)

const (
	// ruleLimit is how long packets may be fast after a command that the kernel notifies of has returned.
	ruleLimit = 60 * time.Millisecond

	// changeLimit is the same for what it does not notify of: the life of an admission, and a moment.
	changeLimit = 1100 * time.Millisecond

	// lookLimit is how long it may take until a look finds something: these are a second and a half apart, and each takes a moment.
	lookLimit = 2 * time.Second

	// silence is for how long no packet of a stream has come when it counts as stopped.
	silence = 300 * time.Millisecond
)

// A rule that drops packets ends a flow at once, wherever it stands, and one that accepted them when it goes.
func TestRulesBite(t *testing.T) {
	for _, c := range kinds() {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c)
			for _, change := range ruleChanges() {
				w.bites(t, change, ruleLimit)
			}
		})
	}
}

// What is changed without a notification ends a flow with the admission.
func TestChangesBite(t *testing.T) {
	for _, c := range kinds() {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c)
			for _, change := range otherChanges() {
				w.bites(t, change, changeLimit)
			}
		})
	}
}

// A program that somebody hangs behind those on a container's link ends a flow from the container with the admission. One to the container goes past it until the
// next look, and no longer.
func TestForeignProgramBites(t *testing.T) {
	holds(t, withLinks(), func(w *world) error {
		port := func(h *host) string { return h.containers[0].port }
		c := hangs("a container's link", port)
		noticed := c
		noticed.do = func(h *host, s *stream) {
			c.do(h, s)
			began := time.Now()
			if !eventually(lookLimit, func() bool { return strings.Contains(h.engine.State().Partly, port(h)) }) {
				w.t.Errorf("after %v the state does not tell of the program: %s", time.Since(began), show(h.engine.State()))
			}
		}
		return errors.Join(w.bite(c, w.hosts[0], changeLimit), w.bite(noticed, w.hosts[1], ruleLimit))
	})
}

// change is what somebody does to a host, so that no packet of a stream shall pass it any more.
type change struct {
	name     string
	backend  string // zero: any
	family   ip.Family
	receiver bool                     // it is done on the receiver's host alone; else on the sender's, and then on the receiver's
	sender   bool                     // it is done on the sender's alone
	before   func(h *host, s *stream) // once the stream flows; nil: nothing
	do       func(h *host, s *stream) // what is measured
	undo     func(h *host)
}

// bites checks that packets stop.
func (w *world) bites(t *testing.T, c change, limit time.Duration) {
	if c.backend != "" && c.backend != w.config.backend || c.family != 0 && c.family != w.family {
		return
	}
	for i, name := range []string{"on the sender's host", "on the receiver's host"} {
		if i == 0 && c.receiver || i == 1 && c.sender {
			continue
		}
		t.Run(c.name+" "+name, func(t *testing.T) {
			if err := w.bite(c, w.hosts[i], limit); err != nil {
				t.Error(err)
			}
		})
	}
}

func (w *world) bite(c change, h *host, limit time.Duration) error {
	s := startStream(w.hosts[0].containers[0], w.hosts[1].containers[0])
	defer s.stop()
	if c.before != nil {
		c.before(h, s)
	}
	must(w.t, s.awaitFast())
	c.do(h, s)
	done := time.Now()
	last, err := s.awaitSilence(silence, healTimeout)
	c.undo(h)
	switch late := last.Sub(done); {
	case err != nil:
		return err
	case late > limit:
		return fmt.Errorf("packets still arrive after %v, want %v", late, limit)
	default:
		w.t.Logf("the last packet arrives %v after %s", late, c.name)
	}
	if err := s.awaitMore(10); err != nil {
		return err
	}
	return s.awaitFast()
}

const testTable = "bite"

func (h *host) dropIn(chain string) {
	h.nft(h.world.family, "table FAMILY "+testTable+" {\n\tchain c { "+chain+"\n\t}\n}\n")
}

func (h *host) deleteTestTable(family string) { h.run("", "nft", "delete", "table", family, testTable) }

func nftChange(name, backend, chain string) change {
	return change{
		name: name, backend: backend,
		do: func(h *host, s *stream) {
			h.dropIn(strings.NewReplacer("FROM", s.from.Addr().String(), "PORT", fmt.Sprint(s.to.Port())).Replace(chain))
		},
		undo: func(h *host) { h.deleteTestTable(nftFamily(h.world.family)) },
	}
}

// outerChange is a rule that drops what packets leave in.
func outerChange() change {
	c := nftChange("OUTPUT drops what packets are in", "vxlan", "type filter hook output priority 0; udp dport 8472 drop")
	c.sender = true
	return c
}

func ruleChanges() []change {
	incoming := nftChange("INPUT drops what packets are in", "vxlan", "type filter hook input priority 0; udp dport 8472 drop")
	incoming.receiver = true
	return []change{
		nftChange("FORWARD drops", "", "type filter hook forward priority 0; FAMILY saddr FROM udp dport PORT drop"),
		nftChange("raw PREROUTING drops", "", "type filter hook prerouting priority raw; FAMILY saddr FROM udp dport PORT drop"),
		outerChange(), incoming,
		{
			name: "the device drops at its ingress", backend: "vxlan", receiver: true,
			do: func(h *host, s *stream) {
				device := ip.Dual[string]{V4: "flannel.1", V6: "flannel-v6.1"}.Of(h.world.family)
				h.run(fmt.Sprintf("table netdev %s {\n\tchain c { type filter hook ingress device %q priority 0; udp dport %d drop\n\t}\n}\n", testTable, device, s.to.Port()), "nft", "-f", "-")
			},
			undo: func(h *host) { h.deleteTestTable("netdev") },
		},
		{
			name: "iptables-legacy drops",
			do: func(h *host, s *stream) {
				h.run("", h.iptables("legacy"), "-w", "5", "-I", "FORWARD", "-s", s.from.Addr().String(), "-j", "DROP")
			},
			undo: func(h *host) { h.run("", h.iptables("legacy"), "-w", "5", "-F", "FORWARD") },
		},
		{
			name: "iptables-nft drops",
			do: func(h *host, s *stream) {
				h.run("", h.iptables("nft"), "-w", "5", "-I", "FORWARD", "-s", s.from.Addr().String(), "-j", "DROP")
			},
			undo: func(h *host) { h.run("", h.iptables("nft"), "-w", "5", "-F", "FORWARD") },
		},
		{
			name: "what accepts goes",
			before: func(h *host, s *stream) {
				h.dropIn(fmt.Sprintf("type filter hook forward priority 0; policy drop; FAMILY saddr %s accept; meta l4proto { icmp, icmpv6 } accept", s.from.Addr()))
			},
			do: func(h *host, s *stream) {
				h.run("", "nft", "flush", "chain", nftFamily(h.world.family), testTable, "c")
			},
			undo: func(h *host) { h.deleteTestTable(nftFamily(h.world.family)) },
		},
		{
			name: "a filter of tc on the bridge drops",
			do: func(h *host, s *stream) {
				for _, at := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
					h.filter(bridge, at, tcDrop)
				}
			},
			undo: func(h *host) { h.deleteFilters(bridge) },
		},
		{
			name: "the bridge has no port any more", receiver: true,
			do:   func(h *host, s *stream) { must(h.t, h.netlink.LinkSetNoMaster(h.link(h.containers[0].port))) },
			undo: func(h *host) { must(h.t, h.netlink.LinkSetMaster(h.link(h.containers[0].port), h.link(bridge))) },
		},
		{
			name: "an element comes into a set",
			before: func(h *host, s *stream) {
				h.nft(h.world.family, fmt.Sprintf("table FAMILY %s {\n\tset blocked { type %s_addr; }\n\tchain c { type filter hook forward priority 0; FAMILY saddr @blocked drop\n\t}\n}\n", testTable, h.world.family))
			},
			do: func(h *host, s *stream) {
				h.run("", "nft", "add", "element", nftFamily(h.world.family), testTable, "blocked", "{ "+s.from.Addr().String()+" }")
			},
			undo: func(h *host) { h.deleteTestTable(nftFamily(h.world.family)) },
		},
	}
}

func (h *host) iptables(kind string) string {
	return ip.Dual[string]{V4: "iptables-", V6: "ip6tables-"}.Of(h.world.family) + kind
}

// hangs has a program of somebody else drop all packets at both sides of a link, of which the kernel does not notify. Programs of the fast path that are there come
// before it.
func hangs(name string, link func(*host) string) change {
	var detach []func()
	return change{
		name: "a program on " + name + " drops",
		do: func(h *host, s *stream) {
			for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
				detach = append(detach, h.hang(link(h), at, tcDrop))
			}
		},
		undo: func(*host) {
			for _, d := range detach {
				d()
			}
			detach = nil
		},
	}
}

func otherChanges() []change {
	const set = "blocked"
	return []change{
		{
			name: "an address comes into an ipset",
			before: func(h *host, s *stream) {
				must(h.t, h.ipset(func(handle *netlink.Handle) error {
					return handle.IpsetCreate(set, "hash:ip", netlink.IpsetCreateOptions{Family: uint8(ip.Dual[int]{V4: netlink.FAMILY_V4, V6: netlink.FAMILY_V6}.Of(h.world.family))})
				}))
				h.run("", h.iptables("legacy"), "-w", "5", "-I", "FORWARD", "-m", "set", "--match-set", set, "src", "-j", "DROP")
			},
			do: func(h *host, s *stream) {
				must(h.t, h.ipset(func(handle *netlink.Handle) error {
					return handle.IpsetAdd(set, &netlink.IPSetEntry{IP: net.IP(s.from.Addr().AsSlice())})
				}))
			},
			undo: func(h *host) {
				h.run("", h.iptables("legacy"), "-w", "5", "-F", "FORWARD")
				must(h.t, h.ipset(func(handle *netlink.Handle) error { return handle.IpsetDestroy(set) }))
			},
		},
		{
			name: "a route leads elsewhere",
			do: func(h *host, s *stream) {
				h.run("", "ip", "route", "add", "unreachable", ip.Host(s.to.Addr()).String())
			},
			undo: func(h *host) { h.run("", "ip", "route", "del", "unreachable", h.world.receiver()) },
		},
		{
			name: "a rule prohibits the source",
			do: func(h *host, s *stream) {
				h.run("", "ip", h.familyFlag(), "rule", "add", "from", s.from.Addr().String(), "pref", "10", "prohibit")
			},
			undo: func(h *host) { h.run("", "ip", h.familyFlag(), "rule", "del", "pref", "10") },
		},
		{
			name: "forwarding is switched off",
			do:   func(h *host, s *stream) { h.set(ip.ForwardingSetting(h.world.family).Key, "0") },
			undo: func(h *host) { h.set(ip.ForwardingSetting(h.world.family).Key, "1") },
		},
		hangs("the bridge", func(*host) string { return bridge }),
		hangs("the uplink", func(*host) string { return uplink }),
	}
}

func (h *host) familyFlag() string { return ip.Dual[string]{V4: "-4", V6: "-6"}.Of(h.world.family) }

// receiver is where the streams go.
func (w *world) receiver() string { return ip.Host(w.hosts[1].containers[0].addr).String() }

// ipset speaks to ipset(8)'s part of the kernel, without the program.
func (h *host) ipset(do func(*netlink.Handle) error) error {
	return h.Do(func() error {
		handle, err := netlink.NewHandle(netfilter)
		if err != nil {
			return err
		}
		defer handle.Close()
		return do(handle)
	})
}

const netfilter = 12 // NETLINK_NETFILTER

// An address that moves from one live container to another takes its flows with it.
func TestAddressMoves(t *testing.T) { holds(t, kinds(), addressMoves) }

func addressMoves(w *world) error {
	a, b := w.hosts[0], w.hosts[1]
	before, after := a.containers[0], a.containers[1]
	s := startStream(b.containers[0], before)
	must(w.t, s.awaitFast())
	after.address("eth0", netip.PrefixFrom(before.addr, a.subnet.Bits()))
	moved := listenAt(after.node, s.to)
	move := &netlink.Neigh{LinkIndex: a.link(bridge).Attrs().Index, State: netlink.NUD_REACHABLE, IP: before.addr.AsSlice(), HardwareAddr: after.mac}
	must(w.t, a.netlink.NeighSet(move))
	done := time.Now()
	last, err := s.awaitSilence(silence, healTimeout)
	if late := last.Sub(done); err == nil && late > ruleLimit {
		err = fmt.Errorf("the container that had the address gets packets for %v more, want %v", late, ruleLimit)
	}
	must(w.t, moved.SetReadDeadline(time.Now().Add(healTimeout)))
	_, arrives := moved.Read(make([]byte, 64))
	return errors.Join(err, arrives)
}
