package agent

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tulle/internal/fabric"
	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet"
)

// memoryPath is a fast path without a kernel: it keeps what it is told.
type memoryPath struct {
	mu    sync.Mutex
	wants []ip.FastPath
	state ip.FastPathState
}

func (m *memoryPath) Want(w ip.FastPath) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wants = append(m.wants, w)
}

func (m *memoryPath) Run(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (m *memoryPath) State() ip.FastPathState {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state
}

func (m *memoryPath) set(st ip.FastPathState) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = st
}

// wanted is what it was told last; nil before.
func (m *memoryPath) wanted() *ip.FastPath {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.wants) == 0 {
		return nil
	}
	return &m.wants[len(m.wants)-1]
}

// told is how often it was told what is wanted.
func (m *memoryPath) told() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.wants)
}

// give gives an agent the path.
func (m *memoryPath) give(cfg *Config) {
	cfg.FastPath = opens(m)
}

// opens is how an agent comes by a fast path.
func opens(p FastPath) func() OpenedFastPath {
	return func() OpenedFastPath { return OpenedFastPath{FastPath: p} }
}

// wholeFastPath is what is wanted of the fast path, derived anew from all that is wanted of the kernel.
func wholeFastPath(t *testing.T, h *node) ip.FastPath {
	t.Helper()
	want, err := h.agent.Wanted(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return ip.FastPathOf(want.State, []string{"eth0"}, nil, nil, nil)
}

// fastPathTrouble has the fast path of a host that must have one say that it stands badly, and then well.
func fastPathTrouble(bad ip.FastPathState) affliction {
	path := &memoryPath{state: ip.FastPathState{On: true}}
	return affliction{
		prepare: func(_ *world, h *node) {
			h.change = func(c *Config) {
				path.give(c)
				c.FastPathRequired = true
			}
		},
		cause: func(*world, *node) { path.set(bad) },
		cure:  func(*world, *node) { path.set(ip.FastPathState{On: true}) },
	}
}

func TestFastPathFollowsWhatIsWanted(t *testing.T) {
	for name, backend := range map[string]string{
		"vxlan":   `"vxlan"`,
		"direct":  `"vxlan","DirectRouting":true`,
		"host-gw": `"host-gw"`,
		"ipip":    `"ipip"`,
	} {
		t.Run(name, func(t *testing.T) {
			config := `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:5::/48","Backend":{"Type":` + backend + `}}`
			if name == "ipip" {
				config = `{"Network":"10.5.0.0/16","Backend":{"Type":"ipip"}}`
			}
			simulate(t, config, 2, func(t *testing.T, w *world) {
				h, path := w.hosts[0], &memoryPath{state: ip.FastPathState{On: true}}
				exclude := []netip.Prefix{netip.MustParsePrefix("10.5.255.0/24")}
				h.change = func(cfg *Config) {
					path.give(cfg)
					cfg.Networks[0].Options.FastPathExclude = exclude
				}
				w.start()
				w.converged(soon)
				subnets := h.agent.Status().Of("").Lease.Subnets
				h.bridge("cni0", subnets[0])
				h.bridge("br-other", netip.MustParsePrefix("192.168.7.0/24"))
				<-time.After(time.Minute)
				synctest.Wait()
				got := path.wanted()
				if got == nil {
					t.Fatal("nothing is wanted")
				}
				if !slices.Equal(got.Bridges, []string{"cni0"}) || !slices.Equal(got.Uplinks, []string{"eth0"}) || !slices.Equal(got.Subnets, subnets) || !slices.Equal(got.Exclude, exclude) {
					t.Errorf("wanted are %+v, want cni0, eth0, %v and %v", got, subnets, exclude)
				}
				peers := len(subnets)
				if name == "ipip" {
					peers = 0
				}
				if got.Peers.Len() != peers {
					t.Errorf("peers %+v, want %d", got.Peers.Sorted(), peers)
				}
				for p := range got.Peers.All() {
					tunnelled := slices.ContainsFunc(got.Devices, func(d ip.FastDevice) bool {
						return d.Name == p.Link && d.Tunnel.Port != 0 && d.MAC != (ip.MAC{}) && d.MTU != 0
					})
					if tunnelled != (name == "vxlan") || tunnelled == (p.MAC == (ip.MAC{})) {
						t.Errorf("peer %+v", p)
					}
				}
				// At rest nothing is told anew.
				before := path.told()
				<-time.After(10 * time.Minute)
				synctest.Wait()
				if after := path.told(); after != before {
					t.Errorf("told %d times what has not changed", after-before)
				}
				// Without a say, as without an uplink, what was wanted stays.
				h.kernel.RemoveInterface("eth0")
				<-time.After(time.Minute)
				synctest.Wait()
				if after := path.told(); after != before {
					t.Errorf("told to want %+v by a pass that has no say", path.wanted())
				}
				h.uplink(h.n)
				w.converged(time.Minute)
				h.kernel.RemoveInterface("cni0")
				<-time.After(time.Minute)
				synctest.Wait()
				if got := path.wanted(); len(got.Bridges) != 0 {
					t.Errorf("bridges %v after they have gone", got.Bridges)
				}
			})
		})
	}
}

// slowPath takes in what is wanted of it when it may.
type slowPath struct {
	memoryPath
	may chan struct{}
}

func (s *slowPath) Want(w ip.FastPath) {
	<-s.may
	s.memoryPath.Want(w)
}

// A host is ready before the fast path knows what is wanted.
func TestReadyWaitsForNoFastPath(t *testing.T) {
	simulate(t, v4Config, 2, func(t *testing.T, w *world) {
		path := &slowPath{may: make(chan struct{})}
		let := sync.OnceFunc(func() { close(path.may) })
		defer let()
		w.hosts[0].change = func(cfg *Config) { cfg.FastPath = opens(path) }
		w.start()
		w.within(soon, "ready", func(h *node) bool { return h.agent.Status().Ready })
		if path.told() != 0 {
			t.Error("it knows")
		}
		let()
		w.within(soon, "what is wanted", func(*node) bool { return path.wanted() != nil && path.wanted().Peers.Len() == 1 })
	})
}

// Peers that come and go by incremental passes are told, each by itself.
func TestFastPathFollowsIncrementalPasses(t *testing.T) {
	simulate(t, v4Config, 1, func(t *testing.T, w *world) {
		h, path := w.hosts[0], &memoryPath{}
		h.change = path.give
		w.start()
		w.within(soon, "ready", func(h *node) bool { return h.agent.Status().Ready })
		<-time.After(45 * time.Second) // between two full passes
		passes := h.agent.Status().Work.Passes
		w.putPeer("subnets/10.5.77.0-24", "172.30.0.77", "02:00:00:00:00:77", "vxlan")
		w.within(soon, "a peer", func(*node) bool { return path.wanted().Peers.Len() == 1 })
		kept := path.wanted().Peers.Sorted()
		first := path.wanted()
		w.deletePeer("subnets/10.5.77.0-24")
		w.within(time.Minute, "none", func(*node) bool { return path.wanted().Peers.Len() == 0 })
		if !slices.Equal(first.Peers.Sorted(), kept) {
			t.Error("what was handed on has changed")
		}
		if st := h.agent.Status(); st.Work.Incremental < 2 {
			t.Errorf("%d full and %d incremental passes", st.Work.Passes-passes, st.Work.Incremental)
		}
	})
}

func TestFastPathShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := &memoryPath{}
		f := newFastPath(Config{})
		f.use(opens(path)())
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- f.run(ctx) }()
		synctest.Wait()
		check := func(want FastPathShare) {
			t.Helper()
			synctest.Wait()
			if got := f.status().Recent; got != want {
				t.Errorf("share %+v, want %+v", got, want)
			}
		}
		check(FastPathShare{})
		<-time.After(500 * time.Millisecond) // between two looks
		for i := range uint64(30) {
			path.set(ip.FastPathState{Out: ip.FastTraffic{FastBytes: 70 * i, SlowBytes: 10 * i}, In: ip.FastTraffic{FastBytes: 20 * i}})
			<-time.After(time.Second)
		}
		check(FastPathShare{FastBytes: 900, Bytes: 1000, Over: 10 * time.Second})
		<-time.After(20 * time.Second)
		check(FastPathShare{Over: 10 * time.Second})
		path.set(ip.FastPathState{}) // its counters begin anew
		<-time.After(fastPathEvery)
		path.set(ip.FastPathState{In: ip.FastTraffic{FastBytes: 5}})
		<-time.After(fastPathEvery)
		check(FastPathShare{FastBytes: 5, Bytes: 5, Over: fastPathEvery})
		if n := len(f.samples); n > int(fastPathOver/fastPathEvery)+1 {
			t.Errorf("%d samples are kept", n)
		}
		cancel()
		<-ended
	})
}

// A fast path that fails ends nobody's work.
func TestFastPathThatEnds(t *testing.T) {
	simulate(t, v4Config, 2, func(t *testing.T, w *world) {
		w.hosts[0].change = func(cfg *Config) { cfg.FastPath = opens(brokenPath{}) }
		w.start()
		w.converged(soon)
		<-time.After(time.Minute)
		w.converged(soon)
		if texts := w.hosts[0].texts(trouble.FastPathFailed); len(texts) != 1 || !strings.Contains(texts[0], "restart tulled") {
			t.Errorf("troubles %q, want one that says that it has ended", texts)
		}
	})
}

// watchedStore tells when it is watched.
type watchedStore struct {
	subnet.Store
	watched chan struct{}
}

func (s watchedStore) Watch(ctx context.Context, deliver func(subnet.Set)) error {
	close(s.watched)
	return s.Store.Watch(ctx, deliver)
}

// The store is asked while the fast path is opened, which takes some time.
func TestStoreIsAskedWhileFastPathOpens(t *testing.T) {
	simulate(t, v4Config, 1, func(t *testing.T, w *world) {
		w.hosts[0].change = func(cfg *Config) {
			store := watchedStore{cfg.Networks[0].Store, make(chan struct{})}
			cfg.Networks[0].Store = store
			cfg.FastPath = func() OpenedFastPath {
				<-store.watched
				return OpenedFastPath{FastPath: &memoryPath{}}
			}
		}
		w.start()
		w.converged(soon)
	})
}

// brokenPath gives up at once.
type brokenPath struct{}

func (brokenPath) Want(ip.FastPath)          {}
func (brokenPath) State() ip.FastPathState   { return ip.FastPathState{} }
func (brokenPath) Run(context.Context) error { return fabric.ErrUnconfirmed }

func TestFastPathOff(t *testing.T) {
	simulate(t, v4Config, 1, func(t *testing.T, w *world) {
		h := w.hosts[0]
		w.start()
		w.converged(soon)
		if st := h.agent.Status(); st.FastPath != nil {
			t.Errorf("status %+v without a fast path", st.FastPath)
		}
		h.stop()
		h.change = func(cfg *Config) {
			cfg.FastPath, cfg.FastPathRequired = func() OpenedFastPath { return OpenedFastPath{Off: "the kernel refuses programs"} }, true
		}
		w.start()
		w.converged(soon)
		st := h.agent.Status()
		if st.FastPath == nil || st.FastPath.Reason != "the kernel refuses programs" || !st.Ready || !st.Troubles.Has("fastpath.unavailable") {
			t.Errorf("status %+v, troubles %+v", st.FastPath, st.Troubles)
		}
	})
}

// withoutConntrack is a kernel that tracks no connections yet: it has none of the settings of that.
type withoutConntrack struct {
	ip.Kernel
	t *testing.T
}

func ofConntrack(s ip.Sysctl) bool { return strings.HasPrefix(s.Key, "net/netfilter/") }

func (k withoutConntrack) Snapshot(ctx context.Context, scope ip.Scope) (ip.Snapshot, error) {
	snap, err := k.Kernel.Snapshot(ctx, scope)
	snap.Owned.Sysctls = slices.DeleteFunc(snap.Owned.Sysctls, ofConntrack)
	return snap, err
}

func (k withoutConntrack) Apply(ctx context.Context, plan ip.Plan) error {
	for _, op := range plan {
		if s, ok := op.New.(ip.Sysctl); ok && ofConntrack(s) {
			k.t.Errorf("%s is written, and does not exist", s.Key)
		}
	}
	return k.Kernel.Apply(ctx, plan)
}

// Connection tracking is told to take packets of which it has not seen all, as far as it can be, and keeps no host from being ready.
func TestConntrackIsLiberal(t *testing.T) {
	const key = "net/netfilter/nf_conntrack_tcp_be_liberal"
	forwarding := ip.Sysctl{Key: "net/ipv4/ip_forward", Value: "1"}
	for name, tt := range map[string]struct {
		change  func(*node, *Config)
		value   string
		advised bool
	}{
		"set":            {func(_ *node, cfg *Config) { (&memoryPath{}).give(cfg) }, "1", false},
		"no fast path":   {func(*node, *Config) {}, "0", false},
		"does not exist": {func(h *node, cfg *Config) { (&memoryPath{}).give(cfg); cfg.Kernel = withoutConntrack{h.kernel, h.t} }, "0", false},
		"read-only": {func(h *node, cfg *Config) {
			(&memoryPath{}).give(cfg)
			h.external(ip.Op{Verb: ip.Add, New: forwarding})
			h.kernel.Fix()
		}, "0", true},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, v4Config, 1, func(t *testing.T, w *world) {
				h := w.hosts[0]
				h.change = func(cfg *Config) { tt.change(h, cfg) }
				w.start()
				w.within(soon, "ready", func(h *node) bool { return h.agent.Status().Ready })
				<-time.After(time.Minute)
				synctest.Wait()
				before := h.agent.Status()
				<-time.After(10 * time.Minute)
				synctest.Wait()
				st := h.agent.Status()
				if !st.Ready || st.Work.Changes != before.Work.Changes {
					t.Errorf("ready %t (%s), %d changes at rest", st.Ready, st.Reason, st.Work.Changes-before.Work.Changes)
				}
				advice := st.Troubles.Of(trouble.SettingAdvised)
				if advised := slices.ContainsFunc(advice, func(tr trouble.Trouble) bool { return tr.Subject == key }); advised != tt.advised || len(st.Troubles.All) != len(advice) {
					t.Errorf("troubles %+v", st.Troubles.All)
				}
				snap, err := h.kernel.Snapshot(t.Context(), ip.Scope{Sysctls: []ip.Sysctl{{Key: key}}})
				if err != nil || snap.Owned.Sysctls[0].Value != tt.value {
					t.Errorf("%v, %v, want %s", snap.Owned.Sysctls, err, tt.value)
				}
			})
		})
	}
}

// Of several networks the sum is wanted, as far as they have had a say.
func TestFastPathOfNetworks(t *testing.T) {
	path := &memoryPath{}
	f := newFastPath(Config{Networks: make([]fabric.Config, 3)})
	f.use(opens(path)())
	var wants [3]*ip.FastPath
	offer := func() { f.offer(func(network int) *ip.FastPath { return wants[network] }) }
	offer()
	if path.told() != 0 || f.troubles(f.status()) != nil {
		t.Errorf("told %d times before anything is wanted", path.told())
	}
	one := ip.FastPath{Uplinks: []string{"eth0"}, Peers: ip.FastPeersOf(ip.FastPeer{Subnet: netip.MustParsePrefix("10.5.1.0/24")})}
	two := ip.FastPath{Uplinks: []string{"eth0", "eth1"}, Peers: ip.FastPeersOf(ip.FastPeer{Subnet: netip.MustParsePrefix("10.4.1.0/24")})}
	wants[2] = &one
	offer()
	offer()
	if got := path.wanted(); path.told() != 1 || !got.SameLinks(one) || !got.Peers.Equal(one.Peers) {
		t.Errorf("told %d times, last %+v", path.told(), got)
	}
	wants[0] = &two
	offer()
	offer()
	if got := path.wanted(); path.told() != 2 || !slices.Equal(got.Uplinks, two.Uplinks) || !slices.Equal(got.Peers.Sorted(), append(two.Peers.Sorted(), one.Peers.Sorted()...)) {
		t.Errorf("told %d times, last %+v", path.told(), got)
	}
	if one.Peers.Len() != 1 || two.Peers.Len() != 1 {
		t.Error("what the networks want has changed")
	}
}
