package agent

import (
	"strings"
	"testing"
	"time"

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
			return repairs, strings.Count(text, "msg=contested what=\"contested by "+iptest.Outsider().String())
		}
		if repairs, contests := undo(3, contestGap); repairs != 3 || contests != 0 {
			t.Errorf("%d lines about 3 repairs and %d about contests:\n%s", repairs, contests, log.String())
		}
		if repairs, contests := undo(100, time.Second); repairs != contestAfter-1 || contests != 1 {
			t.Errorf("%d lines about repairs and %d about a contest:\n%s", repairs, contests, log.String())
		}
		w.within(contestGap+soon, "contest over", func(*node) bool { return len(h.agent.Status().Contested) == 0 })
	})
}
