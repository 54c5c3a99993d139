package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/ip/iptest"
)

// What another program undoes again and again is repaired again and again, ever more slowly but within 2 seconds, and the
// status says what and by whom. One change alone is no contest.
func TestContestIsNamed(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		route := h.owned().Routes[0]
		there := func(*node) bool { return slices.Contains(h.owned().Routes, route) }
		contested := func() []string { return h.texts(trouble.KernelContested) }
		began := time.Now()
		passes := h.passes.Load()
		for round := range 20 {
			h.external(ip.Op{Verb: ip.Delete, Old: route})
			w.within(2*time.Second, "route back", there)
			if round == 0 {
				<-time.After(time.Second)
				if got := contested(); len(got) > 0 {
					t.Errorf("contested after one change: %q", got)
				}
			}
		}
		want := "contested by " + iptest.Outsider().String()
		if got := contested(); len(got) != 1 || !strings.HasPrefix(got[0], want) || !strings.Contains(got[0], route.Dst.String()) {
			t.Errorf("contested: %q, want one that begins with %q", got, want)
		}
		if n := h.passes.Load() - passes; time.Since(began) < 10*time.Second || n > 60 {
			t.Errorf("20 repairs took %v and %d passes, want them spaced out", time.Since(began), n)
		}
		<-time.After(2 * resyncEvery)
		if got := contested(); len(got) > 0 {
			t.Errorf("contested a minute after the last change: %q", got)
		}
	})
}
