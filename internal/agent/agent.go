// Package agent is the loop of a host: it reads the kernel, asks each fabric what it wants there, and applies the difference.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tulle/internal/backoff"
	"tulle/internal/fabric"
	"tulle/internal/hostfiles"
	"tulle/internal/logthrottle"
	"tulle/ip"
)

const (
	beatEvery  = 3 * time.Second
	stuckAfter = 30 * time.Second // a pass over ten thousand peers takes a second
)

// Config is what an Agent works with. Every field must be set unless it says otherwise.
type Config struct {
	Kernel   ip.Kernel
	Log      *slog.Logger
	Host     fabric.Host
	Version  string          // of the daemon, for the status
	NewNode  bool            // its node id was made at random for this start: nothing of an earlier one was found
	Uplink   ip.UplinkChoice // zero: the interface of the default route
	StateDir string          // survives a reboot
	RunDir   string          // does not
	Networks []fabric.Config // of which Host, Uplink, Log and StateDir are set by New; they differ in their names

	FastPath         func() OpenedFastPath // called once, before the first pass and while the store is asked; nil: there is none
	FastPathRequired bool                  // without one something is wrong

	Prober func(changed func()) Prober // called once, with what it is to call when a verdict changes; nil: hosts do not ask each other

	CPU     func() time.Duration // processor time that the process has used so far; nil: passes take none
	Calls   func() uint64        // system calls that the kernel has taken so far; may be nil
	Changed func(Status)         // called after every pass; may be nil
	Beat    func()               // called every few seconds while the loop lives; may be nil
}

// Agent is the daemon's core: one loop that compares and applies, over the networks of the host.
type Agent struct {
	cfg     Config
	fabrics []*fabric.Fabric
	former  []ip.Part // what networks that the host has no more have left
	inbox   inbox
	status  published
	wanted  *hostfiles.WantedFile
	asked   chan chan<- hostfiles.Wanted // by others than the loop, for what is wanted now

	refused  map[string]bool // settings that the kernel has not taken in this pass
	journal  journal
	work     Work
	contests contests
	drops    tally
	fast     *fastPath
	probes   *probes

	born time.Time    // the clock of beat: it does not jump
	beat atomic.Int64 // when the loop was last seen alive, as time.Duration since born
}

// New prepares an agent. It reads the records of an earlier run from the state directory.
func New(cfg Config) (*Agent, error) {
	a := &Agent{
		cfg: cfg, inbox: inbox{wake: make(chan struct{}, 1)},
		journal: journal{log: cfg.Log, throttle: logthrottle.Throttle{}}, contests: contests{}, drops: tally{}, fast: newFastPath(cfg), probes: newProbes(cfg), born: time.Now(),
	}
	first := Status{Node: cfg.Host.Node, Version: cfg.Version, Reason: "starting"}
	var names []string
	for _, network := range cfg.Networks {
		if err := hostfiles.CheckNetworkName(network.Name); err != nil {
			return nil, err
		}
		if slices.Contains(names, network.Name) {
			return nil, fmt.Errorf("there are two networks with the name %q: give one of them another", network.Name)
		}
		network.Host, network.Uplink, network.Log, network.StateDir = cfg.Host, cfg.Uplink, named(cfg.Log, network.Name), hostfiles.NetworkDir(cfg.StateDir, network.Name)
		if cfg.Prober == nil {
			network.Probe = fabric.Config{}.Probe
		}
		f, err := fabric.New(network, &a.inbox)
		if err != nil {
			return nil, err
		}
		a.fabrics, names = append(a.fabrics, f), append(names, network.Name)
		first.Networks = append(first.Networks, fabric.Status{Name: network.Name, Reason: first.Reason})
	}
	a.findFormer(names)
	a.wanted, a.asked = hostfiles.NewWantedFile(cfg.RunDir, a.inbox.Wake), make(chan chan<- hostfiles.Wanted)
	a.status.set(first)
	return a, nil
}

// named is a log of a network; the only one has no name.
func named(log *slog.Logger, network string) *slog.Logger {
	if network == "" {
		return log
	}
	return log.With("network", network)
}

// findFormer reads what networks which the host has no more have left. What cannot be read stays, and keeps no other network from starting.
func (a *Agent) findFormer(present []string) {
	networks, err := hostfiles.Recorded(a.cfg.StateDir)
	if err != nil {
		a.cfg.Log.Warn("what former networks left on this host is not tidied up", "err", err)
	}
	for _, name := range networks {
		if slices.Contains(present, name) {
			continue
		}
		r, err := hostfiles.ReadRecord(hostfiles.NetworkDir(a.cfg.StateDir, name))
		if err != nil {
			named(a.cfg.Log, name).Warn("what a former network left on this host is not tidied up", "err", err)
			continue
		}
		a.former = append(a.former, ip.Part{Net: name, Scope: r.Scope()})
	}
}

// Run works until ctx ends. It leaves kernel, leases and files as they are, for the next run to find.
func (a *Agent) Run(ctx context.Context) error {
	g, working := errgroup.WithContext(ctx)
	run := func(name string, task func(context.Context) error) {
		g.Go(func() error {
			if err := task(working); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	for _, f := range a.fabrics {
		g.Go(func() error { return f.Run(working) })
	}
	run("watch the kernel", a.watchKernel)
	run("write the wanted state", a.wanted.Run)
	run("keep the fast path", a.fast.run)
	run("ask other hosts", func(ctx context.Context) error { return a.probes.run(ctx, &a.inbox) })
	run("tell others what is wrong with them", a.complain)
	run("reconcile", a.loop)
	if err := g.Wait(); ctx.Err() == nil {
		return err
	}
	return nil
}

// Wanted returns what the kernel is wanted to look like now. It waits for a pass to end.
func (a *Agent) Wanted(ctx context.Context) (hostfiles.Wanted, error) {
	answer := make(chan hostfiles.Wanted, 1)
	select {
	case a.asked <- answer:
		w := <-answer
		if len(w.Scope.Networks) == 0 {
			return w, errors.New("no pass has come so far as to want anything")
		}
		return w, nil
	case <-ctx.Done():
		return hostfiles.Wanted{}, fmt.Errorf("ask for what is wanted: %w", context.Cause(ctx))
	}
}

// Alive returns nil while the loop runs.
func (a *Agent) Alive() error {
	if quiet := time.Since(a.born) - time.Duration(a.beat.Load()); quiet > stuckAfter {
		return fmt.Errorf("the reconcile loop has been stuck for %v", quiet.Round(time.Second))
	}
	return nil
}

func (a *Agent) alive() {
	a.beat.Store(int64(time.Since(a.born)))
	if a.cfg.Beat != nil {
		a.cfg.Beat()
	}
}

func (a *Agent) cpu() time.Duration {
	if a.cfg.CPU == nil {
		return 0
	}
	return a.cfg.CPU()
}

// watchKernel turns kernel events into wake-ups. A watch that breaks is begun again, after a full pass.
func (a *Agent) watchKernel(ctx context.Context) error {
	broken := logthrottle.Throttle{}
	retry := backoff.Backoff{First: fabric.RetryFirst, Most: fabric.RetryMost}
	for {
		started := time.Now()
		err := a.cfg.Kernel.Watch(ctx, a.inbox.kernelChanged)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && broken.Due(err.Error(), logthrottle.Lasting) {
			a.cfg.Log.Warn("kernel watch broke", "err", err)
		}
		a.inbox.Wake()
		if time.Since(started) > fabric.RetryMost {
			retry.Reset()
		}
		if err := retry.Wait(ctx); err != nil {
			return err
		}
	}
}

// loop runs a pass whenever one is due.
func (a *Agent) loop(ctx context.Context) error {
	a.openFastPath()
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	next := newSchedule()
	defer next.stop()
	check := checkTimer{timer: time.NewTimer(0)}
	defer check.timer.Stop()
	defer a.flush()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case answer := <-a.asked:
			answer <- a.wanted.Now()
		case <-beat.C:
			a.alive()
			a.wanted.Update()
			if a.leasesTurned() {
				a.inbox.Wake()
			}
		case <-a.inbox.wake:
			switch {
			case a.inbox.urgent():
				next.by(time.Now())
			case a.hasBaselines() && a.inbox.onlyLeases():
				next.leases()
			default:
				next.wake()
			}
		case <-check.timer.C:
			a.check(ctx, &check)
		case <-next.timer.C:
			started, used := time.Now(), a.cpu()
			if next.isIncremental() {
				if a.incrementalPass(ctx) {
					next.passedIncremental(a.cpu() - used)
				} else {
					next.tooMany()
				}
				a.checkAgain(&check)
				continue
			}
			status, changed := a.pass(ctx)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			a.publish(status)
			a.handOn()
			next.passed(started, a.cpu()-used, status.Ready, changed)
			a.checkAgain(&check)
			if end, ok := a.contests.end(); ok {
				next.by(end)
			}
			for _, f := range a.fabrics {
				if until := f.Comparing(); time.Now().Before(until) {
					next.by(until)
				}
			}
		}
	}
}

// checkTimer tells when there is more to ask about the packets to peers.
type checkTimer struct {
	timer *time.Timer
	due   time.Time // zero: there is nothing to ask
}

// check asks where more of the packets to peers go. What is new is for a full pass to tell.
func (a *Agent) check(ctx context.Context, next *checkTimer) {
	for _, f := range a.fabrics {
		if f.Check(ctx, a.cfg.Kernel) {
			a.inbox.Wake()
		}
	}
	next.due = time.Time{}
	a.checkAgain(next)
}

// checkAgain sets the timer to when there is more to ask. It does not put off what is due: passes may follow each other for long.
func (a *Agent) checkAgain(next *checkTimer) {
	next.timer.Stop()
	var soonest time.Duration
	for _, f := range a.fabrics {
		if in := f.CheckIn(); in > 0 && (soonest == 0 || in < soonest) {
			soonest = in
		}
	}
	if soonest == 0 {
		next.due = time.Time{}
		return
	}
	if at := time.Now().Add(soonest); next.due.IsZero() || at.Before(next.due) {
		next.due = at
	}
	next.timer.Reset(time.Until(next.due))
}

// leasesTurned reports whether a lease is held that the last pass did not see as held, or the other way round.
func (a *Agent) leasesTurned() bool {
	st := a.status.get()
	for i, f := range a.fabrics {
		if lease := st.Networks[i].Lease; lease != nil && lease.Held != f.Holds() {
			return true
		}
	}
	return false
}

// flush writes what the last pass handed over: the tasks that write files may have ended before it did.
func (a *Agent) flush() {
	a.wanted.Flush()
	for _, f := range a.fabrics {
		f.Flush()
	}
}
