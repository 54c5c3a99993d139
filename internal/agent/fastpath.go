package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"tulle/internal/trouble"
	"tulle/ip"
)

// FastPath is the way that packets take which skip the bridge, the IP stack and netfilter. It works beside the passes and keeps no host from being
// ready.
type FastPath interface {
	// Want says what is wanted of it from now on. The value stays as it is.
	Want(ip.FastPath)
	// Run keeps it as wanted until ctx ends.
	Run(ctx context.Context) error
	State() ip.FastPathState
}

const (
	fastPathEvery = 5 * time.Second // its counters are read
	fastPathOver  = 10 * time.Second
)

// OpenedFastPath is the host's fast path, if it has one.
type OpenedFastPath struct {
	FastPath        // nil: there is none
	Off      string // why there is none; empty: it has no place in the status
}

// FastPathStatus is how the fast path stands.
type FastPathStatus struct {
	ip.FastPathState
	Recent FastPathShare `json:"recent"`
}

// FastPathShare is how much of the traffic between containers of different hosts went fast, in both directions.
type FastPathShare struct {
	FastBytes uint64        `json:"fastBytes"`
	Bytes     uint64        `json:"bytes"` // fast and slow
	Over      time.Duration `json:"over"`  // nanoseconds; less than ten seconds after a start
}

// fastPath is the host's fast path as its agent sees it.
type fastPath struct {
	opened         chan struct{} // closed once it is known whether there is one
	OpenedFastPath               // not written to after that
	required       bool          // the operator wants it on
	log            *slog.Logger

	given []*ip.FastPath // what was handed on of each network; the loop's alone

	mu      sync.Mutex
	decided bool      // something was handed on
	ended   error     // why it is no longer kept as wanted
	samples []traffic // one every five seconds, the newest last
}

// traffic is what the counters said at a time.
type traffic struct {
	at         time.Time
	fast, slow uint64 // bytes
}

func newFastPath(cfg Config) *fastPath {
	return &fastPath{opened: make(chan struct{}), required: cfg.FastPathRequired, log: cfg.Log, given: make([]*ip.FastPath, len(cfg.Networks))}
}

// use has it be what was opened.
func (f *fastPath) use(opened OpenedFastPath) {
	f.OpenedFastPath = opened
	close(f.opened)
}

// openFastPath opens the host's fast path, which takes the kernel's verifier some time. The passes need to know whether there is one.
func (a *Agent) openFastPath() {
	var opened OpenedFastPath
	if a.cfg.FastPath != nil {
		opened = a.cfg.FastPath()
	}
	for _, f := range a.fabrics {
		f.UseFastPath(opened.FastPath != nil)
	}
	a.fast.use(opened)
}

// offer hands on what the networks want of it, if that is not what they wanted before. A network that has had no say does not count; one that has none now
// wants what it wanted.
func (f *fastPath) offer(of func(network int) *ip.FastPath) {
	if f.FastPath == nil {
		return
	}
	changed := false
	for i, before := range f.given {
		f.given[i] = of(i)
		changed = changed || f.given[i] != before
	}
	if !changed {
		return
	}
	f.Want(f.sum())
	f.mu.Lock()
	defer f.mu.Unlock()
	f.decided = true
}

// sum is what the networks want together.
func (f *fastPath) sum() ip.FastPath {
	var all *ip.FastPath
	for _, one := range f.given {
		switch {
		case one == nil:
		case all == nil:
			all = one // of one network it is what that wants, and need not be copied
		default:
			both := all.Plus(*one)
			all = &both
		}
	}
	return *all
}

func (a *Agent) offerFastPath() {
	a.fast.offer(func(network int) *ip.FastPath { return a.fabrics[network].FastPath() })
}

// run keeps the fast path as wanted, and reads its counters.
func (f *fastPath) run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-f.opened:
	}
	if f.FastPath == nil {
		return nil
	}
	counting, stop := context.WithCancel(ctx)
	var counted sync.WaitGroup
	counted.Go(func() { f.count(counting) })
	defer counted.Wait()
	defer stop()
	if err := f.Run(ctx); ctx.Err() == nil {
		f.log.Error("the fast path is no longer kept as wanted", "err", err) // packets of the host go on all the same
		f.mu.Lock()
		f.ended = fmt.Errorf("it is no longer kept as wanted: restart tulled: %w", err)
		f.mu.Unlock()
		<-ctx.Done()
	}
	return ctx.Err()
}

func (f *fastPath) count(ctx context.Context) {
	tick := time.NewTicker(fastPathEvery)
	defer tick.Stop()
	for {
		f.sample(f.State())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sample keeps what the counters say now, and forgets what is too old. Counters that go back began anew.
func (f *fastPath) sample(st ip.FastPathState) {
	now := traffic{time.Now(), st.Out.FastBytes + st.In.FastBytes, st.Out.SlowBytes + st.In.SlowBytes}
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.samples); n > 0 && (now.fast < f.samples[n-1].fast || now.slow < f.samples[n-1].slow) {
		f.samples = nil
	}
	f.samples = append(f.samples, now)
	for len(f.samples) > 1 && now.at.Sub(f.samples[1].at) >= fastPathOver {
		f.samples = f.samples[1:]
	}
}

// status is how it stands now; nil if it has no place in the status, or none yet.
func (f *fastPath) status() *FastPathStatus {
	select {
	case <-f.opened:
	default:
		return nil
	}
	if f.FastPath == nil {
		if f.Off == "" {
			return nil
		}
		return &FastPathStatus{FastPathState: ip.FastPathState{Reason: f.Off}}
	}
	st := FastPathStatus{FastPathState: f.State()}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended != nil {
		st.Failed = f.ended.Error()
	}
	if len(f.samples) > 1 {
		first, last := f.samples[0], f.samples[len(f.samples)-1]
		st.Recent.FastBytes = last.fast - first.fast
		st.Recent.Bytes = st.Recent.FastBytes + last.slow - first.slow
		st.Recent.Over = last.at.Sub(first.at)
	}
	return &st
}

// fastPathCodes are those of the troubles of the fast path, which come and go between passes.
func fastPathCodes() []trouble.Code {
	return []trouble.Code{trouble.FastPathUnavailable, trouble.FastPathUnkept, trouble.FastPathFailed}
}

// troubles are what is wrong with it, by its status. Before something is wanted of it, nothing is.
func (f *fastPath) troubles(st *FastPathStatus) []trouble.Trouble {
	f.mu.Lock()
	decided := f.decided
	f.mu.Unlock()
	if st == nil || f.FastPath != nil && !decided {
		return nil
	}
	var ts []trouble.Trouble
	if f.required && !st.On {
		ts = append(ts, trouble.New(trouble.FastPathUnavailable, "", "the fast path is off: "+st.Reason))
	}
	if st.Unkept != "" {
		ts = append(ts, trouble.New(trouble.FastPathUnkept, "", "the fast path ends with tulled: "+st.Unkept))
	}
	if st.Failed != "" {
		ts = append(ts, trouble.New(trouble.FastPathFailed, "", st.Failed))
	}
	return ts
}
