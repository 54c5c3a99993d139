//go:build linux

package flowtest

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/ip"
)

// requireOutside sends to the world outside, masqueraded, while direct flows of the same container are fast.
func (w *World) requireOutside(t *testing.T) {
	flows := w.startFlows(t)
	w.awaitFast(t, flows)
	for _, f := range w.families() {
		for range 10 {
			if got, err := w.Lab.SourceOutside(t.Context(), w.Client, f); err != nil || got != w.Client.Host.Addr.Of(f) {
				t.Errorf("source outside the network is %s (%v), want the host's", got, err)
			}
		}
	}
	w.awaitFast(t, flows)
	stopAll(t, flows)
}

// requireDropped drops what goes from the client to the server. Flows that are fast stop at once, new ones do not begin, and when the rule is gone they go on.
func (w *World) requireDropped(t *testing.T) {
	for i, place := range [][2]string{{"filter", "FORWARD"}, {"raw", "PREROUTING"}} {
		for j, tool := range []string{"iptables-nft", "iptables-legacy", "nft"} {
			for k, host := range w.hosts() {
				if w.Few && (i != j%2 || k != j%2) {
					continue
				}
				t.Run(fmt.Sprintf("%s by %s on %s", place[1], tool, host), func(t *testing.T) {
					flows := w.startFlows(t)
					w.awaitFast(t, flows)
					var late []*flow // those that begin with the rule there
					done := map[ip.Family]time.Time{}
					var undo []func()
					for _, f := range w.families() {
						undo = append(undo, putRule(t, host, tool, f, rule{table: place[0], chain: place[1], from: w.Client.Addr.Of(f), to: w.Server.Addr.Of(f), then: "drop"}))
						done[f] = time.Now()
						late = append(late, startFlow(t, w.Client, "udp", w.newPort(), w.echo(w.Server, f)))
					}
					for _, fl := range flows {
						last := fl.awaitSilence(t)
						if took, limit := last.Sub(done[ip.FamilyOf(fl.to.Addr())]), labtest.Limit(ruleLimit); took > limit {
							t.Errorf("%s: packets still come back after %v, want at most %v", fl, took, limit)
						} else {
							t.Logf("%s: the last comes back %v after the rule is in", fl, took)
						}
					}
					for _, fl := range late {
						if n := fl.echoed.Load(); n != 0 {
							t.Errorf("%s: %d packets come back in spite of a rule that was there before", fl, n)
						}
					}
					for _, u := range undo {
						u()
					}
					w.awaitFast(t, append(flows, late...))
				})
			}
		}
	}
}

// requireInvalid drops what connection tracking does not understand, on both hosts. Of connections that it sees little of there is nothing.
func (w *World) requireInvalid(t *testing.T) {
	size := w.size(64 << 20)
	for _, host := range w.hosts() {
		for _, f := range w.families() {
			putRule(t, host, "iptables", f, rule{table: "filter", chain: "FORWARD", invalid: true, then: "drop"})
		}
	}
	for i, f := range w.families() {
		for j, ends := range [][2]*lab.Container{{w.Client, w.Server}, {w.Server, w.Client}} {
			if w.Few && i != j {
				continue
			}
			fast := w.FastBytes(t, func() { w.requireLongConnection(t, ends[0], w.echo(ends[1], f), size) })
			if min(fast[0], fast[1]) < uint64(size*2*95/100) {
				t.Errorf("of %d bytes there and back from %s over %s, %d are fast, want nearly all", size, ends[0], f, fast)
			}
		}
	}
	for _, host := range w.hosts() {
		for _, f := range w.families() {
			found := false
			for line := range strings.Lines(onHost(t, host, ip.Dual[string]{V4: "iptables", V6: "ip6tables"}.Of(f), "-w", "5", "-nvxL", "FORWARD")) {
				if strings.Contains(line, "ctstate INVALID") {
					found = true
					if strings.Fields(line)[0] != "0" {
						t.Errorf("on %s packets are invalid: %s", host, line)
					}
				}
			}
			if !found {
				t.Errorf("on %s no %s rule drops what is invalid", host, f)
			}
		}
	}
}

// requireLongConnection uses a connection, leaves it for longer than an admission lives, uses it again and ends it.
func (w *World) requireLongConnection(t testing.TB, from *lab.Container, to netip.AddrPort, size int) {
	t.Helper()
	port := w.newPort()
	conn := dial(t, from, "tcp", port, to)
	requireSame(t, conn, size)
	f := &flow{network: "tcp", from: netip.AddrPortFrom(from.Addr.Of(ip.FamilyOf(to.Addr())), port), to: to}
	began := time.Now()
	for _, h := range w.hosts() {
		retry(t, fmt.Sprintf("a connection without packets is no longer fast on %s", h), func() error {
			is := fastPackets(t, h)
			for _, name := range append(f.names(true), f.names(false)...) {
				if n, found := is[name]; found || time.Since(began) < admissionLife {
					return fmt.Errorf("%s: it is, with %d packets, after %v", name, n, time.Since(began))
				}
			}
			return nil
		})
	}
	again := time.Now()
	requireSame(t, conn, 100)
	if took := time.Since(again); took > labtest.Limit(promptly) {
		t.Errorf("%s: after %v of rest, an answer takes %v, want at most %v", f, again.Sub(began), took, labtest.Limit(promptly))
	}
	requireEnds(t, conn)
}

// startOneWay starts a stream of each family that nobody answers.
func (w *World) startOneWay(t testing.TB) (streams []*lab.Stream) {
	t.Helper()
	for _, f := range w.families() {
		s, err := lab.StartStream(t.Context(), lab.StreamConfig{From: w.Another, To: w.Server, Family: f, PerSecond: streamRate})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Stop() })
		streams = append(streams, s)
	}
	return streams
}

// requireOneWay fails the test unless every packet of the streams has come, and nearly all were fast, through all that was done to others beside them.
func (w *World) requireOneWay(t testing.TB, streams []*lab.Stream) {
	t.Helper()
	for _, h := range w.hosts() {
		for i, f := range w.families() {
			var fast, received uint64
			for deadline := time.Now().Add(labtest.Limit(5 * admissionLife)); ; <-time.After(admissionLife / 10) {
				fast, received = w.fastOneWay(t, h, f), uint64(streams[i].Received())
				if fast >= received*95/100 {
					break
				}
				if time.Now().After(deadline) { // at one moment the flow may not be admitted
					t.Errorf("on %s %d packets of a stream over %s are fast, of %d: want nearly all", h, fast, f, received)
					break
				}
			}
		}
	}
	for i, s := range streams {
		if r := s.Stop(); r.Lost > 0 || r.SendError != nil {
			t.Errorf("one way over %s: %s, want none lost", w.families()[i], r)
		}
	}
}

// fastOneWay is how many packets of the stream of a family have been fast on a host; 0 while none may be.
func (w *World) fastOneWay(t testing.TB, h *lab.Host, f ip.Family) uint64 {
	t.Helper()
	for _, fl := range fastFlows(t, h) {
		if fl.In == (h == w.Server.Host) && fl.Src.Addr() == w.Another.Addr.Of(f) && fl.Dst.Addr() == w.Server.Addr.Of(f) && fl.Dst.Port() != echoPort {
			return fl.Packets
		}
	}
	return 0
}
