package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"tulle/internal/fabric"
	"tulle/internal/hostfiles/hostfilestest"
	"tulle/internal/probe"
	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/ip/iptest"
	"tulle/subnet"
)

// unwilling is a store that gives no lease, or does not take what it should announce, while it is told so.
type unwilling struct {
	subnet.Store
	acquire, update *atomic.Pointer[error]
}

func newUnwilling(store subnet.Store) unwilling {
	return unwilling{store, &atomic.Pointer[error]{}, &atomic.Pointer[error]{}}
}

func (u unwilling) Acquire(ctx context.Context, claim subnet.Claim) (subnet.Held, error) {
	if err := u.acquire.Load(); err != nil {
		return nil, *err
	}
	held, err := u.Store.Acquire(ctx, claim)
	if err != nil {
		return nil, err
	}
	return unwillingHeld{held, u.update}, nil
}

type unwillingHeld struct {
	subnet.Held
	update *atomic.Pointer[error]
}

func (h unwillingHeld) Update(ctx context.Context, attrs subnet.Attrs) error {
	if err := h.update.Load(); err != nil {
		return *err
	}
	return h.Held.Update(ctx, attrs)
}

// unreadable is a kernel that cannot be read while it is told so.
type unreadable struct {
	ip.Kernel
	broken *atomic.Bool
}

func (k unreadable) Snapshot(ctx context.Context, scope ip.Scope) (ip.Snapshot, error) {
	if k.broken.Load() {
		return ip.Snapshot{}, errors.New("too many open files")
	}
	return k.Kernel.Snapshot(ctx, scope)
}

// affliction makes one kind of trouble appear on the first host, and go. The functions may be nil.
type affliction struct {
	config   string // v4Config if empty
	hosts    int    // 2 if zero
	sick     bool   // the host is not sound at first
	prepare  func(*world, *node)
	cause    func(*world, *node)
	cure     func(*world, *node)
	restarts bool // what goes only with a restart
}

// bridge gives the host a bridge with the first address of a subnet.
func (h *node) bridge(name string, p netip.Prefix) {
	h.kernel.AddInterface(ip.Interface{Name: name, Kind: "bridge", MTU: 1450, Up: true, Addrs: []ip.InterfaceAddr{{Prefix: netip.PrefixFrom(p.Addr().Next(), p.Bits())}}})
}

func (h *node) lease() netip.Prefix { return h.agent.Status().Of("").Lease.Subnets[0] }

func afflictions() map[trouble.Code]affliction {
	const thief = `{"PublicIP":"172.30.0.99","BackendType":"vxlan","Tulle":{"Node":"thief","Instance":"x"}}`
	var key string // that the thief has taken
	steal := func(w *world, h *node) {
		key = h.key()
		w.store.Put(key, thief, 0)
	}
	giveBack := func(w *world, _ *node) { w.store.Delete(key) }
	foreign := func(policy ip.Verdict, rules ...ip.FilterRule) ip.Filter {
		return ip.Filter{Place: ip.Place{Engine: ip.NFTables, Table: "fw", Chain: "fwd"}, Hook: ip.AtForward, Policy: policy, Rules: rules}
	}
	open := func(_ *world, h *node) { h.kernel.SetFilters(foreign(ip.Accept)) }
	inside := ip.Match{Prefix: netip.MustParsePrefix("10.5.0.0/16")}
	var store unwilling
	unwillingly := func(w *world, h *node) {
		store = newUnwilling(w.store)
		h.store = store
	}
	refusal := errors.New("etcdserver: permission denied")
	var broken atomic.Bool
	var gate chan struct{}
	keysOf := func(w *world, do func(key string)) {
		for i := range 12 {
			do(fmt.Sprintf("subnets/10.5.%d.0-24", 100+i))
		}
	}
	return map[trouble.Code]affliction{
		trouble.StoreWaiting: {
			sick: true,
			prepare: func(w *world, h *node) {
				gate = make(chan struct{})
				h.store = gated{w.store, gate}
			},
			cure: func(*world, *node) { close(gate) },
		},
		trouble.StoreUnreachable: {
			prepare: func(_ *world, h *node) {
				h.change = func(c *Config) {
					c.Networks[0].Trouble = func() error {
						if broken.Load() {
							return errors.New("etcd does not answer")
						}
						return nil
					}
				}
			},
			cause: func(*world, *node) { broken.Store(true) },
			cure:  func(*world, *node) { broken.Store(false) },
		},
		trouble.StoreUnconfirmed: {
			cause: func(w *world, h *node) {
				h.stop()
				h.reboot()
				gate = make(chan struct{})
				h.store = gated{w.store, gate}
				h.start()
			},
			cure: func(*world, *node) { close(gate) },
		},
		trouble.StoreSuddenLoss: {
			prepare: func(w *world, _ *node) {
				keysOf(w, func(key string) { w.store.Put(key, `{"PublicIP":"172.31.0.1","BackendType":"alloc"}`, 0) })
			},
			cause: func(w *world, _ *node) { keysOf(w, w.store.Delete) },
		},
		trouble.KeyUnreadable: {
			cause: func(w *world, _ *node) { w.store.Put("subnets/README", "x", 0) },
			cure:  func(w *world, _ *node) { w.store.Delete("subnets/README") },
		},
		trouble.ConfigMissing: {
			sick:    true,
			prepare: func(w *world, _ *node) { w.store.Delete("config") },
			cure:    func(w *world, _ *node) { w.store.Put("config", v4Config, 0) },
		},
		trouble.ConfigRefused: {
			sick:    true,
			prepare: func(w *world, _ *node) { w.store.Put("config", `{"Network":"10.5.0.0/16","SubnetLen":12}`, 0) },
			cure:    func(w *world, _ *node) { w.store.Put("config", v4Config, 0) },
		},
		trouble.UplinkNarrow: {
			config: `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","MTU":1500}}`,
			cause:  func(_ *world, h *node) { one := eth0(h.n); one.MTU = 1400; h.kernel.SetInterface(one) },
			cure:   func(_ *world, h *node) { h.kernel.SetInterface(eth0(h.n)) },
		},
		trouble.ConfigWarning: {
			cause: func(w *world, _ *node) { w.store.Put("config", "not JSON", 0) },
			cure:  func(w *world, _ *node) { w.store.Put("config", v4Config, 0) },
		},
		trouble.ConfigPending: {
			cause: func(w *world, _ *node) { w.store.Put("config", `{"Network":"10.7.0.0/16"}`, 0) },
			cure:  func(w *world, _ *node) { w.store.Put("config", v4Config, 0) },
		},
		trouble.LeaseWaiting: {
			sick: true,
			prepare: func(w *world, h *node) {
				unwillingly(w, h)
				store.acquire.Store(&fabric.ErrAcquiring)
			},
			cure: func(*world, *node) { store.acquire.Store(nil) },
		},
		trouble.LeaseUnavailable: {
			sick: true,
			prepare: func(w *world, h *node) {
				unwillingly(w, h)
				store.acquire.Store(&refusal)
			},
			cure: func(*world, *node) { store.acquire.Store(nil) },
		},
		trouble.LeaseExhausted: {
			config: `{"Network":"10.5.0.0/16","SubnetMin":"10.5.7.0","SubnetMax":"10.5.7.0"}`,
			hosts:  1, sick: true,
			prepare: func(w *world, _ *node) { w.store.Put("subnets/10.5.7.0-24", thief, 0) },
			cure:    func(w *world, _ *node) { w.store.Delete("subnets/10.5.7.0-24") },
		},
		trouble.LeaseConflict: {
			sick: true,
			prepare: func(w *world, h *node) {
				w.hosts[1].change = func(c *Config) { c.Host.Node = h.name }
				w.hosts[1].start()
				w.within(soon, "has the id", func(o *node) bool { return o == h || o.agent.Status().Ready })
			},
			cure: func(w *world, _ *node) {
				key := w.hosts[1].key()
				w.hosts[1].stop()
				w.store.Delete(key)
			},
		},
		trouble.LeaseClaimed: {
			cause: func(w *world, h *node) {
				clone := w.hosts[1]
				key := clone.key()
				clone.stop()
				w.store.Delete(key)
				clone.change = func(c *Config) { c.Host.Node = h.name }
				clone.start()
			},
			cure: func(w *world, _ *node) { w.hosts[1].stop() },
		},
		trouble.LeaseLost: {cause: steal, cure: giveBack},
		trouble.LeaseRenumbered: {
			prepare: func(_ *world, h *node) { h.change = func(c *Config) { c.Networks[0].Lease.Renumber = true } },
			cause:   steal, restarts: true,
		},
		trouble.LeaseMisfit: {
			prepare: func(_ *world, h *node) { h.change = func(c *Config) { c.Networks[0].Lease.Renumber = true } },
			cause: func(w *world, h *node) {
				w.store.Put("config", `{"Network":"10.7.0.0/16"}`, 0)
				steal(w, h)
			},
			restarts: true,
		},
		trouble.LeaseUnpublished: {
			prepare: unwillingly,
			cause: func(_ *world, h *node) {
				store.update.Store(&refusal)
				h.move(77)
			},
			cure: func(*world, *node) { store.update.Store(nil) },
		},
		trouble.LeaseOutranked: {
			hosts: 3,
			cause: func(w *world, h *node) {
				w.store.Put("subnets/10.5.250.0-24", flannelLease(h.inside(), "02:00:00:00:00:66"), 0)
				w.within(soon, "told", func(h *node) bool { return len(h.leftOut()) > 0 })
				w.store.Delete(h.key())
			},
			cure: func(w *world, _ *node) { w.store.Delete("subnets/10.5.250.0-24") },
		},
		trouble.PeerRefused: {
			cause: func(w *world, _ *node) {
				w.store.Put("subnets/10.6.0.0-24", flannelLease("172.30.0.66", "02:00:00:00:00:66"), 0)
			},
			cure: func(w *world, _ *node) { w.store.Delete("subnets/10.6.0.0-24") },
		},
		trouble.UplinkMissing: {
			cause: func(_ *world, h *node) { h.kernel.RemoveInterface("eth0") },
			cure:  func(_ *world, h *node) { h.uplink(h.n) },
		},
		trouble.UplinkOther: {
			cause: func(_ *world, h *node) {
				<-time.After(established)
				h.vpn()
			},
			cure: func(_ *world, h *node) { h.kernel.RemoveInterface("tun0") },
		},
		trouble.RouteShadowed: {
			cause: func(w *world, h *node) {
				w.converged(soon)
				peer := h.agent.Status().Of("").Peers[0].Subnets[0]
				h.kernel.SetPolicy(nil, []iptest.TableRoute{{Route: ip.Route{Dst: peer}, Table: ip.MainTable, Kind: ip.Blackhole}})
			},
			cure: func(_ *world, h *node) { h.kernel.SetPolicy(nil, nil) },
		},
		trouble.RouteUncertain: {
			cause: func(_ *world, h *node) {
				peer := h.agent.Status().Of("").Peers[0].Subnets[0]
				h.kernel.SetPolicy([]iptest.Rule{{Selector: ip.Selector{Mark: 7}, Table: 100}}, []iptest.TableRoute{{Route: ip.Route{Dst: peer}, Table: 100, Kind: ip.Blackhole}})
			},
			cure: func(_ *world, h *node) { h.kernel.SetPolicy(nil, nil) },
		},
		trouble.UplinkDiverted: {
			cause: func(_ *world, h *node) {
				h.kernel.AddInterface(ip.Interface{Name: "tun0", MTU: 1400, Up: true})
				h.external(ip.Op{Verb: ip.Add, New: ip.Route{Dst: netip.MustParsePrefix("172.30.0.2/32"), Link: "tun0"}})
			},
			cure: func(_ *world, h *node) { h.kernel.RemoveInterface("tun0") },
		},
		trouble.ForwardBlocked: {
			cause: func(_ *world, h *node) { h.kernel.SetFilters(foreign(ip.Drop)) },
			cure:  open,
		},
		trouble.ForwardUncertain: {
			cause: func(_ *world, h *node) {
				h.kernel.SetFilters(foreign(ip.Drop, ip.FilterRule{More: true, Verdict: ip.Accept}))
			},
			cure: open,
		},
		trouble.TunnelBlocked: {
			cause: func(_ *world, h *node) { h.kernel.Restore(ip.IPTables, ip.IPv4, "*filter\n:INPUT DROP\nCOMMIT\n") },
			cure:  func(_ *world, h *node) { h.kernel.Restore(ip.IPTables, ip.IPv4, "*filter\n:INPUT ACCEPT\nCOMMIT\n") },
		},
		trouble.TunnelUncertain: {
			cause: func(_ *world, h *node) {
				h.kernel.Restore(ip.IPTables, ip.IPv4, "*filter\n:OUTPUT DROP\n-A OUTPUT -m set -j ACCEPT\nCOMMIT\n")
			},
			cure: func(_ *world, h *node) { h.kernel.Restore(ip.IPTables, ip.IPv4, "*filter\n:OUTPUT ACCEPT\nCOMMIT\n") },
		},
		trouble.OutsideBlocked: {
			cause: func(_ *world, h *node) {
				h.bridge("cni0", h.lease())
				h.kernel.SetFilters(foreign(ip.Drop, ip.FilterRule{Known: true, Verdict: ip.Accept}, ip.FilterRule{Src: inside, Dst: inside, Verdict: ip.Accept},
					ip.FilterRule{Src: inside, Dst: ip.Match{Prefix: ip.IPv4.Multicast()}, Verdict: ip.Accept}))
			},
			cure: open,
		},
		trouble.SettingRefused: {
			sick:    true,
			prepare: func(_ *world, h *node) { h.kernel.Fix() },
			cure: func(_ *world, h *node) {
				h.external(ip.Op{Verb: ip.Add, New: ip.Sysctl{Key: "net/ipv4/ip_forward", Value: "1"}})
			},
		},
		trouble.SettingAdvised: {
			config: dualConfig,
			prepare: func(_ *world, h *node) {
				h.kernel.Refuse(func(op ip.Op) error {
					if s, ok := op.New.(ip.Sysctl); ok && s.Optional {
						return fabric.ErrUnconfirmed
					}
					return nil
				})
			},
			cure: func(_ *world, h *node) { h.kernel.Refuse(nil) },
		},
		trouble.PeerUnreachable:     wayTrouble(probe.Fabric, probe.Verdict{State: probe.Unreachable}),
		trouble.PeerNarrow:          wayTrouble(probe.Fabric, probe.Verdict{State: probe.Narrow, Size: 1300}),
		trouble.ProbeBlocked:        probeTrouble(func(m *memoryProber) { m.sayBlocked(errors.New("nobody answers")) }, func(m *memoryProber) { m.sayBlocked(nil) }),
		trouble.FastPathUnavailable: fastPathTrouble(ip.FastPathState{Reason: "this kernel has no tcx"}),
		trouble.FastPathUnkept:      fastPathTrouble(ip.FastPathState{On: true, Unkept: "there is no bpf filesystem at /sys/fs/bpf"}),
		trouble.FastPathFailed:      fastPathTrouble(ip.FastPathState{On: true, Failed: "attach to vethA: no space left on device"}),
		trouble.NetworkOverlaps: {
			cause: func(_ *world, h *node) { h.lan("10.5.200.7/24") },
			cure:  func(_ *world, h *node) { h.kernel.RemoveInterface("eth1") },
		},
		trouble.BridgeStale: {
			cause: func(_ *world, h *node) { h.bridge("docker0", netip.MustParsePrefix("10.5.0.0/24")) },
			cure:  func(_ *world, h *node) { h.kernel.RemoveInterface("docker0") },
		},
		trouble.BridgeShared: {
			cause: func(_ *world, h *node) {
				h.bridge("cni0", h.lease())
				h.bridge("docker0", h.lease())
			},
			cure: func(_ *world, h *node) { h.kernel.RemoveInterface("docker0") },
		},
		trouble.KernelFailed: {
			prepare: func(_ *world, h *node) { h.change = func(c *Config) { c.Kernel = unreadable{h.kernel, &broken} } },
			cause: func(_ *world, h *node) {
				broken.Store(true)
				h.agent.inbox.Wake()
			},
			cure: func(*world, *node) { broken.Store(false) },
		},
		trouble.KernelRefused: {
			cause: func(w *world, h *node) {
				h.kernel.Refuse(func(ip.Op) error { return errors.New("no buffer space available") })
				w.store.Put("subnets/10.5.77.0-24", flannelLease("172.30.0.77", "02:00:00:00:00:77"), 0)
			},
			cure: func(_ *world, h *node) { h.kernel.Refuse(nil) },
		},
		trouble.KernelUnstable: {
			sick: true,
			prepare: func(w *world, h *node) {
				broken.Store(true)
				h.change = func(c *Config) {
					c.Kernel = opponent{h.kernel, w.t, func(op ip.Op) bool { _, isRoute := op.New.(ip.Route); return isRoute && broken.Load() }}
				}
			},
			cure: func(*world, *node) { broken.Store(false) },
		},
		trouble.DeviceFiltered: {
			cause: func(_ *world, h *node) {
				h.kernel.SetDeviceFilters(ip.DeviceFilter{Link: "flannel.1", What: "the tc filter u32 at ingress", Show: "tc -s filter show dev flannel.1 ingress"})
			},
			cure: func(_ *world, h *node) { h.kernel.SetDeviceFilters() },
		},
		trouble.UplinkFiltered: {
			cause: func(_ *world, h *node) {
				h.kernel.SetDeviceFilters(ip.DeviceFilter{Link: "eth0", Uplink: true, What: "an XDP program", Show: "ip link show dev eth0"})
			},
			cure: func(_ *world, h *node) { h.kernel.SetDeviceFilters() },
		},
		trouble.KernelContested: {
			cause: func(w *world, h *node) {
				w.converged(soon)
				route := h.owned().Routes[0]
				for range contestAfter + 1 {
					h.external(ip.Op{Verb: ip.Delete, Old: route})
					w.converged(soon)
				}
			},
		},
		trouble.FileUnwritable: {
			prepare: func(_ *world, h *node) {
				h.change = func(c *Config) { c.StateDir = filepath.Join(h.dir, "disk", "state") }
			},
			cause: func(w *world, h *node) {
				disk := filepath.Join(h.dir, "disk")
				if err := os.RemoveAll(disk); err != nil {
					w.t.Fatal(err)
				}
				hostfilestest.Write(w.t, disk, "")
				h.move(77)
			},
			cure: func(w *world, h *node) {
				if err := os.Remove(filepath.Join(h.dir, "disk")); err != nil {
					w.t.Fatal(err)
				}
			},
		},
		trouble.NodeRandom: {
			prepare: func(_ *world, h *node) { h.change = func(c *Config) { c.NewNode = true } },
			cure:    func(_ *world, h *node) { h.change = nil }, restarts: true,
		},
		trouble.Fault: {
			prepare: func(_ *world, h *node) { h.change = withFault(func(s *ip.State) { s.FDB = nil }) },
			sick:    true,
			cure:    func(_ *world, h *node) { h.change = nil }, restarts: true,
		},
	}
}

// Every kind of trouble appears with its code, and goes when its cause does.
func TestEveryTroubleAppearsAndGoes(t *testing.T) {
	all := afflictions()
	for _, kind := range trouble.Kinds() {
		a, ok := all[kind.Code]
		if !ok {
			t.Errorf("%s has no test", kind.Code)
			continue
		}
		t.Run(string(kind.Code), func(t *testing.T) {
			config, hosts := a.config, a.hosts
			if config == "" {
				config = v4Config
			}
			if hosts == 0 {
				hosts = 2
			}
			simulate(t, config, hosts, func(t *testing.T, w *world) {
				h := w.hosts[0]
				has := func(*node) bool { return h.agent.Status().Troubles.Count[kind.Code] > 0 }
				if a.prepare != nil {
					a.prepare(w, h)
				}
				for _, o := range w.hosts {
					if o.stop == nil {
						o.start()
					}
				}
				if !a.sick {
					w.within(soon, "sound", func(o *node) bool { return o.agent.Status().Ready })
				}
				if a.cause != nil {
					if has(h) {
						t.Errorf("it is there without a cause: %+v", h.agent.Status().Troubles)
					}
					a.cause(w, h)
				}
				w.within(time.Minute, "there", has)
				for _, tr := range h.agent.Status().Troubles.All {
					if tr.Code == kind.Code && (tr.Text == "" || tr.Remedy == "") {
						t.Errorf("%+v lacks words", tr)
					}
				}
				if a.cure != nil {
					a.cure(w, h)
				}
				if a.restarts {
					h.stop()
					h.start()
				}
				w.within(5*time.Minute, "gone", func(o *node) bool { return !has(o) })
			})
		})
	}
}
