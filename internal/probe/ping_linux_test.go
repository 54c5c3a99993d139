package probe

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tulle/ip"
)

var errEnd = errors.New("end of the test")

// contextOf returns a context that the test ends itself.
func contextOf(t *testing.T) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(t.Context())
	return ctx, func() { cancel(errEnd) }
}

func TestPing(t *testing.T) {
	t.Parallel()
	s := newSegment(t)
	p, _ := start(t, s.hosts[0], Want{Self: self(0)})
	start(t, s.hosts[1], Want{Self: self(1)})
	var answers []Answer
	ping := func(peer Peer, count int) (err error) {
		answers, err = p.Ping(t.Context(), peer, count)
		return err
	}
	for _, f := range ip.Families() {
		await(t, 10*time.Second, "all is well", func() error {
			if err := ping(other(1, f), 3); err != nil {
				return err
			}
			for _, a := range answers {
				if a.Asked != 3 || len(a.RTTs) != 3 || a.Size != 1500 || a.Full != 1500 || a.Reason != "" {
					return errors.New("not yet")
				}
			}
			return nil
		})
		if len(answers) != 2 || answers[0].Way != Underlay || answers[1].Way != Fabric {
			t.Errorf("%s: %+v", f, answers)
		}
	}

	s.filter("ip daddr 10.0.1.3 meta length > 1444 drop", "ip daddr 10.0.1.2 drop")
	if err := ping(other(1, ip.IPv4), 2); err != nil || answers[0].Size != 0 || len(answers[0].RTTs) != 0 || answers[0].Asked != 2 || answers[1].Size != 1444 {
		t.Errorf("%+v, %v: want none over the underlay, and 1444 bytes over the fabric", answers, err)
	}

	s.run(s.hosts[0], "nft", "add table inet t; add chain inet t c { type filter hook output priority 0; policy drop; }")
	one := other(1, ip.IPv6)
	one.At[Underlay] = netip.AddrPort{}
	if err := ping(one, 1); err != nil || len(answers) != 1 || answers[0].Way != Fabric || answers[0].Size != 0 || answers[0].Reason != "operation not permitted" {
		t.Errorf("%+v, %v: want that sending is not permitted", answers, err)
	}
}

// A ping that cannot be says why, and one whose end comes early has what there is.
func TestPingRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Config{})
		refused := func(want string, peer Peer, count int) {
			t.Helper()
			if _, err := p.Ping(t.Context(), peer, count); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %q", err, want)
			}
		}
		refused("does not run", other(1, ip.IPv4), 1)
		ctx, cancel := contextOf(t)
		var running sync.WaitGroup
		running.Go(func() { _ = p.Run(ctx) })
		synctest.Wait()
		refused("count is 0", other(1, ip.IPv4), 0)
		refused("count is 101", other(1, ip.IPv4), 101)
		refused("no address", Peer{Family: ip.IPv4}, 1)

		short, end := contextOf(t)
		for range mostPings {
			running.Go(func() {
				answers, err := p.Ping(short, other(1, ip.IPv4), 100)
				if !errors.Is(err, errEnd) || len(answers) != 2 || answers[0].Asked == 0 || answers[0].Asked == 100 || answers[0].Reason == "" {
					t.Errorf("%+v, %v", answers, err)
				}
			})
		}
		<-time.After(10 * time.Second)
		refused("try again", other(1, ip.IPv4), 1)
		end()
		cancel()
		running.Wait()
	})
}
