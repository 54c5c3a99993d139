package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tulle/internal/backends"
	"tulle/internal/decision"
	"tulle/internal/fabric"
	"tulle/internal/hostfiles"
	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/ip/iptest"
	"tulle/subnet"
	"tulle/subnet/subnettest"
)

const soon = 5 * time.Second

const dualConfig = `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:5::/48","Backend":{"Type":"vxlan"}}`

// world is a store and some hosts on one segment, all in memory and in the clock of a bubble.
type world struct {
	dual  bool       // peers that are put into the store have both families
	keys  *rand.Rand // where most of these are asked whether packets arrive; nil: none is
	t     *testing.T
	store *subnettest.Store
	hosts []*node
}

// node is a host: a kernel, directories, and the agent that runs there, if one does.
type node struct {
	t      *testing.T
	name   string
	n      int
	kernel *iptest.Kernel
	store  subnet.Store
	dir    string
	change func(*Config)
	log    slog.Handler // nil: that of the test
	agent  *Agent
	passes atomic.Int32 // that agents have made here
	cancel func()       // begins to stop the agent
	stop   func()
}

// simulate runs fn in a bubble with n hosts and the configuration stored, if any.
func simulate(t *testing.T, config string, n int, fn func(*testing.T, *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, store: subnettest.NewStore()}
		if config != "" {
			w.store.Put("config", config, 0)
		}
		for i := 1; i <= n; i++ {
			h := &node{t: t, name: fmt.Sprintf("h%d", i), n: i, kernel: iptest.New(), store: w.store, dir: t.TempDir()}
			h.uplink(i)
			w.hosts = append(w.hosts, h)
		}
		fn(t, w)
		for _, h := range w.hosts {
			if h.stop != nil {
				h.stop()
			}
		}
	})
}

// uplink gives the host eth0 with the n-th address of the segment and a default route.
func (h *node) uplink(n int) {
	h.kernel.AddInterface(eth0(n))
	h.external(
		ip.Op{Verb: ip.Add, New: ip.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("172.30.0.254"), Link: "eth0"}},
		ip.Op{Verb: ip.Add, New: ip.Route{Dst: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("fd30::fe"), Link: "eth0"}},
	)
}

// eth0 is an interface with the n-th address of the segment.
func eth0(n int) ip.Interface {
	return ip.Interface{Name: "eth0", MTU: 1500, Up: true, Addrs: []ip.InterfaceAddr{
		{Prefix: netip.MustParsePrefix(fmt.Sprintf("172.30.0.%d/24", n))},
		{Prefix: netip.MustParsePrefix(fmt.Sprintf("fd30::%x/64", n))},
	}}
}

// move gives the host the n-th address of the segment instead of its own.
func (h *node) move(n int) { h.kernel.SetInterface(eth0(n)) }

// external does something to the host's kernel that is not the agent's doing.
func (h *node) external(ops ...ip.Op) {
	h.t.Helper()
	if err := h.kernel.External(ops); err != nil {
		h.t.Fatal(err)
	}
}

func (h *node) start() {
	h.t.Helper()
	log := slog.New(slog.NewTextHandler(h.t.Output(), nil)).With("host", h.name)
	if h.log != nil {
		log = slog.New(h.log)
	}
	cfg := Config{
		Kernel: h.kernel, Log: log, StateDir: filepath.Join(h.dir, "state"), RunDir: filepath.Join(h.dir, "run"),
		Host: fabric.Host{Node: h.name, Instance: "run-of-" + h.name, Hardware: []string{h.name}},
		Networks: []fabric.Config{{
			Store: h.store, Backends: backends.All(), SubnetFile: filepath.Join(h.dir, "subnet.env"),
			Keys:    fabric.Keys{Endpoints: []string{"memory"}, Config: "config", Leases: "subnets/"},
			Options: decision.Options{IPMasq: true, PeerFilter: true, SourceCheck: true},
		}},
	}
	cfg.Changed = func(st Status) {
		h.passes.Add(1)
		// A host is ready if and only if nothing that is wrong is an error.
		errs := slices.DeleteFunc(slices.Clone(st.Troubles.All), func(tr trouble.Trouble) bool { return tr.Severity != trouble.Error })
		if st.Ready != (len(errs) == 0) {
			h.t.Errorf("%s: ready %t (%s), with these errors: %+v", h.name, st.Ready, st.Reason, errs)
		}
	}
	if h.change != nil {
		h.change(&cfg)
	}
	a, err := New(cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(h.t.Context())
	done := make(chan error, 1)
	h.agent, h.cancel = a, cancel
	go func() { done <- a.Run(ctx) }()
	h.stop = func() {
		h.stop = nil
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("%s: run: %v", h.name, err)
		}
	}
}

func (w *world) start() {
	for _, h := range w.hosts {
		h.start()
	}
}

// within waits until ok holds on every host, and fails after d of the bubble's time.
func (w *world) within(d time.Duration, what string, ok func(*node) bool) {
	w.t.Helper()
	deadline := time.Now().Add(d)
	for {
		synctest.Wait()
		var waiting []string
		for _, h := range w.hosts {
			if !ok(h) {
				waiting = append(waiting, fmt.Sprintf("%s (%s)", h.name, h.agent.Status().Reason))
			}
		}
		if len(waiting) == 0 {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not after %v on %s", what, d, strings.Join(waiting, ", "))
		}
		<-time.After(50 * time.Millisecond)
	}
}

// converged: every host is ready, knows all others, and a pass over it would change nothing.
func (w *world) converged(d time.Duration) {
	w.t.Helper()
	w.within(d, "converged", func(h *node) bool {
		st := h.agent.Status()
		return st.Ready && len(st.Of("").Peers) == len(w.hosts)-1 && len(h.drift()) == 0
	})
}

// drift is what the host's kernel lacks of what its agent last wanted.
func (h *node) drift() ip.Plan {
	h.t.Helper()
	wanted := h.agent.Wanted
	if h.stop == nil {
		wanted = func(context.Context) (hostfiles.Wanted, error) {
			return hostfiles.ReadWanted(filepath.Join(h.dir, "run"))
		}
	}
	want, err := wanted(context.Background())
	if err != nil {
		return ip.Plan{{}}
	}
	snap, err := h.kernel.Snapshot(context.Background(), want.Scope)
	if err != nil {
		h.t.Fatal(err)
	}
	return ip.Diff(snap.Owned, want.State)
}

// owned is what Tulle has made on the host.
func (h *node) owned() ip.State {
	h.t.Helper()
	rec, err := hostfiles.ReadRecord(filepath.Join(h.dir, "state"))
	if err != nil {
		h.t.Fatal(err)
	}
	snap, err := h.kernel.Snapshot(context.Background(), rec.Scope())
	if err != nil {
		h.t.Fatal(err)
	}
	return snap.Owned
}

// texts are those of the host's troubles with some codes.
func (h *node) texts(codes ...trouble.Code) []string {
	return h.agent.Status().Troubles.Texts(codes...)
}

// leftOut is what the host passes over in the store.
func (h *node) leftOut() []trouble.Trouble {
	return h.agent.Status().Troubles.Of(trouble.KeyUnreadable, trouble.PeerRefused, trouble.ConfigWarning, trouble.StoreSuddenLoss)
}

func (h *node) link(name string) ip.Link {
	h.t.Helper()
	for _, l := range h.owned().Links {
		if l.Name == name {
			return l
		}
	}
	h.t.Fatalf("%s has no link %s", h.name, name)
	return ip.Link{}
}

// flannelLease is the value that a flanneld of the contract writes.
func flannelLease(public, mac string) string {
	data, _ := json.Marshal(map[string]any{
		"PublicIP": public, "PublicIPv6": nil, "BackendType": "vxlan",
		"BackendData": map[string]any{"VNI": 1, "VtepMAC": mac},
	})
	return string(data)
}

// prefixes lists those of both families.
func prefixes(s subnet.Subnets) []netip.Prefix {
	return slices.DeleteFunc([]netip.Prefix{s.V4, s.V6}, func(p netip.Prefix) bool { return !p.IsValid() })
}
