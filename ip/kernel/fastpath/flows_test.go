//go:build linux

package fastpath_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"tulle/ip"
)

// holds runs a scenario in worlds of some kinds.
func holds(t *testing.T, kinds []config, scenario func(*world) error) {
	for _, c := range kinds {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			if err := scenario(newWorld(t, c)); err != nil {
				t.Error(err)
			}
		})
	}
}

// some are the kinds that a function picks.
func some(kinds []config, pick func(config) bool) []config {
	return slices.DeleteFunc(kinds, func(c config) bool { return !pick(c) })
}

// with changes kinds of worlds.
func with(kinds []config, change func(*config)) []config {
	for i := range kinds {
		change(&kinds[i])
	}
	return kinds
}

// tunnels are the kinds of worlds with one.
func tunnels() []config {
	return []config{{backend: "vxlan", family: ip.IPv4}, {backend: "vxlan", family: ip.IPv6}}
}

// one is the usual kind of world, for what does not depend on it.
func one() []config { return tunnels()[:1] }

// The world in which the engine is tried is right without it.
func TestPlainFlows(t *testing.T) {
	holds(t, with(kinds(), func(c *config) { c.engines = -1 }), bulk)
}

func TestFlowsBecomeFast(t *testing.T) {
	holds(t, kinds(), bulk)
}

// A peer needs no fast path for a host to have it.
func TestPeerIsPlain(t *testing.T) {
	holds(t, with(kinds(), func(c *config) { c.engines = 1 }), bulk)
}

// bulk sends streams and large transfers both ways, nearly all of which shall be fast where there is a fast path.
func bulk(w *world) error {
	a, b := w.hosts[0], w.hosts[1]
	there, back := startStream(a.containers[0], b.containers[0]), startStream(b.containers[0], a.containers[0])
	must(w.t, there.awaitFast())
	must(w.t, back.awaitFast())
	before := traffic(a, b)
	there.awaitSent(4000)
	if err := before.mostlyFast(func(t ip.FastTraffic) (fast, slow uint64) { return t.FastPackets, t.SlowPackets }, true, true); err != nil {
		return fmt.Errorf("streams: %w", err)
	}
	conn, err := connect(a.containers[1], b.containers[1], 0, netip.AddrPort{}, 0)
	must(w.t, err)
	ofBytes := func(t ip.FastTraffic) (fast, slow uint64) { return t.FastBytes, t.SlowBytes }
	before = traffic(a, b)
	if err := transfer(conn.client, conn.server, 64<<20); err != nil {
		return err
	}
	if err := before.mostlyFast(ofBytes, true, false); err != nil {
		return fmt.Errorf("transfer there: %w", err)
	}
	before = traffic(a, b)
	if err := transfer(conn.server, conn.client, 64<<20); err != nil {
		return err
	}
	if err := before.mostlyFast(ofBytes, false, true); err != nil {
		return fmt.Errorf("transfer back: %w", err)
	}
	if err := there.stop().kept(); err != nil {
		return err
	}
	return back.stop().kept()
}

// counted is what two hosts have counted.
type counted struct {
	hosts  [2]*host
	states [2]ip.FastPathState
}

func traffic(a, b *host) counted {
	c := counted{hosts: [2]*host{a, b}}
	for i, h := range c.hosts {
		if h.engine != nil {
			c.states[i] = h.engine.State()
		}
	}
	return c
}

// mostlyFast is an error unless more than 95 % since then has been fast, from the first to the second host or back.
func (c counted) mostlyFast(of func(ip.FastTraffic) (fast, slow uint64), there, back bool) error {
	now := traffic(c.hosts[0], c.hosts[1])
	for i, h := range c.hosts {
		if h.engine == nil {
			continue
		}
		was, is := c.states[i], now.states[i]
		for _, direction := range []struct {
			name    string
			matters bool
			was, is ip.FastTraffic
		}{{"out of", i == 0 && there || i == 1 && back, was.Out, is.Out}, {"into", i == 1 && there || i == 0 && back, was.In, is.In}} {
			fastBefore, slowBefore := of(direction.was)
			fast, slow := of(direction.is)
			fast, slow = fast-fastBefore, slow-slowBefore
			if share := float64(fast) / float64(fast+slow); direction.matters && !(share > 0.95) {
				return fmt.Errorf("%.3f of what goes %s host %d is fast (%d and %d slow), want more than 0.95", share, direction.name, h.number, fast, slow)
			}
		}
	}
	return nil
}
