//go:build linux

package dockertest_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/ip"
)

const (
	// maxCutOff is how long containers may be cut off by what others do to the filters.
	maxCutOff = 2 * time.Second
	// streamRate is in packets per second.
	streamRate = 100
)

// requireHeals lets packets flow between a and b while others do to the filters of a's host what administrators and
// Docker itself do.
func requireHeals(t *testing.T, a, b *container, e engine) {
	t.Helper()
	dropForwarded := func() { eachIPTables(t, a, "-P", "FORWARD", "DROP") }
	// Docker does that on any host where it is what switches forwarding on.
	dropForwarded()
	flowing := startStreams(t, a, b)
	for _, fault := range []struct {
		name string
		do   func()
	}{
		{"iptables -F DOCKER-USER", func() { eachIPTables(t, a, "-F", "DOCKER-USER") }},
		{"iptables -F FORWARD", func() { eachIPTables(t, a, "-F", "FORWARD") }},
		{"nft flush ruleset", func() { a.Run(t, "nft", "flush", "ruleset") }},
		{"iptables -P FORWARD DROP", dropForwarded},
	} {
		fault.do()
		flowing.awaitNext(t, fault.name)
	}
	flowing.stop(t, "filters cleared")
	for f, program := range map[ip.Family]string{ip.IPv4: "iptables", ip.IPv6: "ip6tables"} {
		if e.nftables || !e.filters(f) {
			// This Docker does not let anything through there: neither what is published nor what goes outside.
			a.Run(t, program, "-P", "FORWARD", "ACCEPT")
		}
	}
	requireHealsAfterDocker(t, a, b, e)
	requireNoticesNoTulled(t, a, b)
}

// eachIPTables runs iptables for each family, in which Docker may have no chains.
func eachIPTables(t *testing.T, c *container, args ...string) {
	t.Helper()
	for _, program := range []string{"iptables", "ip6tables"} {
		out, err := c.Try(t, append([]string{program, "-w", "5"}, args...)...)
		if err != nil && !strings.Contains(out, "No chain") {
			t.Fatal(err)
		}
	}
}

// requireHealsAfterDocker restarts Docker under a, which its containers do not outlive: time counts from when they are back.
func requireHealsAfterDocker(t *testing.T, a, b *container, e engine) {
	t.Helper()
	a.RestartDocker(t)
	a.awaitRunning(t)
	back := time.Now()
	a.inspect(t, "bridge")
	flowing := startStreams(t, a, b)
	if took := time.Since(back); took > maxCutOff {
		t.Errorf("Docker's restart: packets pass %v after %s is back, want at most %v", took, a.name, maxCutOff)
	}
	requirePublished(t, b, a, e)
	flowing.awaitNext(t, "Docker restarted")
	flowing.stop(t, "Docker restarted")
}

// awaitRunning waits until Docker has started the container again.
func (c *container) awaitRunning(t *testing.T) {
	t.Helper()
	c.Retry(t, healTimeout, c.name+" runs again", func() error {
		if out := c.Run(t, "docker", "inspect", "--format={{.State.Running}}", c.name); out != "true" {
			return fmt.Errorf("running is %s", out)
		}
		return nil
	})
}

// requireNoticesNoTulled restarts tulled under a, which costs no packet.
func requireNoticesNoTulled(t *testing.T, a, b *container) {
	t.Helper()
	flowing := startStreams(t, a, b)
	if err := a.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	flowing.awaitNext(t, "tulled stopped")
	if err := a.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := a.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	flowing.awaitNext(t, "tulled started")
	for name, report := range flowing.stop(t, "tulled restarted") {
		if report.Lost != 0 {
			t.Errorf("tulled restarted: %s: %s, want none lost", name, report)
		}
	}
}

// open enters the container as it runs now.
func (c *container) open(t *testing.T) *lab.Container {
	t.Helper()
	pid := c.Run(t, "docker", "inspect", "--format={{.State.Pid}}", c.name)
	opened, err := c.OpenContainer(c.String()+"/"+c.name, c.File(filepath.Join("/proc", pid, "ns/net")), c.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := opened.Close(); err != nil {
			t.Error(err)
		}
	})
	return opened
}

// streams flow between two containers both ways in both families, by name.
type streams map[string]*lab.Stream

// startStreams returns once packets pass on all of them.
func startStreams(t *testing.T, a, b *container) streams {
	t.Helper()
	ends := []*lab.Container{a.open(t), b.open(t)}
	list := streams{}
	var starting sync.WaitGroup
	var filling sync.Mutex
	for i, from := range ends {
		to := ends[1-i]
		for _, family := range ip.Families() {
			name := fmt.Sprintf("%s to %s over %s", from, to, family)
			starting.Go(func() {
				s, err := lab.StartStream(t.Context(), lab.StreamConfig{From: from, To: to, Family: family, PerSecond: streamRate})
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(func() { s.Stop() })
				filling.Lock()
				defer filling.Unlock()
				list[name] = s
			})
		}
	}
	starting.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return list
}

// awaitNext fails the test unless every stream flows, from now on or soon.
func (list streams) awaitNext(t *testing.T, after string) {
	t.Helper()
	for name, s := range list {
		if err := s.AwaitNext(t.Context(), maxCutOff); err != nil {
			t.Errorf("%s: %s: %v", after, name, err)
		}
	}
}

// stop fails the test if a stream was cut off for longer than it may.
func (list streams) stop(t *testing.T, after string) map[string]lab.StreamReport {
	t.Helper()
	// All at once: what is lost is waited for.
	var stopping sync.WaitGroup
	for _, s := range list {
		stopping.Go(func() { s.Stop() })
	}
	stopping.Wait()
	reports := map[string]lab.StreamReport{}
	for name, s := range list {
		report := s.Stop()
		t.Logf("%s: %s: %s", after, name, report)
		if report.LongestGap > maxCutOff {
			t.Errorf("%s: %s: cut off for %v, want at most %v", after, name, report.LongestGap, maxCutOff)
		}
		reports[name] = report
	}
	return reports
}
