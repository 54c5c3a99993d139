package sim

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"tulle/internal/agent"
	"tulle/internal/backends"
	"tulle/internal/decision"
	"tulle/internal/fabric"
	"tulle/ip"
	"tulle/ip/iptest"
	"tulle/subnet"
	"tulle/subnet/subnettest"
)

// host is a machine: a kernel and directories, and the agent that runs there, if one does.
type host struct {
	fleet      *fleet
	name       string
	node       string // id; two hosts have one if one is a clone of the other
	addr       int    // which address of the segment it has
	boots      int
	kernel     *iptest.Kernel
	dir        string
	proc       *process // nil: none runs
	connection subnettest.Connection
	latency    func() time.Duration // of its requests; nil: none
	died       atomic.Bool          // the process killed itself
	stop       bool                 // the process is stopped

	applied atomic.Int32 // plans

	// For the oracle. The fleet's lock guards these, proc and stop.
	holds    bool           // what it said last
	subnets  subnet.Subnets // in force in this run; zero: none yet
	earlier  subnet.Subnets // in force in the run before, by the state directory
	leased   subnet.Subnets // to its node when this run began
	began    time.Time      // this run
	blank    bool           // without a record of an earlier one
	okSince  time.Time      // reaches the store; zero: it does not
	lastLoss int            // the last loss of data of which it must have heard
}

// running is what the fleet asks an agent.
type running interface {
	Run(ctx context.Context) error
	Status() agent.Status
}

func (h *host) boot() {
	h.boots++
	h.kernel = iptest.New()
	h.kernel.AddInterface(eth0(h.addr))
	h.kernel.AddInterface(ip.Interface{Name: "ext0", MTU: 1500, Up: true, Addrs: []ip.InterfaceAddr{{Prefix: netip.MustParsePrefix("192.0.2.1/24")}}})
	h.defaults()
	_ = h.kernel.External(foreign())
}

// foreign is what others have in the kernel, within the networks and without.
func foreign() ip.Plan {
	return ip.Plan{
		// Behind Tulle's, for before them it would be route.shadowed.
		{Verb: ip.Add, New: ip.Route{Dst: netip.MustParsePrefix("10.5.1.0/24"), Via: netip.MustParseAddr("192.0.2.7"), Link: "ext0", Metric: 1 << 31, Protocol: 4}},
		{Verb: ip.Add, New: ip.Route{Dst: netip.MustParsePrefix("10.77.0.0/16"), Via: netip.MustParseAddr("192.0.2.7"), Link: "ext0", Metric: 9, Protocol: 4}},
	}
}

// eth0 is an interface with the n-th address of the segment.
func eth0(n int) ip.Interface {
	return ip.Interface{Name: "eth0", MTU: 1500, Up: true, Addrs: []ip.InterfaceAddr{
		{Prefix: netip.MustParsePrefix(fmt.Sprintf("172.30.0.%d/24", n))},
		{Prefix: netip.MustParsePrefix(fmt.Sprintf("fd30::%x/64", n))},
	}}
}

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

// start starts the daemon, if it is not running.
func (h *host) start() {
	if h.proc != nil {
		return
	}
	f := h.fleet
	p := &process{door: &door{Kernel: h.kernel, host: h, store: f.store.Another(), fuse: -1}, done: make(chan error, 1)}
	p.store.SetConnection(h.connection)
	log := slog.New(slog.DiscardHandler)
	if f.verbose {
		log = slog.New(slog.NewTextHandler(f.t.Output(), nil)).With("host", h.name)
	}
	instance := fmt.Sprintf("%s-boot-%d", h.name, h.boots)
	a, err := agent.New(agent.Config{
		Kernel: p.door, Log: log, StateDir: h.path("state"), RunDir: h.path("run"),
		Host: fabric.Host{Node: h.node, Instance: instance, Hardware: []string{h.name}},
		Networks: []fabric.Config{{
			Store: watched{p.store, p.door}, Backends: backends.All(), SubnetFile: h.path("run/subnet.env"),
			Keys:    fabric.Keys{Endpoints: []string{"memory"}, Config: "config", Leases: "subnets/"},
			Options: decision.Options{IPMasq: true, PeerFilter: !f.plan.open, SourceCheck: !f.plan.open},
			Lease:   fabric.LeaseOptions{TTL: f.plan.ttl},
		}},
		Changed: func(st agent.Status) { f.changed(h, p, st) },
	})
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.run, p.cancel = a, cancel
	f.begins(h, p)
	go func() { p.done <- a.Run(ctx) }()
}

// crash ends the daemon between two steps of it.
func (h *host) crash() {
	p := h.proc
	if p == nil {
		return
	}
	p.kill()
	connection := h.connection
	connection.Stopped = true // from now on it does nothing to the store
	p.store.SetConnection(connection)
	p.cancel()
	if err := p.store.Close(); err != nil {
		h.fleet.t.Error(err)
	}
	if err := <-p.done; err != nil {
		h.fleet.fail("%s: run ended: %v", h.name, err)
	}
	h.fleet.ends(h)
	h.died.Store(false)
	h.setStopped(false)
}

// forget deletes what the host keeps on disk.
func (h *host) forget(dir string) {
	if err := os.RemoveAll(h.path(dir)); err != nil {
		h.fleet.t.Error(err)
	}
}

// reboot crashes the machine: kernel and run directory are gone. The daemon is not started.
func (h *host) reboot() {
	h.crash()
	h.forget("run")
	h.boot()
}

// forwards fails unless the host has its data plane up from what it kept, if it was up and kept anything.
func (h *host) forwards() {
	f := h.fleet
	f.mu.Lock()
	kept := h.earlier != (subnet.Subnets{}) && !f.reformed && !f.cloned[h.node] && time.Since(h.began) > 9*time.Second
	for _, l := range f.truth.Leases { // somebody may have taken its subnet
		kept = kept && (l.Attrs.Node == h.node || l.Subnets.V4.Bits() < h.earlier.V4.Bits() || len(subnet.Overlap(l.Subnets, h.earlier)) == 0)
	}
	f.mu.Unlock()
	st, runs := h.status()
	if kept && runs && h.connection.Cut && (st.Of("").Lease == nil || len(h.owned().Routes) == 0) {
		f.fail("%s was up before, and is not 10 s after a start without the store: %s", h.name, st.Reason)
	}
}

// setConnection changes how the host reaches the store.
func (h *host) setConnection(change func(*subnettest.Connection)) {
	change(&h.connection)
	h.fleet.reachability(h)
	if h.proc != nil {
		h.proc.store.SetConnection(h.connection)
	}
}

// setStopped stops the process, or lets it go on.
func (h *host) setStopped(stopped bool) {
	h.fleet.mu.Lock()
	h.stop = stopped
	h.fleet.mu.Unlock()
	if h.proc != nil {
		h.proc.halt(stopped)
	}
	h.setConnection(func(w *subnettest.Connection) { w.Stopped = stopped })
}

// status is what the host's daemon says; false if none runs or it is stopped.
func (h *host) status() (agent.Status, bool) {
	h.fleet.mu.Lock()
	p, stopped := h.proc, h.stop
	h.fleet.mu.Unlock()
	if p == nil || stopped || h.died.Load() {
		return agent.Status{}, false
	}
	return p.run.Status(), true
}
