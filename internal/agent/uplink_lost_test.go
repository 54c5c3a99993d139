package agent

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tulle/internal/hostfiles"
	"tulle/internal/trouble"
	"tulle/ip"
)

func (h *node) record() hostfiles.Record {
	h.t.Helper()
	r, err := hostfiles.ReadRecord(filepath.Join(h.dir, "state"))
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

// mends checks that a route of the host is put back.
func (h *node) mends(r ip.Route) {
	h.t.Helper()
	h.external(ip.Op{Verb: ip.Delete, Old: r})
	<-time.After(established)
	synctest.Wait()
	if !slices.Contains(h.owned().Routes, r) {
		h.t.Errorf("%v not put back: %s", r, h.agent.Status().Reason)
	}
}

// A host that was off and lacks a family by now acquires nothing with the address that it had: another host may have that.
func TestAddressThatAnotherHostHasByNow(t *testing.T) {
	simulate(t, dualConfig, 3, func(t *testing.T, w *world) {
		h, peer, other := w.hosts[0], w.hosts[1], w.hosts[2]
		h.start()
		peer.start()
		<-time.After(established)
		h.stop()
		<-time.After(72 * time.Hour)
		h.kernel.SetInterface(without(eth0(h.n), ip.IPv4))
		e := eth0(3)
		e.Addrs[0] = eth0(1).Addrs[0]
		other.kernel.SetInterface(e)
		h.start()
		<-time.After(established)
		synctest.Wait()
		if p := publicOf(peer, h); len(p) > 0 && p[0] == netip.MustParseAddr("172.30.0.1") {
			t.Errorf("h1 acquired a lease with %v; it has no IPv4 address (%s)", p, h.agent.Status().Reason)
		}
		other.start()
		<-time.After(established)
		synctest.Wait()
		if !other.agent.Status().Ready {
			t.Errorf("the owner of 172.30.0.1 is not ready: %s", other.agent.Status().Reason)
		}
	})
}

// An uplink that loses a family stays, though a VPN has both and the default routes.
func TestUplinkLosesAFamilyBesideVPN(t *testing.T) {
	for _, lost := range ip.Families() {
		t.Run(lost.String(), func(t *testing.T) {
			simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
				h, peer := w.hosts[0], w.hosts[1]
				w.start()
				<-time.After(established)
				h.vpn()
				h.uses("vpn", "eth0")
				h.kernel.SetInterface(without(eth0(h.n), lost))
				<-time.After(11 * time.Minute)
				h.kernel.SetInterface(eth0(h.n))
				<-time.After(time.Hour)
				synctest.Wait()
				if st := h.agent.Status(); st.Uplink.Link != "eth0" {
					t.Errorf("uplink %+v, ready %v, peer sends to %v", *st.Uplink, st.Ready, publicOf(peer, h))
				}
			})
		})
	}
}

// An uplink that has been in use for ten seconds is established, whether a pass has looked since or not.
func TestUplinkEstablishesBetweenPasses(t *testing.T) {
	for _, after := range []time.Duration{12 * time.Second, 28 * time.Second, 31 * time.Second} {
		t.Run(after.String(), func(t *testing.T) {
			simulate(t, v4Config, 2, func(t *testing.T, w *world) {
				h := w.hosts[0]
				w.start()
				<-time.After(after)
				synctest.Wait()
				h.vpn()
				h.uses("VPN", "eth0")
			})
		})
	}
}

// An uplink that was away is used with the address that it had, though it has a virtual one as well.
func TestUplinkComesBackWithItsAddress(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h, peer := w.hosts[0], w.hosts[1]
		h.backup()
		w.start()
		<-time.After(established)
		more := eth0(h.n)
		more.Addrs = append([]ip.InterfaceAddr{{Prefix: netip.MustParsePrefix("fd30::ff/128")}}, more.Addrs...)
		h.kernel.SetInterface(more)
		<-time.After(established)
		synctest.Wait()
		was := publicOf(peer, h)
		h.kernel.RemoveInterface("eth0")
		<-time.After(2 * time.Second)
		h.uplink(h.n)
		h.kernel.SetInterface(more)
		h.uses("back", "eth0")
		if now := publicOf(peer, h); !slices.Equal(now, was) {
			t.Errorf("peers send to %v, was %v", now, was)
		}
	})
}

// Behind NAT, what peers send to is on no interface. After an early restart the uplink is established as at a first start.
func TestUplinkBehindNATEstablishes(t *testing.T) {
	simulate(t, v4Config, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.change = func(c *Config) { c.Uplink.Public.V4 = netip.MustParseAddr("203.0.113.1") }
		w.start()
		<-time.After(5 * time.Second)
		h.stop()
		h.start()
		<-time.After(2 * time.Minute)
		synctest.Wait()
		if got := h.record().Established; got == nil || !slices.Equal(got.Addrs, []netip.Addr{netip.MustParseAddr("172.30.0.1")}) {
			t.Errorf("the record has %v for addresses of the established uplink", got)
		}
		h.vpn()
		h.uses("VPN", "eth0")
	})
}

// An uplink that has another address after a boot is known by its name.
func TestUplinkIsRenumberedAtABoot(t *testing.T) {
	simulate(t, v4Config, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		w.start()
		h.uses("at first", "eth0")
		h.stop()
		h.move(201)
		h.start()
		<-time.After(2 * time.Minute)
		h.vpn()
		h.uses("VPN", "eth0")
	})
}

// What is known of an uplink is of now, not of the record.
func TestRenumberedUplinkLosesAFamily(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		w.start()
		h.uses("at first", "eth0")
		h.stop()
		h.move(201)
		h.start()
		<-time.After(established)
		w.converged(soon)
		h.kernel.SetInterface(without(eth0(201), ip.IPv6))
		<-time.After(established)
		h.mends(h.owned().Routes[0])
	})
}

// What stands in for an established uplink may lose a family as well.
func TestSubstituteLosesAFamily(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.backup()
		w.start()
		<-time.After(established)
		h.kernel.RemoveInterface("eth0")
		<-time.After(5 * time.Minute)
		w.converged(soon)
		h.kernel.SetInterface(ip.Interface{Name: "eth1", MTU: 1500, Up: true, Addrs: []ip.InterfaceAddr{{Prefix: netip.MustParsePrefix("192.168.9.2/24")}}})
		<-time.After(established)
		h.mends(h.owned().Routes[0])
	})
}

// Time without any uplink is no time in use.
func TestTimeWithoutUplinkEstablishesNothing(t *testing.T) {
	simulate(t, v4Config, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.backup()
		w.start()
		h.uses("at first", "eth0")
		h.kernel.RemoveInterface("eth0")
		<-time.After(time.Minute)
		h.kernel.RemoveInterface("eth1")
		<-time.After(10 * time.Minute)
		h.backup()
		<-time.After(5 * time.Second)
		h.uplink(h.n)
		h.uses("both back", "eth0")
	})
}

// What the operator names is not replaced by what was used before.
func TestNamedUplinkIsMissing(t *testing.T) {
	simulate(t, v4Config, 2, func(t *testing.T, w *world) {
		h := w.hosts[0]
		w.start()
		h.uses("at first", "eth0")
		h.stop()
		h.change = func(c *Config) { c.Uplink.Interfaces = []string{"eth1"} }
		h.start()
		<-time.After(established)
		synctest.Wait()
		if st := h.agent.Status(); st.Uplink != nil {
			t.Errorf("uplink %+v (%s)", *st.Uplink, st.Reason)
		}
	})
}

// A start leaves the uplink in the record.
func TestRecordKeepsTheUplinkAtAStart(t *testing.T) {
	simulate(t, v4Config, 1, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.change = func(c *Config) { c.Uplink.Interfaces = []string{"eth0"} }
		w.start()
		<-time.After(established)
		h.stop()
		was := h.record().Established.Addrs
		h.start()
		<-time.After(5 * time.Second)
		if now := h.record().Established; now == nil || !slices.Equal(now.Addrs, was) {
			t.Errorf("record %v, was %v", now, was)
		}
	})
}

// The advice names both interfaces, also if the uplink goes in the midst of a pass.
func TestAdviceNamesTheUplink(t *testing.T) {
	for n := range 20 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
				w.start()
				<-time.After(established)
				h := w.hosts[0]
				h.vpn()
				h.uses("vpn", "eth0")
				was := h.owned()
				first := true
				h.kernel.Refuse(func(ip.Op) error {
					if first {
						first = false
						go func() {
							h.kernel.RemoveInterface("tun0")
							h.kernel.RemoveInterface("eth0")
						}()
					}
					return nil
				})
				h.external(ip.Op{Verb: ip.Delete, Old: was.Routes[0]})
				for range 30 {
					<-time.After(5 * time.Millisecond)
					synctest.Wait()
					for _, text := range h.texts(trouble.UplinkOther) {
						if strings.Contains(text, "over ,") {
							t.Fatal(text)
						}
					}
				}
			})
		})
	}
}

// A link-local address that the operator named stays announced when the other family goes.
func TestNamedLinkLocalAddressLosesAFamily(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		h, peer := w.hosts[0], w.hosts[1]
		e := eth0(h.n)
		e.Addrs = append([]ip.InterfaceAddr{{Prefix: netip.MustParsePrefix("169.254.7.7/16")}}, e.Addrs...)
		h.kernel.SetInterface(e)
		h.change = func(c *Config) { c.Uplink.Interfaces = []string{"169.254.7.7"} }
		w.start()
		<-time.After(established)
		synctest.Wait()
		was := publicOf(peer, h)
		h.kernel.SetInterface(without(e, ip.IPv6))
		<-time.After(established)
		synctest.Wait()
		if now := publicOf(peer, h); !slices.Equal(now, was) {
			t.Errorf("peers send to %v, was %v", now, was)
		}
	})
}
