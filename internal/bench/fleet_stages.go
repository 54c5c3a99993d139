//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tulle/ip"
)

func (f *fleet) boot(ctx context.Context, out *Fleet) error {
	measure, err := f.stage(ctx)
	if err != nil {
		return err
	}
	for _, h := range f.hosts {
		f.wg.Go(func() { _ = h.run(ctx) }) // a host that fails is counted
	}
	var known Figure
	done := make(chan struct{})
	go func() {
		defer close(done)
		known, _ = f.all(ctx, func(h *lightHost) bool { return len(h.set.Leases) == len(f.hosts) })
	}()
	leased, failed := f.all(ctx, func(h *lightHost) bool { return h.held != nil })
	if out.Leased, err = measure(leased); err != nil {
		return err
	}
	<-done
	out.Failed = failed
	out.Known, err = measure(known)
	return err
}

// warmupTime is how long after a start of many a host may do what belongs to it: its watch comes back from its pause.
const warmupTime = 5 * time.Second

func (f *fleet) steady(ctx context.Context, out *Fleet) error {
	if err := pause(ctx, min(warmupTime, f.config.Rest)); err != nil {
		return err
	}
	measure, err := f.stage(ctx)
	if err != nil {
		return err
	}
	if err := pause(ctx, f.config.Rest); err != nil {
		return err
	}
	out.Steady, err = measure(Figure{})
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// newcomer is a lease beyond those of the hosts.
func (f *fleet) newcomer(n int) peer {
	return peer{number: MaxHosts + n, backend: "vxlan", families: []ip.Family{ip.IPv4}}
}

// tell writes the lease of a newcomer and measures when each host has heard of it.
func (f *fleet) tell(ctx context.Context, n int) (Figure, error) {
	p := f.newcomer(n)
	value, err := p.value(1)
	if err != nil {
		return Figure{}, err
	}
	written := make(chan error, 1)
	go func() { written <- f.etcd.put(ctx, p.key(), value) }()
	took, failed := f.all(ctx, func(h *lightHost) bool { return h.knows(p.public().V4) })
	if failed > 0 {
		err = fmt.Errorf("%d hosts did not learn of a change", failed)
	}
	return took, errors.Join(err, <-written)
}

func (f *fleet) change(ctx context.Context, out *Fleet) error {
	measure, err := f.stage(ctx)
	if err != nil {
		return err
	}
	took, err := f.tell(ctx, 0)
	if err != nil {
		return err
	}
	out.Change, err = measure(took)
	return err
}

func (f *fleet) restart(ctx context.Context, out *Fleet) error {
	if err := f.etcd.restart(ctx); err != nil {
		return err
	}
	measure, err := f.stage(ctx) // the counters of etcd begin anew
	if err != nil {
		return err
	}
	took, err := f.tell(ctx, 1)
	if err != nil {
		return err
	}
	out.Restart, err = measure(took)
	return err
}

// stage begins to measure what etcd uses, and returns what tells it.
func (f *fleet) stage(ctx context.Context) (func(Figure) (Stage, error), error) {
	began := time.Now()
	before, err := f.etcd.reading(ctx)
	if err != nil {
		return nil, err
	}
	return func(took Figure) (Stage, error) {
		after, err := f.etcd.reading(ctx)
		grown := after.counters.since(before.counters)
		return Stage{
			Figure: took, Seconds: time.Since(began).Seconds(), EtcdCPU: (after.usage.cpu - before.usage.cpu).Seconds(), Requests: requests(grown),
			Sent: grown["etcd_network_client_grpc_sent_bytes_total"], Received: grown["etcd_network_client_grpc_received_bytes_total"],
		}, err
	}, nil
}
