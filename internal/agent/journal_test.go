package agent

import (
	"context"
	"strings"
	"testing"
	"time"

	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/ip/iptest"
)

// Every repair has one line, which names who made it necessary; a contest has a few, however long it lasts.
func TestRepairsAreLogged(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		var log lines
		h := w.hosts[0]
		h.log = log.handler()
		w.start()
		w.converged(soon)
		route := h.owned().Routes[0]
		undo := func(times int, every time.Duration) (repairs, contests int) {
			before := len(log.String())
			for range times {
				h.external(ip.Op{Verb: ip.Delete, Old: route})
				<-time.After(every)
			}
			w.converged(soon)
			text := log.String()[before:]
			blamed := strings.Count(text, "after="+iptest.Outsider().String())
			if repairs = strings.Count(text, "kernel changed"); blamed != repairs {
				t.Errorf("%d of %d repairs name who made them necessary:\n%s", blamed, repairs, text)
			}
			return repairs, strings.Count(text, "msg=trouble code=kernel.contested more=") + strings.Count(text, "msg=trouble code=kernel.contested text=\"contested by "+iptest.Outsider().String())
		}
		if repairs, contests := undo(3, contestGap); repairs != 3 || contests != 0 {
			t.Errorf("%d lines about 3 repairs and %d about contests:\n%s", repairs, contests, log.String())
		}
		if repairs, contests := undo(100, time.Second); repairs != contestAfter-1 || contests != 1 {
			t.Errorf("%d lines about repairs and %d about a contest:\n%s", repairs, contests, log.String())
		}
		w.within(contestGap+soon, "contest over", func(*node) bool { return len(h.texts(trouble.KernelContested)) == 0 })
	})
}

// between is a kernel that another program changes after a pass has begun and before the pass reads it.
type between struct {
	ip.Kernel
	change   func(ip.Op)
	changes  chan ip.Op
	notified chan struct{}
	late     time.Duration // until that is told; zero: before the pass reads it
}

func (b between) Watch(ctx context.Context, notify func(ip.Actor)) error {
	return b.Kernel.Watch(ctx, func(by ip.Actor) {
		if by != (ip.Actor{}) {
			<-time.After(b.late)
		}
		notify(by)
		if by != (ip.Actor{}) {
			b.notified <- struct{}{}
		}
	})
}

func (b between) Snapshot(ctx context.Context, scope ip.Scope) (ip.Snapshot, error) {
	select {
	case op := <-b.changes:
		b.change(op)
		if b.late == 0 {
			<-b.notified
		}
	default:
	}
	return b.Kernel.Snapshot(ctx, scope)
}

// What happens after a pass began and before it reads the kernel is repaired by that pass, whose line names who did it, even if that is told when it has been repaired.
func TestRepairNamesWhoActedDuringThePass(t *testing.T) {
	for name, late := range map[string]time.Duration{"told at once": 0, "told later": 40 * time.Millisecond} {
		t.Run(name, func(t *testing.T) { repairNamesWhoActed(t, late) })
	}
}

func repairNamesWhoActed(t *testing.T, late time.Duration) {
	t.Helper()
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		var log lines
		h := w.hosts[0]
		h.log = log.handler()
		kernel := between{h.kernel, func(op ip.Op) { h.external(op) }, make(chan ip.Op, 1), make(chan struct{}, 16), late}
		h.change = func(cfg *Config) { cfg.Kernel = kernel }
		w.start()
		w.converged(soon)
		before := len(log.String())
		kernel.changes <- ip.Op{Verb: ip.Delete, Old: h.owned().Routes[0]}
		h.agent.inbox.Wake()
		w.within(soon, "undone", func(*node) bool { return len(kernel.changes) == 0 })
		w.converged(soon)
		text := log.String()[before:]
		if repairs := strings.Count(text, "kernel changed"); repairs != 1 || !strings.Contains(text, "after="+iptest.Outsider().String()) {
			t.Errorf("%d lines about repairs, want one that names %v:\n%s", repairs, iptest.Outsider(), text)
		}
	})
}
