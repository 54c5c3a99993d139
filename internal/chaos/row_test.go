//go:build linux

package chaos

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"tulle/internal/lab"
	"tulle/ip"
)

// perSecond is the rate of each stream, in packets. Under the race detector, where twenty streams would take most of a core, it is less.
func perSecond() int {
	if testing.Short() {
		return 200
	}
	return 1000
}

// row is one script under way, and what was measured of it.
type row struct {
	w       *world
	script  string
	name    string
	purpose string

	// What the script allows.
	recovery time.Duration // from its last step to all being as before
	lossy    []string      // hosts whose streams may lose packets
	gap      time.Duration // for how long at most

	streams   []stream
	opponents []*exec.Cmd // that fight with tulled
	step      time.Time   // when the last step ended
	log       func(format string, args ...any)
	logs      map[string]int64

	outcome outcome
}

// stream is one that runs from a host to another.
type stream struct {
	*lab.Stream
	from, to *lab.Host
	family   ip.Family
}

func (s stream) String() string { return fmt.Sprintf("%s from %s to %s", s.family, s.from, s.to) }

// outcome is a line of the report.
type outcome struct {
	name, purpose     string
	sent, lost        int
	gap               time.Duration
	recovery, allowed time.Duration
	err               error
}

func newRow(w *world, script string) *row {
	name := strings.TrimSuffix(filepath.Base(script), ".txtar")
	return &row{w: w, script: script, name: name, logs: make(map[string]int64)}
}

// rowKey is where a script finds its row.
type rowKey struct{}

func (r *row) setup(env *testscript.Env) (err error) {
	env.Values[rowKey{}] = r
	if r.purpose, err = purpose(r.script); err != nil {
		return err
	}
	for _, host := range r.w.lab.Hosts {
		if info, err := os.Stat(host.Log()); err == nil {
			r.logs[host.Name] = info.Size()
		}
	}
	// What was before is not this row's.
	return errors.Join(r.w.history.verdict(), r.w.beliefs.verdict())
}

// purpose is the first line of the comment that a script begins with.
func purpose(script string) (string, error) {
	file, err := os.Open(script)
	if err != nil {
		return "", err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), "# ") {
		return "", fmt.Errorf("%s does not begin with a comment that says what it is for", script)
	}
	return strings.TrimPrefix(lines.Text(), "# "), nil
}

// startStreams starts one stream from each host to each other: IPv4 one way,
// IPv6 the other.
func (r *row) startStreams() error {
	for i, from := range r.w.hosts {
		for j, to := range r.w.hosts {
			if i == j {
				continue
			}
			family := ip.IPv4
			if (i+j)%2 == 0 != (i < j) {
				family = ip.IPv6
			}
			running, err := lab.StartStream(r.w.t.Context(), lab.StreamConfig{
				From: from.Containers[0], To: to.Containers[0], Family: family, PerSecond: perSecond(),
			})
			if err != nil {
				return err
			}
			r.streams = append(r.streams, stream{Stream: running, from: from, to: to, family: family})
		}
	}
	return nil
}

// recover waits until all is as it was before the script, then ends the streams
// and weighs what they lost.
func (r *row) recover() error {
	began := r.step
	// Longer than allowed: a report says by how much.
	patience := r.recovery + convergeTimeout
	var obstacle error
	if err := r.w.await(patience, func() error {
		err := r.w.converged()
		if err != nil {
			obstacle = err
		}
		return err
	}); err != nil {
		return fmt.Errorf("not as before %w", err)
	}
	if obstacle != nil {
		r.log("as before after %v; the last obstacle was: %v", time.Since(began).Round(time.Millisecond), obstacle)
	}
	if err := r.w.sing(patience); err != nil {
		return err
	}
	r.outcome.recovery = time.Since(began)
	if err := r.w.awaitFast(); err != nil {
		return fmt.Errorf("not as fast as before %w", err)
	}
	if err := r.w.hush(patience); err != nil {
		return fmt.Errorf("not as before %w", err)
	}
	errs := r.weigh(began)
	if r.outcome.recovery > r.recovery {
		errs = append(errs, fmt.Errorf("recovered in %v, want at most %v", r.outcome.recovery.Round(time.Millisecond), r.recovery))
	}
	return errors.Join(append(errs, r.w.history.verdict(), r.w.beliefs.verdict(), r.w.violations())...)
}

// weigh ends the streams and tells which have lost what they should not have.
// While one that may lose still does, the network has not recovered.
func (r *row) weigh(began time.Time) (errs []error) {
	r.stop()
	for _, s := range r.streams {
		report := s.Stop()
		r.outcome.sent += report.Sent
		r.outcome.lost += report.Lost
		r.outcome.gap = max(r.outcome.gap, report.LongestGap)
		if report.Lost == 0 {
			continue
		}
		r.outcome.recovery = max(r.outcome.recovery, report.LastLost.Sub(began))
		switch {
		case !r.mayLose(s.from) && !r.mayLose(s.to):
			errs = append(errs, fmt.Errorf("stream %v: %v, want none lost", s, report))
		case report.LongestGap > r.gap:
			errs = append(errs, fmt.Errorf("stream %v: %v, want no gap longer than %v", s, report, r.gap))
		}
	}
	return errs
}

// stop ends all streams at once: each waits for packets under way.
func (r *row) stop() {
	var wg sync.WaitGroup
	for _, s := range r.streams {
		wg.Go(func() { s.Stop() })
	}
	wg.Wait()
}

func (r *row) mayLose(host *lab.Host) bool {
	return slices.Contains(r.lossy, host.Name) || slices.Contains(r.lossy, "all")
}

// finish ends what a script that failed has left running.
func (r *row) finish(passed bool) outcome {
	r.stop()
	if err := r.peace(); err != nil && r.outcome.err == nil {
		passed, r.outcome.err = false, err
	}
	if r.outcome.sent == 0 {
		r.weigh(r.step)
	}
	r.outcome.name, r.outcome.purpose, r.outcome.allowed = r.name, r.purpose, r.recovery
	if !passed && r.outcome.err == nil {
		r.outcome.err = errors.New("the script failed")
	}
	return r.outcome
}

// logged are the lines that the daemon of a host has written since the script
// began.
func (r *row) logged(host *lab.Host) (string, error) {
	text, err := os.ReadFile(host.Log())
	if err != nil {
		return "", err
	}
	return string(text[r.logs[host.Name]:]), nil
}
