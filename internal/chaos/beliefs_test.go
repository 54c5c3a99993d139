//go:build linux

package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"tulle/internal/agent"
	"tulle/internal/lab"
)

const (
	// askEvery is how often a host is asked what it holds.
	askEvery = 100 * time.Millisecond
	// sureFor is how far apart two answers may be for what both say to hold in
	// between.
	sureFor = time.Second
)

// belief is what a host said to hold at a time.
type belief struct {
	at      time.Time
	subnets []netip.Prefix
}

// beliefs are what each host holds in its own eyes, from one moment to the next.
// Two hosts must never hold the same at once, whatever etcd says.
type beliefs struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	hosts map[string][]belief
}

func watchBeliefs(ctx context.Context, hosts []*lab.Host) *beliefs {
	ctx, cancel := context.WithCancel(ctx)
	b := &beliefs{cancel: cancel, hosts: make(map[string][]belief)}
	for _, host := range hosts {
		b.wg.Go(func() { b.ask(ctx, host) })
	}
	return b
}

func (b *beliefs) close() {
	b.cancel()
	b.wg.Wait()
}

func (b *beliefs) ask(ctx context.Context, host *lab.Host) {
	ticker := time.NewTicker(askEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		asked := time.Now()
		var status agent.Status
		if host.Status(ctx, &status) != nil || time.Since(asked) > askEvery {
			continue
		}
		now := belief{at: time.Now()}
		if status.Lease != nil && status.Lease.Held {
			now.subnets = status.Lease.Subnets
		}
		b.mu.Lock()
		b.hosts[host.Name] = append(b.hosts[host.Name], now)
		b.mu.Unlock()
	}
}

// verdict is where two hosts held the same since the last call.
func (b *beliefs) verdict() error {
	b.mu.Lock()
	hosts := b.hosts
	b.hosts = make(map[string][]belief)
	b.mu.Unlock()
	var errs []error
	for one, answers := range hosts {
		for other, others := range hosts {
			if one == other {
				continue
			}
			if at, shared := sharedSubnet(answers, others); shared.IsValid() {
				errs = append(errs, fmt.Errorf("at %s both %s and %s hold %s in their own eyes", at.Format(time.StampMilli), one, other, shared))
			}
		}
	}
	return errors.Join(errs...)
}

// sharedSubnet looks for an answer of others between two that say the same.
func sharedSubnet(answers, others []belief) (time.Time, netip.Prefix) {
	for i := 1; i < len(answers); i++ {
		from, to := answers[i-1], answers[i]
		if to.at.Sub(from.at) > sureFor {
			continue
		}
		for _, held := range from.subnets {
			if !slices.Contains(to.subnets, held) {
				continue
			}
			for _, other := range others {
				if other.at.After(from.at) && other.at.Before(to.at) && slices.ContainsFunc(other.subnets, held.Overlaps) {
					return other.at, held
				}
			}
		}
	}
	return time.Time{}, netip.Prefix{}
}
