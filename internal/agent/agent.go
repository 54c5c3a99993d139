// Package agent keeps the kernel of one host equal to what the leases of all hosts call for.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tulle/backend"
	"tulle/internal/backoff"
	"tulle/internal/hostfiles"
	"tulle/ip"
	"tulle/subnet"
)

const (
	beatEvery  = 3 * time.Second
	stuckAfter = 30 * time.Second // a pass over ten thousand peers takes a second

	viewEvery = 25 * time.Millisecond
	viewBurst = 10

	// storePatience is how long a start waits for the store before it works from the view of an earlier run.
	storePatience = 3 * time.Second
)

// Config is what an Agent works with. Every field must be set unless it says otherwise.
type Config struct {
	Store    subnet.Store
	Kernel   ip.Kernel
	Backends map[string]backend.New
	Log      *slog.Logger

	Node        string          // node id
	NewNode     bool            // it was made at random for this start: nothing of an earlier one was found
	Instance    string          // of this machine since it booted
	Hardware    []string        // of this machine
	Uplink      ip.UplinkChoice // zero: the interface of the default route
	IPMasq      bool            // masquerade what leaves the network
	PeerFilter  bool            // drop tunnelled packets that come from no peer, or are not made by this host
	SourceCheck bool            // drop packets whose source is not of the subnet that they come from
	TTL         time.Duration   // of the lease, as in subnet.Claim
	Renumber    bool            // when the subnet is lost to another host, take a new one instead of waiting for it
	SubnetFile  string
	StateDir    string              // survives a reboot
	RunDir      string              // does not
	Endpoints   []string            // of the store: a view kept from others is not worked from
	ConfigKey   string              // of the network configuration in the store, for messages and to tell stores apart
	LeaseDir    string              // what precedes the text of a lease in its key, for messages
	Previous    subnet.Subnets      // held before, by a local record other than the agent's own; may be zero
	Etcd        func() []netip.Addr // where the store is reached; no lease may capture these; may be nil
	Resolvers   func() []netip.Addr // name servers; no lease may capture those on a network that this host is on; may be nil
	Trouble     func() error        // what keeps the store away, nil if nothing does; may be nil
	Calls       func() uint64       // system calls that the kernel has taken so far; may be nil
	Changed     func(Status)        // called after every pass; may be nil
	Beat        func()              // called every few seconds while the loop lives; may be nil
}

// Agent is the daemon's core: one loop that compares and applies, and one that keeps the lease.
type Agent struct {
	cfg    Config
	keeper *keeper
	inbox  inbox
	status published
	record *hostfiles.RecordFile
	wanted *hostfiles.WantedFile
	asked  chan chan<- hostfiles.Wanted // by others than the loop, for what is wanted now
	cache  *hostfiles.ViewFile
	opened bool            // past has been read from the cache, or need not be
	past   *hostfiles.View // nil: none, or the store has shown all that is needed

	holdback     subnet.Holdback // between the cached view and what the store shows first
	rewound      bool            // the store shows older data than the cached view, and that has not been taken in
	compareUntil time.Time       // what the cached view had and the store lacks stays in force

	network      *subnet.Network // the configuration in force: the first valid one
	backend      backend.Backend
	doubts       []string
	lease        subnet.Lease        // last held; stays in force when lost, so that local traffic goes on
	underlay     ip.Dual[netip.Addr] // addresses of the uplink in use
	applied      bool                // the kernel has been made right once
	resumed      bool                // from the cached view: lease and subnets are those of an earlier run
	journal      journal
	work         Work
	baseline     *baseline // nil: only a full pass will do
	lastBaseline *baseline // that a full pass began with
	verdicts     verdicts
	announced    advertised
	memory       subnet.Memory   // of the leases that views have shown
	refused      map[string]bool // settings that the kernel has not taken in this pass
	contests     contests
	drops        tally

	born time.Time    // the clock of beat: it does not jump
	beat atomic.Int64 // when the loop was last seen alive, as time.Duration since born
}

// New prepares an agent. It reads the record of an earlier run from the state directory.
func New(cfg Config) (*Agent, error) {
	record, err := hostfiles.OpenRecord(cfg.StateDir, cfg.Log)
	if err != nil {
		return nil, err
	}
	a := &Agent{
		cfg: cfg, inbox: inbox{wake: make(chan struct{}, 1)}, record: record,
		journal: journal{log: cfg.Log, throttle: logThrottle{}}, contests: contests{}, born: time.Now(),
	}
	a.wanted, a.asked = hostfiles.NewWantedFile(cfg.RunDir, a.inbox.poke), make(chan chan<- hostfiles.Wanted)
	unwritten := logThrottle{}
	a.cache = hostfiles.NewViewFile(cfg.StateDir, hostfiles.Origin{ConfigKey: cfg.ConfigKey, Endpoints: cfg.Endpoints}, func(err error) {
		if err != nil && unwritten.due("write", lasting) {
			cfg.Log.Warn("view not cached: this host could not start without the store", "err", err)
		}
	})
	a.lease = record.Record().Lease()
	a.underlay = a.lease.Attrs.Public
	a.keeper = newKeeper(cfg, a.lease.Subnets, a.inbox.hurry)
	a.status.set(Status{Node: cfg.Node, Reason: "starting"})
	return a, nil
}

// Run works until ctx ends. It leaves kernel, lease and files as they are, for the next run to find.
func (a *Agent) Run(ctx context.Context) error {
	g, working := errgroup.WithContext(ctx)
	defer time.AfterFunc(storePatience, func() {
		if set, ok := a.inbox.view(); !ok || set.Network == nil {
			a.inbox.poke()
		}
	}).Stop()
	for _, task := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"watch the store", a.watchStore},
		{"watch the kernel", a.watchKernel},
		{"keep the lease", a.keeper.run},
		{"write the cached view", a.cache.Run},
		{"write the wanted state", a.wanted.Run},
		{"reconcile", a.loop},
	} {
		g.Go(func() error {
			if err := task.run(working); err != nil {
				return fmt.Errorf("%s: %w", task.name, err)
			}
			return nil
		})
	}
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

// watchStore takes in views: a few at once, and then those of a churning network at intervals, since each costs a walk over
// all leases.
func (a *Agent) watchStore(ctx context.Context) error {
	pace := backoff.Pace{Every: viewEvery, Burst: viewBurst}
	views := grace{handOn: a.inbox.put}
	defer views.stop()
	return a.cfg.Store.Watch(ctx, func(set subnet.Set) {
		views.put(set)
		pace.Wait(ctx)
	})
}

// watchKernel turns kernel events into wake-ups. A watch that breaks is begun again, after a full pass.
func (a *Agent) watchKernel(ctx context.Context) error {
	broken := logThrottle{}
	retry := backoff.Backoff{First: retryFirst, Most: retryMost}
	for {
		started := time.Now()
		err := a.cfg.Kernel.Watch(ctx, a.inbox.kernelChanged)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && broken.due(err.Error(), lasting) {
			a.cfg.Log.Warn("kernel watch broke", "err", err)
		}
		a.inbox.poke()
		if time.Since(started) > retryMost {
			retry.Reset()
		}
		if err := retry.Wait(ctx); err != nil {
			return err
		}
	}
}

// loop runs a pass whenever one is due.
func (a *Agent) loop(ctx context.Context) error {
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	next := newSchedule()
	defer next.stop()
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
			if st := a.status.get(); st.Lease != nil && st.Lease.Held != a.keeper.holds() {
				a.inbox.poke()
			}
		case <-a.inbox.wake:
			switch {
			case a.inbox.urgent():
				next.by(time.Now())
			case a.baseline != nil && a.inbox.onlyLeases():
				next.leases()
			default:
				next.wake()
			}
		case <-next.timer.C:
			started := time.Now()
			if next.isIncremental() {
				if a.incrementalPass(ctx) {
					next.passedIncremental(started)
				} else {
					next.tooMany()
				}
				continue
			}
			status, changed := a.pass(ctx)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			a.publish(status)
			next.passed(started, status.Ready, changed)
			if end, ok := a.contests.end(); ok {
				next.by(end)
			}
			if time.Now().Before(a.compareUntil) {
				next.by(a.compareUntil)
			}
		}
	}
}

// flush writes what the last pass handed over: the tasks that write files may have ended before it did.
func (a *Agent) flush() {
	a.wanted.Flush()
	a.cache.Flush()
}
