// Package fabric is one network on one host: it follows the store, keeps this host's lease, and says what the kernel should look like for it. A
// Fabric lives as long as tulled, a Pass is its part of one full pass, a Change that of an incremental one.
package fabric

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"tulle/backend"
	"tulle/internal/backoff"
	"tulle/internal/decision"
	"tulle/internal/hostfiles"
	"tulle/internal/logthrottle"
	"tulle/ip"
	"tulle/subnet"
)

const (
	// RetryFirst and RetryMost are how long what failed is left alone, the first time and at most.
	RetryFirst = 250 * time.Millisecond
	RetryMost  = 15 * time.Second

	viewEvery = 50 * time.Millisecond
	viewBurst = 10

	// StorePatience is how long a start waits for the store before it works from the view of an earlier run.
	StorePatience = 3 * time.Second
)

// Config is what a Fabric works with. Every field must be set unless it says otherwise.
type Config struct {
	Name     string // of the network on this host, in names of tables and files; the only one has none
	Host     Host
	Log      *slog.Logger
	StateDir string // survives a reboot, and is this network's alone

	Store    subnet.Store
	Keys     Keys
	Backends map[string]backend.New
	Options  decision.Options
	Uplink   ip.UplinkChoice // zero: the interface of the default route
	Lease    LeaseOptions
	Answer   subnet.Answer // to questions that this host is asked through the store; nil: they are left unanswered
	Probe    subnet.Probe  // where this host is asked whether packets arrive; zero: hosts do not ask each other

	SubnetFile string
	Reached    func() []netip.Addr // addresses of the store; no lease may capture these; may be nil
	Resolvers  func() []netip.Addr // name servers; no lease may capture those on a network that this host is on; may be nil
	Trouble    func() error        // what keeps the store away, nil if nothing does; may be nil
	Expiry     func() time.Time    // of the certificate that the store is shown, zero if there is none; may be nil
}

// Host is which host this is.
type Host struct {
	Node     string   // node id
	Instance string   // of this machine since it booted
	Hardware []string // of this machine
}

// Keys is where the store keeps things, for messages and to tell stores apart.
type Keys struct {
	Endpoints []string // a view kept from others is not worked from
	Config    string   // of the network configuration
	Leases    string   // what precedes the text of a lease in its key
}

// LeaseOptions are about this host's lease.
type LeaseOptions struct {
	TTL      time.Duration  // as in subnet.Claim
	Renumber bool           // when the subnet is lost to another host, take a new one instead of waiting for it
	Previous subnet.Subnets // held before, by a local record other than Tulle's own; may be zero
}

// Loop is the host's, as a fabric sees it: it is asked for passes.
type Loop interface {
	LeasesChanged() // for a pass; an incremental one may do
	Wake()          // for a full pass
	Hurry()         // for a full pass without delay
}

// Fabric is one network on this host.
type Fabric struct {
	cfg    Config
	keeper *keeper
	views  *views
	record *hostfiles.RecordFile

	network  *subnet.Network // the configuration in force: the first valid one
	backend  backend.Backend
	warnings []string

	scope        ip.Scope // of the last pass that had one
	uplinks      uplinks
	lease        subnet.Lease // last held; stays in force when lost, so that local traffic goes on
	heldOnce     bool         // a lease has been held in this run
	applied      bool         // the kernel has been made right once
	wanted       ip.State     // what the last pass wanted
	fastPath     *ip.FastPath // what that is for the fast path; nil before there is any
	fastLinks    *ip.FastPath // that without its devices and peers, where it is to be derived anew from what is wanted; else nil
	baseline     *baseline    // nil: only a full pass will do
	lastBaseline *baseline    // that a full pass began with
	fullOnly     *FullOnly    // why the last full pass left no baseline; nil: it left one
	verdicts     verdicts
	pathCheck    pathCheck
	announced    advertised
	routeMTUs    map[netip.Prefix]int // that routes are to name
	probing      *Probing             // who is to be asked; nil before that is known, and where nobody is
}

// New prepares a fabric. It reads the record of an earlier run from the state directory.
func New(cfg Config, loop Loop) (*Fabric, error) {
	record, err := hostfiles.OpenRecord(cfg.StateDir, cfg.Log)
	if err != nil {
		return nil, err
	}
	f := &Fabric{cfg: cfg, record: record, lease: record.Record().Lease()}
	f.uplinks.restore(record.Record(), cfg.Host)
	f.keeper = newKeeper(cfg, f.lease.Subnets, loop.Hurry)
	unwritten := logthrottle.Throttle{}
	cache := hostfiles.NewViewFile(cfg.StateDir, hostfiles.Origin{ConfigKey: cfg.Keys.Config, Endpoints: cfg.Keys.Endpoints}, func(err error) {
		if err != nil && unwritten.Due("write", logthrottle.Lasting) {
			cfg.Log.Warn("view not cached: this host could not start without the store", "err", err)
		}
	})
	f.views = &views{loop: loop, cache: cache, born: time.Now()}
	return f, nil
}

// Run follows the store and keeps the lease until ctx ends. It leaves lease and files as they are, for the next run to find.
func (f *Fabric) Run(ctx context.Context) error {
	g, working := errgroup.WithContext(ctx)
	defer time.AfterFunc(StorePatience, f.views.waited).Stop()
	for _, task := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"watch the store", f.watchStore},
		{"keep the lease", f.keeper.run},
		{"write the cached view", f.views.cache.Run},
	} {
		g.Go(func() error {
			if err := task.run(working); err != nil {
				return fmt.Errorf("%s: %w", task.name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// Flush writes what the last pass handed over: the task that writes it may have ended before the pass did.
func (f *Fabric) Flush() { f.views.cache.Flush() }

// TakeIn makes a view of the store the one that the next pass decides from.
func (f *Fabric) TakeIn(set subnet.Set) { f.views.put(set) }

// Holds reports whether this host may say that it holds its lease.
func (f *Fabric) Holds() bool { return f.keeper.holds() }

// watchStore takes in views: a few at once, and then those of a churning network at intervals, since each costs a walk over
// all leases.
func (f *Fabric) watchStore(ctx context.Context) error {
	pace := backoff.Pace{Every: viewEvery, Burst: viewBurst}
	views := grace{handOn: f.TakeIn}
	defer views.stop()
	return f.cfg.Store.Watch(ctx, func(set subnet.Set) {
		views.put(set)
		pace.Wait(ctx)
	})
}
