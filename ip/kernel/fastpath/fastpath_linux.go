package fastpath

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"tulle/internal/logthrottle"
	"tulle/internal/netns"
	"tulle/ip"
	"tulle/ip/kernel/xtables"
)

const (
	defaultLife = time.Second
	lookEvery   = 1500 * time.Millisecond // finds what no notification tells
	searchEvery = 20                      // looks until a full one, which also counts flows and looks at pins
	readShare   = 50                      // peers for which all are read back one look later, but no sooner than that
	lookPause   = 250 * time.Millisecond  // changes meanwhile make one look together
)

// Config is what a FastPath works with.
type Config struct {
	Dir  string        // on a bpffs, for pins, which lie below it by network namespace; empty: nothing is pinned, and all ends with the process
	Life time.Duration // of an admission; zero: a second; negative: none is ever used
	Log  *slog.Logger
}

// FastPath keeps the fast path of one network namespace as wanted. Its methods may be called concurrently.
type FastPath struct {
	cfg      Config
	ns       *netns.Namespace
	dir      string // of pins; empty: there are none
	objects  *programsObjects
	programs map[string]program
	hooks    hooks
	unkept   string        // why nothing is pinned
	wake     chan struct{} // holds a value while what is wanted may have changed
	arrivals chan struct{} // holds a value while containers may have come or gone

	searchEvery int // looks until a full one

	// Of the loop alone.
	attached map[hook]attachment
	undone   error // why not all hangs where it should, when that was last compared
	looks    int   // ticks so far
	readAt   int   // at which all peers were read back
	peers    peerTable
	others   map[int]string // what other programs have on links, by index, as far as was looked
	ports    map[int]bool   // of containers, by index of the link: whether it has it, or is to have it at the next look
	churn    churn
	notes    []string // where it is not, and why
	links    map[string]linkFacts
	named    []string // links to namedFor; nil: not looked for yet
	namedFor ip.FastPeers
	failures logthrottle.Throttle

	relevant atomic.Pointer[map[int]bool] // links, by index, on which flows depend; nil: all

	mu     sync.Mutex // of what follows
	want   ip.FastPath
	set    programsSetting // but for the life of admissions
	stale  bool            // what hangs where is to be looked at anew
	until  time.Time
	now    uint32 // the epoch
	raised map[string]uint64
	state  ip.FastPathState
}

// Open loads the programs, and finds out by that whether this kernel can have them; the error says what it lacks. It is for the network namespace of the calling
// thread. Programs of an earlier run go on until Run replaces them, each at once.
func Open(cfg Config) (*FastPath, error) { return open(cfg, loadPrograms, chooseHooks) }

func open(cfg Config, load loader, choose func(dir string) hooks) (_ *FastPath, err error) {
	f := &FastPath{
		cfg: cfg, wake: make(chan struct{}, 1), arrivals: make(chan struct{}, 1), attached: map[hook]attachment{}, stale: true, searchEvery: searchEvery, failures: logthrottle.Throttle{}, raised: map[string]uint64{},
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if f.ns, err = netns.Current(); err != nil {
		return nil, fmt.Errorf("open fast path: %w", err)
	}
	if f.dir, err = pinDir(cfg.Dir, f.ns); err != nil {
		f.unkept = err.Error()
	}
	if err := checkKernel(); err != nil {
		return nil, fmt.Errorf("open fast path: %w", err)
	}
	if f.objects, err = loadObjects(load, f.dir); err != nil {
		return nil, fmt.Errorf("open fast path: %w", err)
	}
	if f.programs, err = f.objects.loaded(); err != nil {
		return nil, fmt.Errorf("open fast path: %w", err)
	}
	f.hooks = choose(f.dir)
	if err := f.objects.Epoch.Lookup(uint32(0), &f.now); err != nil {
		return nil, fmt.Errorf("open fast path: read epoch: %w", err)
	}
	if err := f.peers.open(&f.objects.programsMaps); err != nil {
		return nil, fmt.Errorf("open fast path: %w", err)
	}
	f.state = ip.FastPathState{On: true, Hook: f.hooks.name(), Unkept: f.unkept, Room: flowRoom}
	if err := f.objects.Settings.Lookup(uint32(0), &f.set); err != nil {
		return nil, fmt.Errorf("open fast path: read settings: %w", err)
	}
	if f.set.Salt == 0 { // else what an earlier run has admitted stays so
		f.set.Salt = rand.Uint32() | 1
	}
	return f, nil
}

// Close gives back what the process holds. What is pinned goes on.
func (f *FastPath) Close() error {
	var errs []error
	for _, a := range f.attached {
		errs = append(errs, a.Close())
	}
	if f.objects != nil {
		errs = append(errs, f.objects.Close())
	}
	if f.ns != nil {
		errs = append(errs, f.ns.Close())
	}
	return errors.Join(errs...)
}

// Want says what the fast path is to be like from now on.
func (f *FastPath) Want(w ip.FastPath) {
	f.mu.Lock()
	changed := !f.want.Equal(w)
	f.stale = f.stale || !slices.Equal(f.want.Bridges, w.Bridges) || !slices.Equal(f.want.Uplinks, w.Uplinks)
	f.want = w
	f.mu.Unlock()
	if changed {
		signal(f.wake)
	}
}

// signal has a channel hold a value.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Flush ends all admissions: the next packet of each flow goes through the stack.
func (f *FastPath) Flush() error { return f.raise("flush") }

// Pause keeps all packets on the plain path for a while; zero ends that.
func (f *FastPath) Pause(d time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.until = time.Now().Add(d)
	_, err := f.writeSettings()
	return err
}

// writeSettings has the programs work by f.set, for as long as there is no pause, and reports whether they did not. f.mu is held.
func (f *FastPath) writeSettings() (changed bool, err error) {
	set := f.set
	set.Life = uint64(max(cmp.Or(f.cfg.Life, defaultLife), 0))
	if time.Now().Before(f.until) {
		set.Life = 0
	}
	var have programsSetting
	if err := f.objects.Settings.Lookup(uint32(0), &have); err != nil {
		return false, fmt.Errorf("read settings: %w", err)
	}
	if have == set {
		return false, nil
	}
	if err := f.objects.Settings.Put(uint32(0), set); err != nil {
		return false, fmt.Errorf("write settings: %w", err)
	}
	return true, nil
}

// raise begins another epoch, for a cause.
func (f *FastPath) raise(cause string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now++
	f.raised[cause]++
	if err := f.objects.Epoch.Put(uint32(0), f.now); err != nil {
		return fmt.Errorf("end admissions: %w", err)
	}
	return nil
}

// Run keeps programs, peers and settings as wanted until ctx ends, and returns its error. What it cannot make so is in the state.
func (f *FastPath) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.loop(ctx) })
	g.Go(func() error { return f.watch(ctx) })
	g.Go(func() error {
		// A system without iptables-legacy has no lock to watch, and no such rules.
		_ = xtables.Watch(ctx, func() { f.note(f.raise("iptables")) })
		<-ctx.Done()
		return ctx.Err()
	})
	return g.Wait()
}

// note logs an error that something else will tell about again.
func (f *FastPath) note(err error) {
	if err != nil {
		f.cfg.Log.Warn("fast path failed", "err", err)
	}
}

func (f *FastPath) loop(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	arrivals, rested := f.arrivals, true // nothing has come or gone in the pause before
	var paused <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			f.looks++
			f.look(false, f.looks%f.searchEvery == 0)
			continue
		case <-paused:
			arrivals, paused = f.arrivals, nil
			rested = len(arrivals) == 0
			continue
		case <-arrivals: // however often, all is read back no sooner
			if rested {
				f.churn.begin()
			}
			f.look(true, false)
			arrivals, paused = nil, time.After(f.churn.pause())
			continue
		case <-f.wake:
			f.look(false, false)
		}
		select { // let a burst of changes become one look
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookPause):
		}
	}
}

// look compares once, and makes what differs as wanted; what hangs where only if that may be another, or arrivals say so.
func (f *FastPath) look(arrivals, thorough bool) {
	f.mu.Lock()
	want, stale := f.want, f.stale || arrivals
	f.stale = false
	f.mu.Unlock()

	if len(want.Uplinks) == 0 { // before the first pass all stays as it is
		return
	}
	f.conclude(f.ns.Do(func() error {
		// Modules are not asked for each second.
		again := f.undone != nil && !errors.Is(f.undone, errNoFilters)
		stale = stale || thorough || again || !f.intact()
		if stale {
			f.links = nil
		}
		read := f.looks-f.readAt >= max(searchEvery, want.Peers.Len()/readShare)
		if read {
			f.readAt = f.looks
		}
		errs := []error{f.sync(want, read)}
		if stale {
			errs = append(errs, f.keepPins())
			f.undone = f.attach(want)
		}
		if thorough {
			errs = append(errs, f.countFlows())
			if f.dir != "" {
				sweep(f.cfg.Dir)
			}
		}
		return errors.Join(append(errs, f.undone)...)
	}))
}

// sync makes maps as wanted; it reads all of them back, or a few.
func (f *FastPath) sync(want ip.FastPath, read bool) error {
	links, err := f.linksOf(want)
	if err != nil {
		return err
	}
	excluded, err := f.peers.sync(want, links, read)
	if err != nil {
		return err
	}
	set := settingsOf(want, f.set.Salt)
	if set.Tcp = 1; conntrackIsStrict() {
		set.Tcp = 0
	}
	var epoch uint32
	if err := f.objects.Epoch.Lookup(uint32(0), &epoch); err != nil {
		return fmt.Errorf("read epoch: %w", err)
	}
	f.mu.Lock()
	f.set = set
	changed, err := f.writeSettings()
	changed = changed || excluded || epoch != f.now
	f.mu.Unlock()
	if err == nil && changed {
		err = f.raise("settings")
	}
	return err
}

func (f *FastPath) conclude(err error) {
	partly := f.notes
	if f.set.Tcp == 0 && f.set.SubnetCount > 0 {
		partly = append(slices.Clip(partly), "TCP stays on the plain path: net.netfilter.nf_conntrack_tcp_be_liberal is 0")
	}
	if n := f.peers.short; n > 0 {
		partly = append(slices.Clip(partly), fmt.Sprintf("%d subnets of peers stay on the plain path: there is room for %d", n, peerRoom))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state.On, f.state.Reason, f.state.Partly, f.state.Ports, f.state.Failed = true, "", strings.Join(partly, "; "), f.fastPorts(), ""
	if errors.Is(err, errNoFilters) && len(f.attached) == 0 { // until somebody loads them
		f.state.On, f.state.Reason, f.state.Partly, f.state.Ports = false, errNoFilters.Error(), "", 0
		return
	}
	if err != nil {
		f.state.Failed = err.Error()
		if f.failures.Due("", logthrottle.Lasting) { // whatever it is: it may name a container that is gone by the next look
			f.cfg.Log.Warn("fast path is not as wanted", "err", err)
		}
	}
}
