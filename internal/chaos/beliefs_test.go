//go:build linux

package chaos

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"tulle/internal/agent"
	"tulle/internal/invariant"
	"tulle/internal/lab"
	"tulle/ip"
	"tulle/subnet"
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
	subnets subnet.Subnets
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
		if status.Of("").Lease != nil && status.Of("").Lease.Held {
			for _, s := range status.Of("").Lease.Subnets {
				now.subnets.Set(ip.FamilyOf(s.Addr()), s)
			}
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
			if err := apart(one, answers, other, others); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// apart holds an answer of other against what one said just before and just
// after it.
func apart(one string, answers []belief, other string, others []belief) error {
	for i := 1; i < len(answers); i++ {
		from, to := answers[i-1], answers[i]
		if to.at.Sub(from.at) > sureFor || from.subnets != to.subnets {
			continue
		}
		for _, b := range others {
			if !b.at.After(from.at) || !b.at.Before(to.at) {
				continue
			}
			holders := []invariant.Owner{{Host: one, Subnets: from.subnets}, {Host: other, Subnets: b.subnets}}
			if vs := invariant.Apart(holders); len(vs) > 0 {
				return fmt.Errorf("at %s, in their own eyes, %v", b.at.Format(time.StampMilli), vs[0])
			}
		}
	}
	return nil
}

func TestBeliefsOfOneSubnetAreFound(t *testing.T) {
	one := subnet.Subnets{V4: netip.MustParsePrefix("10.5.1.0/24"), V6: netip.MustParsePrefix("fc00:5::/64")}
	part := subnet.Subnets{V4: netip.MustParsePrefix("10.5.1.128/25")}
	other := subnet.Subnets{V4: netip.MustParsePrefix("10.5.2.0/24")}
	at := func(ms int) time.Time { return time.Unix(0, 0).Add(time.Duration(ms) * time.Millisecond) }
	sure := []belief{{at(0), one}, {at(100), one}}
	for name, tt := range map[string]struct {
		answers, others []belief
		found           bool
	}{
		"the same in between":  {sure, []belief{{at(50), one}}, true},
		"a part of it":         {sure, []belief{{at(50), part}}, true},
		"another":              {sure, []belief{{at(50), other}}, false},
		"none":                 {sure, []belief{{at(50), subnet.Subnets{}}}, false},
		"afterwards":           {sure, []belief{{at(150), one}}, false},
		"given up in between":  {[]belief{{at(0), one}, {at(100), subnet.Subnets{}}}, []belief{{at(50), one}}, false},
		"nothing heard so far": {[]belief{{at(0), one}, {at(5000), one}}, []belief{{at(50), one}}, false},
	} {
		if err := apart("h1", tt.answers, "h2", tt.others); (err != nil) != tt.found {
			t.Errorf("%s: %v, want it found: %t", name, err, tt.found)
		}
	}
}
