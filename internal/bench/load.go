//go:build linux

package bench

import (
	"bytes"
	"context"
	"os"
	"time"
)

// changesTotal is the daemon's count of operations applied to the kernel.
const changesTotal = "tulle_kernel_changes_total"

// callsTotal is its count of system calls for routes and neighbours.
const callsTotal = "tulle_kernel_calls_total"

// load begins to measure what the daemon uses, and returns what ends it.
func (w *world) load(ctx context.Context) (measure func() (Load, error), err error) {
	before, err := w.reading(ctx)
	if err != nil {
		return nil, err
	}
	return func() (Load, error) {
		after, err := w.reading(ctx)
		if err != nil {
			return Load{}, err
		}
		grown := after.etcd.since(before.etcd)
		spent := after.at.Sub(before.at).Seconds()
		return Load{
			Seconds: spent, CPU: (after.usage.cpu - before.usage.cpu).Seconds() / spent,
			Wakeups: float64(after.usage.wakeups - before.usage.wakeups), Changes: after.daemon[changesTotal] - before.daemon[changesTotal],
			Calls:    after.daemon[callsTotal] - before.daemon[callsTotal],
			LogBytes: after.log - before.log, Requests: requests(grown), Received: grown[sentBytes],
		}, nil
	}, nil
}

// reading is how far everything that is counted has come.
type reading struct {
	at     time.Time
	usage  usage
	log    int64
	etcd   counters
	daemon counters
}

func (w *world) reading(ctx context.Context) (r reading, err error) {
	r.at = time.Now()
	if r.usage, err = usageOf(w.host.DaemonPID()); err != nil {
		return r, err
	}
	if r.etcd, err = w.etcdCounters(ctx); err != nil {
		return r, err
	}
	if r.daemon, err = w.daemonCounters(ctx); err != nil {
		return r, err
	}
	info, err := os.Stat(w.host.Log())
	if err == nil {
		r.log = info.Size()
	}
	return r, err
}

func (w *world) etcdCounters(ctx context.Context) (counters, error) {
	return scrape(ctx, w.lab.Etcd.Members[0].URL()+"/metrics", w.lab.Etcd.Dial)
}

func (w *world) daemonCounters(ctx context.Context) (counters, error) {
	text, err := w.host.Metrics(ctx)
	if err != nil {
		return nil, err
	}
	return parseCounters(bytes.NewReader(text))
}
