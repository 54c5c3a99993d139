package agent

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"tulle/internal/logthrottle"
	"tulle/internal/trouble"
	"tulle/ip"
)

const mostLines = 10 // of one kind after one pass; the status holds them all

// journal logs what is new, so that neither a lasting trouble nor ten thousand bad leases fill a disk.
type journal struct {
	log      *slog.Logger
	throttle logthrottle.Throttle
}

// applied logs that the kernel was changed, and by which processes it had been before, if by any: the same as often as every says.
func (j *journal) applied(plan ip.Plan, by []string, every time.Duration) {
	first := plan[0].Brief()
	if !j.throttle.Due(first, every) {
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
	for i, n := range now.Networks {
		log, was := named(j.log, n.Name), last.Networks[i]
		if n.Degraded == "" && was.Degraded != "" && j.throttle.Due("confirmed "+n.Name, logthrottle.Recurring) {
			log.Info("the store is in force again", "rev", n.Revision)
		}
		if n.Ready && !was.Ready && j.throttle.Due("ready "+n.Name, logthrottle.Recurring) {
			log.Info("ready", "subnet", n.Lease.Subnets, "peers", n.PeerCount)
		}
	}
	j.dropped(last.Dropped, now.Dropped)
	j.troubles(last.Troubles, now.Troubles)
}

// troubles logs those that are new: a few of each code, and how many more there are.
func (j *journal) troubles(last, now trouble.List) {
	fresh := map[trouble.Code][]trouble.Trouble{}
	var codes []trouble.Code
	for _, t := range now.All {
		same := func(other trouble.Trouble) bool { return topic(other) == topic(t) }
		isNew, every := !slices.ContainsFunc(last.All, same), logthrottle.Lasting
		if isNew && t.Severity == trouble.Error {
			every = logthrottle.Recurring
		}
		// What is wrong with the store is the store's to log. Only what keeps the host from being ready is worth a line again.
		if t.Code == trouble.StoreUnreachable || !isNew && t.Severity != trouble.Error || !j.throttle.Due(topic(t), every) {
			continue
		}
		if fresh[t.Code] == nil {
			codes = append(codes, t.Code)
		}
		fresh[t.Code] = append(fresh[t.Code], t)
	}
	for _, code := range codes {
		most := mostLines
		if code == trouble.KernelContested {
			most = 1 // what undoes one route often undoes them all
		}
		all := fresh[code]
		for i, t := range all[:min(len(all), most)] {
			log := named(j.log, t.Network).With("code", code)
			if t.Subject != "" && !strings.Contains(t.Text, t.Subject) {
				log = log.With("subject", t.Subject)
			}
			if more := len(all) - most; i == most-1 && more > 0 {
				log = log.With("more", max(more, now.Count[code]-most))
			}
			log.Log(context.Background(), levelOf(code), "trouble", "text", t.Text)
		}
	}
}

// topic tells one trouble from another, of which the text may go on to change.
func topic(t trouble.Trouble) string {
	return string(t.Code) + " " + t.Network + " " + cmp.Or(t.Subject, t.Text)
}

func levelOf(code trouble.Code) slog.Level {
	switch code {
	case trouble.StoreWaiting, trouble.LeaseWaiting:
		return slog.LevelDebug // every start comes by here
	case trouble.Fault:
		return slog.LevelError
	}
	return slog.LevelWarn
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
		if kind.now > kind.last && j.throttle.Due(kind.what, logthrottle.Lasting) {
			j.log.Warn(kind.what, "packets", kind.now)
		}
	}
}
