package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/ip/iptest"
	"tulle/subnet"
)

// shadow is a way in which other programs lead packets astray.
type shadow struct {
	code   trouble.Code
	rules  []iptest.Rule
	routes []iptest.TableRoute
}

// A peer that comes by a full pass is asked about as soon as one that comes by an incremental one.
func TestPeerOfAFullPassIsAskedAboutAtOnce(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 1, func(t *testing.T, w *world) {
		h := w.hosts[0]
		h.kernel.AddInterface(ip.Interface{Name: "tun0", MTU: 1500, Up: true, Addrs: []ip.InterfaceAddr{{Prefix: netip.MustParsePrefix("198.51.100.1/24")}}})
		w.store.Put("subnets/10.5.20.0-24", flannelLease("192.0.2.20", "02:00:00:00:00:20"), 0)
		w.start()
		h.hasBaseline(w)
		<-time.After(soon)
		h.agent.inbox.Wake()
		w.store.Put("subnets/10.5.30.0-24", flannelLease("198.51.100.7", "02:00:00:00:00:30"), 0)
		w.within(soon, "found", func(h *node) bool { return len(h.texts(trouble.UplinkDiverted)) == 1 })
	})
}

// shadows lists those of packets to one peer in one family: to its subnet, and to the host itself.
func shadows(subnet netip.Prefix, host, gateway netip.Addr) map[string]shadow {
	f := ip.FamilyOf(host)
	network := ip.Dual[netip.Prefix]{V4: netip.MustParsePrefix("10.5.0.0/16"), V6: netip.MustParsePrefix("fc00:5::/48")}.Of(f)
	everywhere := netip.PrefixFrom(host, 0).Masked()
	route := func(dst netip.Prefix, table uint32, kind ip.RouteType, link string) []iptest.TableRoute {
		gateway := gateway
		if link == "tun0" {
			gateway = netip.Addr{}
		}
		return []iptest.TableRoute{{Route: ip.Route{Dst: dst, Via: gateway, Link: link, Protocol: 3}, Table: table, Kind: kind}}
	}
	upper := netip.PrefixFrom(ip.Last(subnet), subnet.Bits()+1).Masked()
	away := route(everywhere, 100, ip.Unicast, "eth0")
	shadowed, diverted := trouble.RouteShadowed, trouble.UplinkDiverted
	return map[string]shadow{
		"same prefix":   {shadowed, nil, route(subnet, ip.MainTable, ip.Unicast, "eth0")},
		"blackhole":     {shadowed, nil, route(subnet, ip.MainTable, ip.Blackhole, "")},
		"unreachable":   {shadowed, nil, route(subnet, ip.MainTable, ip.Unreachable, "")},
		"longer prefix": {shadowed, nil, route(upper, ip.MainTable, ip.Unicast, "eth0")},
		"one address":   {shadowed, nil, route(ip.Host(ip.Last(subnet)), ip.MainTable, ip.Prohibit, "")},
		"rule for all":  {shadowed, []iptest.Rule{{To: everywhere, Table: 100}}, away},
		"rule from":     {shadowed, []iptest.Rule{{From: network, Table: 100}}, away},
		"rule to":       {shadowed, []iptest.Rule{{To: subnet, Table: 99}}, route(subnet, 99, ip.Unicast, "tun0")},
		"peer by a VPN": {diverted, nil, route(ip.Host(host), ip.MainTable, ip.Unicast, "tun0")},
		"peer nowhere":  {diverted, nil, route(ip.Host(host), ip.MainTable, ip.Blackhole, "")},
		"peer by rule":  {diverted, []iptest.Rule{{To: ip.Host(host), Table: 99}}, route(everywhere, 99, ip.Unicast, "tun0")},
	}
}

// Whoever leads packets astray that Tulle has a route for is told at once, and the host is ready again when that ends. Nothing of others is touched.
func TestShadowedRoutesAreTold(t *testing.T) {
	for name, config := range map[string]string{"vxlan": dualConfig, "host-gw": strings.Replace(dualConfig, "vxlan", "host-gw", 1)} {
		for _, bridged := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, with a bridge %t", name, bridged), func(t *testing.T) {
				simulate(t, config, 3, func(t *testing.T, w *world) {
					w.start()
					w.converged(soon)
					h := w.hosts[0]
					h.kernel.AddInterface(ip.Interface{Name: "tun0", MTU: 1400, Up: true, Addrs: []ip.InterfaceAddr{{Prefix: netip.MustParsePrefix("10.8.0.2/24")}}})
					if bridged {
						h.kernel.AddInterface(h.cni0())
					}
					w.converged(soon)
					peer := h.agent.Status().Of("").Peers[1]
					key := subnet.Subnets{V4: peer.Subnets[0], V6: peer.Subnets[1]}
					for i, to := range peer.Subnets {
						gateway := []string{"172.30.0.254", "fd30::fe"}[i]
						for row, s := range shadows(to, peer.Public[i], netip.MustParseAddr(gateway)) {
							switch {
							case name != "host-gw":
							case row == "rule from" && !bridged:
								continue // this host has no address that is meant
							case row == "rule for all", row == "peer nowhere":
								continue // the backend refuses peers that are not neighbours
							}
							before := len(h.owned().Routes)
							h.kernel.SetPolicy(s.rules, s.routes)
							w.within(2*time.Second, row+": told", func(o *node) bool {
								st := h.agent.Status()
								named := slices.ContainsFunc(st.Troubles.Of(s.code), func(tr trouble.Trouble) bool {
									return tr.Subject == "subnets/"+subnet.KeyOf(key) && strings.Contains(tr.Text, to.String())
								})
								return !st.Ready && named
							})
							if n := len(h.owned().Routes); n != before {
								t.Errorf("%s: %d routes, before %d", row, n, before)
							}
							<-time.After(time.Minute)
							if h.agent.Status().Ready {
								t.Errorf("%s: forgotten after a minute", row)
							}
							h.kernel.SetPolicy(nil, nil)
							w.converged(2 * time.Second)
						}
					}
				})
			})
		}
	}
}

// cni0 is a bridge that holds the host's lease in all families.
func (h *node) cni0() ip.Interface {
	i := ip.Interface{Name: "cni0", MTU: 1400, Up: true}
	for _, p := range h.agent.Status().Of("").Lease.Subnets {
		i.Addrs = append(i.Addrs, ip.InterfaceAddr{Prefix: netip.PrefixFrom(p.Addr().Next(), p.Bits())})
	}
	return i
}

// putPeers has the store hold leases of n more hosts, in 10.5.0.0/16 with subnets of 28 bits.
func (w *world) putPeers(n int) {
	for i := range n {
		key := fmt.Sprintf("subnets/10.5.%d.%d-28", 16+i/16, i%16*16)
		w.store.Put(key, flannelLease(fmt.Sprintf("172.31.%d.%d", i/200, 1+i%200), fmt.Sprintf("02:00:00:00:%02x:%02x", i>>8, i&255)), 0)
	}
}

// asking is a kernel that counts what it is asked.
type asking struct {
	*iptest.Kernel
	asked *atomic.Int64
}

func (k asking) Lookup(ctx context.Context, questions []ip.Question) ([]ip.Answer, error) {
	k.asked.Add(int64(len(questions)))
	return k.Kernel.Lookup(ctx, questions)
}

const smallSubnets = `{"Network":"10.5.0.0/16","SubnetLen":28,"SubnetMax":"10.5.15.0","Backend":{"Type":"vxlan"}}`

// Of many peers some are named, and all are counted.
func TestManyShadowedPeers(t *testing.T) {
	simulate(t, smallSubnets, 1, func(t *testing.T, w *world) {
		w.start()
		w.putPeers(100)
		h := w.hosts[0]
		all := func(*node) bool { st := h.agent.Status(); return st.Ready && st.Of("").PeerCount == 100 }
		w.within(time.Minute, "all there", all)
		h.kernel.SetPolicy([]iptest.Rule{{Table: 100}}, []iptest.TableRoute{
			{Route: ip.Route{Dst: netip.MustParsePrefix("10.5.0.0/16")}, Table: 100, Kind: ip.Blackhole},
		})
		w.within(2*time.Second, "told", func(h *node) bool { return !h.agent.Status().Ready })
		texts := h.texts(trouble.RouteShadowed)
		if len(texts) != 9 || !strings.Contains(texts[8], "92 more") {
			t.Errorf("told are %d:\n%s", len(texts), strings.Join(texts, "\n"))
		}
		h.kernel.SetPolicy(nil, nil)
		w.within(2*time.Second, "sound", all)
	})
}

// One route that matters is found among more of others' than the kernel is asked about at once.
func TestShadowAmongManyRoutes(t *testing.T) {
	simulate(t, smallSubnets, 1, func(t *testing.T, w *world) {
		w.start()
		w.putPeers(100)
		h := w.hosts[0]
		all := func(*node) bool { st := h.agent.Status(); return st.Ready && st.Of("").PeerCount == 100 }
		w.within(time.Minute, "all there", all)
		blackhole := func(addr netip.Addr, table uint32) iptest.TableRoute {
			return iptest.TableRoute{Route: ip.Route{Dst: ip.Host(addr)}, Table: table, Kind: ip.Blackhole}
		}
		routes := []iptest.TableRoute{blackhole(netip.MustParseAddr("10.5.22.5"), ip.MainTable)}
		for addr := netip.MustParseAddr("10.5.16.0"); len(routes) < 1200; addr = addr.Next() {
			routes = append(routes, blackhole(addr, 500)) // which no rule asks
		}
		h.kernel.SetPolicy(nil, routes)
		w.within(5*time.Second, "told", func(h *node) bool { return len(h.texts(trouble.RouteShadowed)) == 1 && !h.agent.Status().Ready })
		h.kernel.SetPolicy(nil, nil)
		w.within(2*time.Second, "sound", all)
	})
}

// What no notification tells, and what no route names, is found in turn; and a host at rest asks little.
func TestAllPeersAreAskedAboutInTurn(t *testing.T) {
	simulate(t, smallSubnets, 1, func(t *testing.T, w *world) {
		h := w.hosts[0]
		var asked atomic.Int64
		h.change = func(c *Config) { c.Kernel = asking{h.kernel, &asked} }
		w.start()
		const peers = 1200
		w.putPeers(peers)
		all := func(*node) bool { st := h.agent.Status(); return st.Ready && st.Of("").PeerCount == peers }
		w.within(time.Minute, "all there", all)
		<-time.After(2 * time.Minute)
		synctest.Wait()
		before := asked.Load()
		<-time.After(10 * resyncEvery)
		synctest.Wait()
		if n := asked.Load() - before; n < 8*2*peers || n > 12*2*peers {
			t.Errorf("asked %d times in %v, want about %d", n, 10*resyncEvery, 10*2*peers)
		}
		h.kernel.Unseen(ip.Plan{{Verb: ip.Add, New: ip.Route{Dst: netip.MustParsePrefix("172.31.5.0/24"), Via: netip.MustParseAddr("172.30.0.254"), Link: "eth0", Protocol: 3}}})
		w.within(resyncEvery+soon, "sound", all)
		h.kernel.AddInterface(ip.Interface{Name: "tun0", MTU: 1400, Up: true, Addrs: []ip.InterfaceAddr{{Prefix: netip.MustParsePrefix("10.8.0.2/24")}}})
		h.kernel.Unseen(ip.Plan{{Verb: ip.Add, New: ip.Route{Dst: netip.MustParsePrefix("172.31.5.100/32"), Link: "tun0", Protocol: 3}}})
		w.within(resyncEvery+soon, "found", func(h *node) bool { return len(h.texts(trouble.UplinkDiverted)) == 1 })
		h.kernel.RemoveInterface("tun0")
		w.within(2*time.Second, "sound", all)
	})
}

// Leases that change all the time keep nobody from being asked about in turn.
func TestAllPeersAreAskedAboutBesideChanges(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16","SubnetLen":28,"Backend":{"Type":"vxlan"}}`, 1, func(t *testing.T, w *world) {
		h := w.hosts[0]
		var asked atomic.Int64
		h.change = func(c *Config) { c.Kernel = asking{h.kernel, &asked} }
		w.start()
		const peers = 1200
		w.putPeers(peers)
		all := func(*node) bool { st := h.agent.Status(); return st.Ready && st.Of("").PeerCount == peers }
		w.within(time.Minute, "all there", all)
		<-time.After(2 * time.Minute)
		synctest.Wait()
		before, changes := asked.Load(), 0
		const every = 500 * time.Millisecond
		for range 10 * resyncEvery / every {
			changes++
			w.store.Put("subnets/10.5.16.0-28", flannelLease("172.31.0.1", fmt.Sprintf("02:00:00:01:%02x:%02x", changes>>8, changes&255)), 0)
			<-time.After(every)
		}
		synctest.Wait()
		if n := asked.Load() - before; n < 8*2*peers || n > 14*2*peers {
			t.Errorf("asked %d times beside %d changes, want about %d", n, changes, 10*2*peers)
		}
	})
}

// A lease that comes where another program's route is already is told, too.
func TestNewPeerIsShadowed(t *testing.T) {
	simulate(t, v4Config, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		h.kernel.SetPolicy(nil, []iptest.TableRoute{{Route: ip.Route{Dst: netip.MustParsePrefix("10.5.77.0/24")}, Table: ip.MainTable, Kind: ip.Blackhole}})
		<-time.After(soon)
		w.converged(soon)
		before := h.agent.Status().Work.Incremental
		w.store.Put("subnets/10.5.77.0-24", flannelLease("172.30.0.77", "02:00:00:00:00:77"), 0)
		w.within(2*time.Second, "told", func(*node) bool { return len(h.texts(trouble.RouteShadowed)) == 1 && !h.agent.Status().Ready })
		if h.agent.Status().Work.Incremental == before {
			t.Error("no incremental pass saw it first")
		}
		w.store.Delete("subnets/10.5.77.0-24")
		w.converged(soon)
	})
}
