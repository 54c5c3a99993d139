package agent

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"tulle/ip"
	"tulle/subnet"
)

const (
	lasting   = 10 * time.Minute // how often a state that lasts is logged again
	recurring = time.Minute      // the same for what comes and goes
	mostLines = 10               // of one kind after one pass; the status holds them all
)

// journal logs what is new, so that neither a lasting trouble nor ten thousand bad leases fill a disk.
type journal struct {
	log      *slog.Logger
	throttle logThrottle
	reported map[subnet.Problem]bool // in the last pass
}

// applied logs that the kernel was changed, and by which processes it had been before, if by any: the same as often as every says.
func (j *journal) applied(plan ip.Plan, by []string, every time.Duration) {
	first := plan[0].Brief()
	if !j.throttle.due(first, every) {
		return
	}
	log := j.log
	if len(by) > 0 {
		log = log.With("after", strings.Join(by, ", "))
	}
	log.Info("kernel changed", "changes", len(plan), "first", first)
}

// passed logs how the status changed.
func (j *journal) passed(last, now Status) {
	every := lasting
	if now.Reason != last.Reason {
		every = recurring
	}
	// What is wrong with the store is the store's to log.
	if now.Reason != "" && now.Reason != now.Store && j.throttle.due(now.Reason, every) {
		level := slog.LevelWarn
		if now.Reason == errNoView.Error() || now.Reason == errAcquiring.Error() {
			level = slog.LevelDebug // every start comes by here
		}
		j.log.Log(context.Background(), level, "not ready", "reason", now.Reason)
	}
	if now.Degraded != "" && now.Degraded != last.Degraded && j.throttle.due(now.Degraded, every) {
		j.log.Warn("degraded", "reason", now.Degraded)
	}
	if now.Degraded == "" && last.Degraded != "" && j.throttle.due("confirmed", recurring) {
		j.log.Info("the store is in force again", "rev", now.Revision)
	}
	if now.Ready && !last.Ready && j.throttle.due("ready", recurring) {
		j.log.Info("ready", "subnet", now.Lease.Subnets, "peers", now.PeerCount)
	}
	if now.Pending != last.Pending && now.Pending != "" {
		j.log.Warn("restart pending", "reason", now.Pending)
	}
	j.dropped(last.Dropped, now.Dropped)
	for _, where := range now.Blocked {
		if !strings.Contains(now.Reason, where) && j.throttle.due(where, lasting) {
			j.log.Warn("packets may be dropped", "where", where)
		}
	}
	for _, what := range now.Advice {
		if !slices.Contains(last.Advice, what) && j.throttle.due(what, lasting) {
			j.log.Warn("advice", "what", what)
		}
	}
	j.contested(now.Contested)
	for _, bridge := range now.Stale {
		if j.throttle.due(bridge, lasting) {
			j.log.Warn("bridge hands out wrong addresses", "bridge", bridge)
		}
	}
	for _, v := range now.Violations {
		if j.throttle.due(v.String(), lasting) {
			j.log.Error("invariant violated", "invariant", v.Invariant, "detail", v.Detail)
		}
	}
	j.problems(now.Problems)
}

// dropped logs which packets are being dropped.
func (j *journal) dropped(last, now Dropped) {
	for _, kind := range []struct {
		what      string
		last, now uint64
	}{
		{"packets from strangers dropped", last.Strangers, now.Strangers},
		{"packets from peers dropped: not their own source", last.Forged, now.Forged},
		{"tunnelled packets of containers dropped", last.Injected, now.Injected},
		{"packets of containers dropped: not their own source", last.Spoofed, now.Spoofed},
	} {
		if kind.now > kind.last && j.throttle.due(kind.what, lasting) {
			j.log.Warn(kind.what, "packets", kind.now)
		}
	}
}

// contested logs one line for all that has become contested at once: what undoes one route often undoes them all.
func (j *journal) contested(all []string) {
	fresh := slices.DeleteFunc(slices.Clone(all), func(what string) bool {
		_, object, _ := strings.Cut(what, ": ")
		return !j.throttle.due("contested: "+object, lasting)
	})
	switch len(fresh) {
	case 0:
	case 1:
		j.log.Warn("contested", "what", fresh[0])
	default:
		j.log.Warn("contested", "what", fresh[0], "more", len(fresh)-1)
	}
}

func (j *journal) problems(ps []subnet.Problem) {
	fresh := 0
	reported := make(map[subnet.Problem]bool, len(ps))
	for _, p := range ps {
		reported[p] = true
		if j.reported[p] {
			continue
		}
		if fresh++; fresh <= mostLines {
			j.log.Warn("left out", "key", p.Key, "reason", p.Reason)
		}
	}
	if fresh > mostLines {
		j.log.Warn("more is left out: see tulle status", "more", fresh-mostLines, "all", len(ps))
	}
	j.reported = reported
}

// logThrottle tells which texts are worth a line: those that have not had one for a while.
type logThrottle map[string]time.Time

func (t logThrottle) due(text string, every time.Duration) bool {
	const most = 64 // texts; when more are needed they differ in some number, and the old ones do not come again
	now := time.Now()
	if at, ok := t[text]; ok && now.Sub(at) < every {
		return false
	}
	if len(t) >= most {
		clear(t)
	}
	t[text] = now
	return true
}
