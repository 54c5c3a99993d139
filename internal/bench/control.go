//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"tulle/internal/agent"
	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet"
)

// Control is what one run of the control benchmark found. Durations are in seconds, sizes in bytes, CPU in seconds of one core.
type Control struct {
	Config
	Family string `json:"family"`

	Floor Figure `json:"floor"` // the same objects put into the kernel by one loop
	Cold  Start  `json:"cold"`  // nothing is there yet
	Warm  Start  `json:"warm"`  // the kernel is right already

	Change Figure `json:"change"` // from the write of a lease to its route, one at a time
	Churn  Load   `json:"churn"`  // 100 leases written per second
	Loss   Figure `json:"loss"`   // from the deletion of a lease to that of its route
	Idle   Load   `json:"idle"`   // nothing happens

	Foreign *Load `json:"foreign,omitempty"` // another program changes routes
	Veths   *Load `json:"veths,omitempty"`   // another program makes and deletes links

	RSS     uint64 `json:"rss"` // at the end
	MostRSS uint64 `json:"mostRSS"`
	Heap    uint64 `json:"heap"` // in use, at the end
	Spawned bool   `json:"spawned"`
}

// Start is how a start of the daemon went.
type Start struct {
	Figure
	CPU      Figure             `json:"cpu"`
	Apply    Figure             `json:"apply"`    // of the time, in the kernel
	Changes  float64            `json:"changes"`  // operations applied to the kernel, median
	Calls    float64            `json:"calls"`    // system calls for reading and applying them, median
	Requests map[string]float64 `json:"requests"` // to etcd, by method, in the last round
	Received float64            `json:"received"` // bytes from etcd, in the last round
}

// Load is what goes on for a while costs.
type Load struct {
	Seconds  float64            `json:"seconds"`
	CPU      float64            `json:"cpu"` // share of one core
	Wakeups  float64            `json:"wakeups"`
	Changes  float64            `json:"changes"`
	Calls    float64            `json:"calls"`
	LogBytes int64              `json:"logBytes"`
	Requests map[string]float64 `json:"requests"`
	Received float64            `json:"received"`
	Lag      float64            `json:"lag,omitempty"`    // from the last write to its route, seconds
	Others   float64            `json:"others,omitempty"` // changes of another program per second, which may be fewer than it was to make
}

// RunControl measures one host.
func RunControl(ctx context.Context, config Config) (c Control, err error) {
	if err := config.Check(); err != nil {
		return c, err
	}
	w, err := newWorld(ctx, config)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, w.lab.Close()) }()
	c.Config, c.Family = config, familyName(config.Families)
	for _, step := range []struct {
		name string
		run  func(context.Context, *Control) error
	}{
		{"kernel floor", w.floor}, {"cold starts", w.cold}, {"warm restarts", w.warm},
		{"idling", w.idle}, {"foreign routes", w.foreignRoutes}, {"veth churn", w.vethChurn}, {"changes", w.changes}, {"losses", w.losses}, {"churn", w.churn}, {"memory", w.memory},
	} {
		w.progress("%s", step.name)
		if err := step.run(ctx, &c); err != nil {
			return c, fmt.Errorf("measure %s: %w", step.name, err)
		}
	}
	return c, nil
}

// startOnce starts the daemon and waits until every peer is in the kernel.
func (w *world) startOnce(ctx context.Context, s *samples) error {
	before, err := w.etcdCounters(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := w.host.StartDaemon(); err != nil {
		return err
	}
	if err := w.awaitReady(ctx); err != nil {
		return err
	}
	s.took = append(s.took, time.Since(began).Seconds())
	u, err := usageOf(w.host.DaemonPID())
	if err != nil {
		return err
	}
	s.cpu = append(s.cpu, u.cpu.Seconds())
	var st agent.Status
	if err := w.host.Status(ctx, &st); err != nil {
		return err
	}
	if len(st.Of("").Peers) != w.peers() {
		return fmt.Errorf("%d peers of %d are routed to: %v", len(st.Of("").Peers), w.peers(), st.Troubles.Texts(trouble.PeerRefused))
	}
	counted, err := w.daemonCounters(ctx)
	if err != nil {
		return err
	}
	s.changes = append(s.changes, counted[changesTotal])
	s.calls = append(s.calls, counted[callsTotal])
	s.apply = append(s.apply, counted["tulle_kernel_apply_seconds_total"])
	after, err := w.etcdCounters(ctx)
	s.etcd = after.since(before)
	return err
}

// awaitReady asks often, since every millisecond is measured.
func (w *world) awaitReady(ctx context.Context) error {
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.After(2 * time.Minute); ; {
		ready, reason := w.host.Ready(ctx)
		if ready {
			return nil
		}
		if w.host.DaemonPID() == 0 {
			return errors.New("tulled has exited")
		}
		select {
		case <-ticker.C:
		case <-deadline:
			return fmt.Errorf("tulled is not ready after 2 minutes: %s", reason)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (w *world) cold(ctx context.Context, c *Control) error {
	var s samples
	for range w.config.Rounds {
		if err := w.bare(ctx); err != nil {
			return err
		}
		if err := w.startOnce(ctx, &s); err != nil {
			return err
		}
	}
	c.Cold = s.start()
	return nil
}

// bare leaves the host as one that has never been part of the network.
func (w *world) bare(ctx context.Context) error {
	if w.host.DaemonPID() == 0 {
		return nil
	}
	var st agent.Status
	if err := w.host.Status(ctx, &st); err != nil {
		return err
	}
	if err := w.host.Reinstall(); err != nil || st.Of("").Lease == nil {
		return err
	}
	var own subnet.Subnets
	var keys []string
	for _, p := range st.Of("").Lease.Subnets {
		own.Set(ip.FamilyOf(p.Addr()), p)
		name := strings.Replace(p.String(), "/", "-", 1)
		keys = append(keys, "claims/owner/"+name, "claims/past/"+name)
	}
	for _, key := range append(keys, "subnets/"+subnet.KeyOf(own)) {
		if err := w.lab.Etcd.Delete(ctx, w.lab.Etcd.Key(key)); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) warm(ctx context.Context, c *Control) error {
	var s samples
	for range w.config.Rounds {
		if err := w.host.StopDaemon(); err != nil {
			return err
		}
		if err := w.startOnce(ctx, &s); err != nil {
			return err
		}
	}
	c.Warm = s.start()
	return nil
}

func (w *world) memory(ctx context.Context, c *Control) error {
	pid := w.host.DaemonPID()
	u, err := usageOf(pid)
	if err != nil {
		return err
	}
	c.Spawned = u.children > 0
	if c.RSS, c.MostRSS, err = memoryOf(pid); err != nil {
		return err
	}
	counted, err := w.daemonCounters(ctx)
	c.Heap = uint64(counted["go_memstats_heap_inuse_bytes"])
	return err
}
