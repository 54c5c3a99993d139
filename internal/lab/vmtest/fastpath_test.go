//go:build linux && vm

package vmtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/internal/trouble"
	"tulle/ip"
)

const (
	perSecond    = 100      // packets of a stream: one a second is slow by design
	transferSize = 16 << 20 // bytes
	transferTime = time.Minute
)

// fastPath has traffic between containers take the fast path on a kernel whose programs are filters of tc: it is older than tcx (Linux 6.6).
func fastPath(t *testing.T) {
	t.Run("LacksModules", lacksFilters)
	if err := load(filtersDir); err != nil {
		t.Fatal(err)
	}
	for _, n := range []struct {
		name            string
		hosts, segments int
		backend         map[string]any
	}{
		{"vxlan", 2, 1, map[string]any{"Type": "vxlan"}},
		{"DirectRouting", 3, 2, map[string]any{"Type": "vxlan", "DirectRouting": true}},
		{"host-gw", 2, 1, map[string]any{"Type": "host-gw"}},
	} {
		t.Run(n.name, func(t *testing.T) {
			l := fastLab(t, lab.Config{Hosts: n.hosts, Segments: n.segments, Backend: n.backend})
			for _, host := range l.Hosts {
				awaitFilters(t, host)
			}
			transfersAreFast(t, l)
			streams := startStreams(t, l)
			streamsAreFast(t, l)
			crash(t, l.Hosts[0])
			streamsAreFast(t, l)
			for _, s := range streams {
				s.stop(t)
			}
			noTroubles(t, l)
			switchOff(t, l, l.Hosts[0])
			cleanUp(t, l, l.Hosts[1])
		})
	}
}

// fastLab is a lab whose daemons have the fast path, if the kernel has.
func fastLab(t *testing.T, config lab.Config) *lab.Lab {
	t.Helper()
	config.Containers, config.FastPath = 1, "on"
	config.Progress = func(message string) { t.Log(message) }
	l := labtest.New(t, config)
	if err := l.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l
}

// lacksFilters starts a daemon on a kernel without filters, which says so, and has the fast path by itself once somebody has loaded them.
func lacksFilters(t *testing.T) {
	host := fastLab(t, lab.Config{Hosts: 1, Families: []ip.Family{ip.IPv4}}).Hosts[0]
	within(t, "says what the kernel lacks", func() (bool, string) {
		st := stand(t, host)
		return !st.On && strings.Contains(st.Reason, "modprobe -a sch_ingress cls_bpf") && st.Failed == "", fmt.Sprintf("%+v", st)
	})
	if ready, text := host.Ready(t.Context()); !ready {
		t.Errorf("the host is not ready: %s", text)
	}
	if err := load(filtersDir); err != nil {
		t.Fatal(err)
	}
	awaitFilters(t, host)
}

// stand is how a host's fast path stands.
func stand(t *testing.T, host *lab.Host) ip.FastPathState {
	t.Helper()
	st, err := host.FastPath(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// awaitFilters waits until the programs hang on the container's link of a host, by filters.
func awaitFilters(t *testing.T, host *lab.Host) {
	t.Helper()
	within(t, host.Name+" has the fast path", func() (bool, string) {
		st := stand(t, host)
		return st.On && st.Hook == "clsact" && st.Ports == 1 && st.Failed+st.Unkept+st.Partly == "", fmt.Sprintf("%+v", st)
	})
	if len(qdiscs(t, host)) == 0 {
		t.Errorf("%s has no clsact qdisc, want those that the filters hang below", host)
	}
}

// qdiscs lists the links of a host that filters may hang on.
func qdiscs(t *testing.T, host *lab.Host) (links []int) {
	t.Helper()
	all, err := host.Netlink.QdiscList(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range all {
		if q.Type() == "clsact" {
			links = append(links, q.Attrs().LinkIndex)
		}
	}
	return links
}

// noTroubles has no host name anything wrong, such as filters of the fast path for those of other programs.
func noTroubles(t *testing.T, l *lab.Lab) {
	t.Helper()
	for _, host := range l.Hosts {
		var st struct{ Troubles trouble.List }
		if err := host.Status(t.Context(), &st); err != nil {
			t.Fatal(err)
		}
		if len(st.Troubles.All) > 0 {
			t.Errorf("%s says that it has troubles: %+v", host, st.Troubles.All)
		}
	}
}

type stream struct {
	*lab.Stream
	from, to *lab.Container
	family   ip.Family
}

func (s stream) stop(t *testing.T) {
	t.Helper()
	if r := s.Stop(); r.Lost > 0 || r.SendError != nil {
		t.Errorf("stream from %s to %s by %s: %s", s.from, s.to, s.family, r)
	}
}

// startStreams sends packets from the first host's container to each other, and back, by all families.
func startStreams(t *testing.T, l *lab.Lab) (all []stream) {
	t.Helper()
	for _, pair := range pairs(l) {
		for _, f := range l.Config.Families {
			s, err := lab.StartStream(t.Context(), lab.StreamConfig{From: pair[0], To: pair[1], Family: f, PerSecond: perSecond})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Stop() })
			all = append(all, stream{s, pair[0], pair[1], f})
		}
	}
	return all
}

// pairs are the first host's container and one of another host, in both orders.
func pairs(l *lab.Lab) (all [][2]*lab.Container) {
	first := l.Hosts[0].Containers[0]
	for _, host := range l.Hosts[1:] {
		all = append(all, [2]*lab.Container{first, host.Containers[0]}, [2]*lab.Container{host.Containers[0], first})
	}
	return all
}

// streamsAreFast waits until some more packets of all streams together have been sent, of which nearly all are fast.
func streamsAreFast(t *testing.T, l *lab.Lab) {
	t.Helper()
	for _, host := range l.Hosts {
		share := 0.0
		within(t, "packets are fast on "+host.Name, func() (bool, string) {
			before := stand(t, host)
			var after ip.FastPathState
			within(t, "packets come and go", func() (bool, string) {
				after = stand(t, host)
				return packets(after.Out) > packets(before.Out)+3*perSecond && packets(after.In) > packets(before.In)+3*perSecond, fmt.Sprintf("%+v", after)
			})
			share = min(fastShare(before.Out, after.Out, ofPackets), fastShare(before.In, after.In, ofPackets))
			return share > 0.95, fmt.Sprintf("share %.3f; %+v", share, after)
		})
		t.Logf("%.3f of the packets of streams are fast on %s", share, host)
	}
}

func packets(c ip.FastTraffic) uint64 { return c.FastPackets + c.SlowPackets }

func ofPackets(c ip.FastTraffic) (fast, slow uint64) { return c.FastPackets, c.SlowPackets }
func ofBytes(c ip.FastTraffic) (fast, slow uint64)   { return c.FastBytes, c.SlowBytes }

// fastShare is how much of what was counted between two looks went fast.
func fastShare(before, after ip.FastTraffic, of func(ip.FastTraffic) (fast, slow uint64)) float64 {
	fastBefore, slowBefore := of(before)
	fast, slow := of(after)
	return float64(fast-fastBefore) / float64(fast-fastBefore+slow-slowBefore)
}

// transfersAreFast has nearly all bytes of large transfers go fast.
func transfersAreFast(t *testing.T, l *lab.Lab) {
	t.Helper()
	for _, pair := range pairs(l) {
		for _, f := range l.Config.Families {
			from, to := pair[0].Host, pair[1].Host
			out, in := stand(t, from), stand(t, to)
			began := time.Now()
			if err := transfer(t.Context(), pair[0], pair[1], f); err != nil {
				t.Fatalf("transfer from %s to %s by %s: %v", pair[0], pair[1], f, err)
			}
			took := time.Since(began)
			sent, received := fastShare(out.Out, stand(t, from).Out, ofBytes), fastShare(in.In, stand(t, to).In, ofBytes)
			t.Logf("transfer from %s to %s by %s: %d MB in %v, fast %.3f out of %s and %.3f into %s", pair[0], pair[1], f, transferSize>>20, took.Round(time.Millisecond), sent, from, received, to)
			if !(min(sent, received) > 0.95) {
				t.Errorf("from %s to %s by %s, %.3f of the bytes leave %s fast, %.3f come fast into %s, want more than 0.95", pair[0], pair[1], f, sent, from, received, to)
			}
		}
	}
}

// transfer sends random bytes from one container to another by TCP, and compares what arrives.
func transfer(ctx context.Context, from, to *lab.Container, f ip.Family) error {
	var listener net.Listener
	if err := to.Do(func() (err error) {
		listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", netip.AddrPortFrom(to.Addr.Of(f), 0).String())
		return err
	}); err != nil {
		return err
	}
	defer listener.Close()
	var conn net.Conn
	if err := from.Do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", listener.Addr().String())
		return err
	}); err != nil {
		return err
	}
	defer conn.Close()
	sent := make(chan error, 1)
	want, got := sha256.New(), sha256.New()
	go func() {
		err := conn.SetDeadline(time.Now().Add(transferTime))
		_, copied := io.Copy(io.MultiWriter(conn, want), io.LimitReader(rand.NewChaCha8([32]byte{}), transferSize))
		sent <- errors.Join(err, copied, conn.Close())
	}()
	receiver, err := listener.Accept()
	if err != nil {
		return err
	}
	defer receiver.Close()
	if err := receiver.SetDeadline(time.Now().Add(transferTime)); err != nil {
		return err
	}
	n, err := io.Copy(got, receiver)
	if err := errors.Join(err, <-sent); err != nil {
		return fmt.Errorf("after %d bytes: %w", n, err)
	}
	if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		return fmt.Errorf("other bytes arrive than are sent: %d of %d", n, transferSize)
	}
	return nil
}

// crash kills the daemon of a host and starts it again, several times: its filters go on, or are exchanged in one step.
func crash(t *testing.T, host *lab.Host) {
	t.Helper()
	before := qdiscs(t, host)
	for range 3 {
		host.KillDaemon()
		if err := host.StartDaemon(); err != nil {
			t.Fatal(err)
		}
		if err := host.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		awaitFilters(t, host)
	}
	if after := qdiscs(t, host); !slices.Equal(before, after) {
		t.Errorf("links of %s with a clsact qdisc were %v, and are %v", host, before, after)
	}
}

// switchOff starts the daemon of a host without the fast path, of which nothing is left then.
func switchOff(t *testing.T, l *lab.Lab, host *lab.Host) {
	t.Helper()
	if err := host.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := host.StartDaemon("--fast-path=off"); err != nil {
		t.Fatal(err)
	}
	if err := host.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if links := qdiscs(t, host); len(links) > 0 {
		t.Errorf("after --fast-path=off, links of %s with a clsact qdisc: %v", host, links)
	}
	matrix, err := l.Matrix(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, pair := range matrix.Pairs {
		if !pair.OK {
			t.Errorf("%s does not reach %s, one of which has no fast path: %s", pair.From, pair.To, pair.Reason)
		}
	}
}

// cleanUp has a host cleaned up, on which nothing is left then.
func cleanUp(t *testing.T, l *lab.Lab, host *lab.Host) {
	t.Helper()
	if err := host.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	if len(qdiscs(t, host)) == 0 {
		t.Errorf("%s has no clsact qdisc before it is cleaned up: the fast path has ended with tulled", host)
	}
	cmd := exec.CommandContext(t.Context(), l.Config.Tulle, "cleanup")
	cmd.Env = append(cmd.Environ(), host.Environment()...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := errors.Join(host.Do(cmd.Start), cmd.Wait()); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, &output)
	}
	if links := qdiscs(t, host); len(links) > 0 {
		t.Errorf("after cleanup, links of %s with a clsact qdisc: %v", host, links)
	}
	want := len(l.Hosts) - 2 // those that have the fast path still
	pins := filepath.Join(l.Config.Dir, "bpf")
	if entries, err := os.ReadDir(pins); len(entries) != want || want > 0 && err != nil {
		t.Errorf("after cleanup, below %s: %v (%v), want %d", pins, entries, err, want)
	}
}
