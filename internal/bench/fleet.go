//go:build linux

package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"tulle/internal/backoff"
	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/etcd"
)

// FleetConfig says what is measured.
type FleetConfig struct {
	Hosts int `json:"hosts"`
	// Rest is for how long nothing happens. Default 1 min, in which each host makes sure some times that etcd is there.
	Rest time.Duration `json:"-"`
	// Tulle is the path of the program that runs etcd.
	Tulle string `json:"-"`
	// Progress is told of each step. May be nil.
	Progress func(string) `json:"-"`
}

// MaxHosts is how many light hosts one process bears.
const MaxHosts = 10_000

// Check names the field that is wrong, and the remedy.
func (c FleetConfig) Check() error {
	if c.Hosts < 2 || c.Hosts > MaxHosts {
		return fmt.Errorf("--hosts is %d, must be 2 to %d", c.Hosts, MaxHosts)
	}
	return nil
}

// Fleet is what one run of the fleet benchmark found. Durations are in seconds, from the event to the host.
type Fleet struct {
	FleetConfig
	Leased  Stage `json:"leased"`  // all start at once: until each holds its lease
	Known   Stage `json:"known"`   // until each knows all others
	Steady  Stage `json:"steady"`  // nothing happens
	Change  Stage `json:"change"`  // one lease changes: until each has heard of it
	Restart Stage `json:"restart"` // etcd is restarted: until each has heard of a change made right after

	Failed int `json:"failed"` // hosts that did not get a lease
}

// Stage is what one stage took, and what it cost etcd.
type Stage struct {
	Figure
	Seconds  float64            `json:"seconds"`
	EtcdCPU  float64            `json:"etcdCPU"` // seconds of one core
	Requests map[string]float64 `json:"requests"`
	Sent     float64            `json:"sent"`     // bytes, by etcd
	Received float64            `json:"received"` // bytes, by etcd
}

// fleet is an etcd and its light hosts: the store as each daemon uses it, and no kernel.
type fleet struct {
	config FleetConfig
	etcd   *etcdProcess
	hosts  []*lightHost
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// RunFleet measures an etcd with many hosts.
func RunFleet(ctx context.Context, config FleetConfig) (out Fleet, err error) {
	if err := config.Check(); err != nil {
		return out, err
	}
	process, err := startEtcd(ctx, config.Tulle)
	if err != nil {
		return out, err
	}
	config.Rest = cmp.Or(config.Rest, time.Minute)
	// The hosts' garbage, which on hosts of their own would not slow etcd down, is not what is measured.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	f := &fleet{config: config, etcd: process}
	ctx, f.cancel = context.WithCancel(ctx)
	defer func() {
		f.cancel()
		f.wg.Wait()
		for _, h := range f.hosts {
			err = errors.Join(err, h.store.Close())
		}
		err = errors.Join(err, process.close())
	}()
	out.FleetConfig = config
	return out, f.run(ctx, &out)
}

func (f *fleet) run(ctx context.Context, out *Fleet) error {
	if err := f.etcd.put(ctx, "config", `{"Network":"10.0.0.0/8","Backend":{"Type":"vxlan"}}`); err != nil {
		return err
	}
	for n := range f.config.Hosts {
		h, err := f.newHost(n)
		if err != nil {
			return err
		}
		f.hosts = append(f.hosts, h)
	}
	for _, step := range []struct {
		name string
		run  func(context.Context, *Fleet) error
	}{{"boot", f.boot}, {"steady state", f.steady}, {"one change", f.change}, {"restart of etcd", f.restart}} {
		f.progress("%s", step.name)
		if err := step.run(ctx, out); err != nil {
			return fmt.Errorf("measure %s: %w", step.name, err)
		}
	}
	return nil
}

func (f *fleet) progress(format string, args ...any) {
	if f.config.Progress != nil {
		f.config.Progress(fmt.Sprintf(format, args...))
	}
}

// lightHost is a host as etcd sees it.
type lightHost struct {
	number int
	store  *etcd.Store

	mu    sync.Mutex
	held  subnet.Held
	set   subnet.Set
	heard chan struct{} // closed and made anew with each view
}

func (f *fleet) newHost(n int) (*lightHost, error) {
	store, err := etcd.Open(etcd.Config{Endpoints: []string{f.etcd.endpoint}, Prefix: fleetPrefix, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	return &lightHost{number: n, store: store, heard: make(chan struct{})}, nil
}

func (h *lightHost) claim() subnet.Claim {
	p := peer{number: h.number, backend: "vxlan", families: []ip.Family{ip.IPv4}}
	attrs := p.attrs(1)
	attrs.Node, attrs.Instance = fmt.Sprintf("host-%d", h.number), "bench"
	return subnet.Claim{Attrs: attrs}
}

// run watches and holds a lease, as the daemon does.
func (h *lightHost) run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { _ = h.store.Watch(ctx, h.takeIn) }) // it ends with ctx
	defer wg.Wait()
	retry := backoff.Backoff{First: 250 * time.Millisecond, Most: 15 * time.Second} // as the daemon has it
	for {
		held, err := h.store.Acquire(ctx, h.claim())
		if err == nil {
			h.mu.Lock()
			h.held = held
			h.poke()
			h.mu.Unlock()
			return nil
		}
		if err := retry.Wait(ctx); err != nil {
			return err
		}
	}
}

func (h *lightHost) takeIn(set subnet.Set) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.set = set
	h.poke()
}

// poke wakes whoever waits. The lock is held.
func (h *lightHost) poke() {
	close(h.heard)
	h.heard = make(chan struct{})
}

// await returns when ok holds, which is asked whenever something has changed.
func (h *lightHost) await(ctx context.Context, ok func(*lightHost) bool) error {
	for {
		h.mu.Lock()
		done, heard := ok(h), h.heard
		h.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-heard:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

const stageTime = 2 * time.Minute // in which a stage must be over

// all measures the time from now until ok holds on each host, and how many it did not.
func (f *fleet) all(ctx context.Context, ok func(*lightHost) bool) (figures Figure, failed int) {
	ctx, cancel := context.WithTimeout(ctx, stageTime)
	defer cancel()
	began := time.Now()
	took := make([]float64, len(f.hosts))
	var wg sync.WaitGroup
	for i, h := range f.hosts {
		wg.Go(func() {
			if err := h.await(ctx, ok); err != nil {
				took[i] = -1
				return
			}
			took[i] = time.Since(began).Seconds()
		})
	}
	wg.Wait()
	good := slices.DeleteFunc(took, func(s float64) bool { return s < 0 })
	return figure(good), len(f.hosts) - len(good)
}

func (h *lightHost) knows(public netip.Addr) bool {
	return slices.ContainsFunc(h.set.Leases, func(l *subnet.Lease) bool { return l.Attrs.Public.V4 == public })
}
