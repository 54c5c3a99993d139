package agent

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tulle/ip"
)

const (
	contestAfter = 4                // repairs of one object, each soon after the last, and somebody else keeps undoing them
	contestGap   = 15 * time.Second // without a repair, and the contest is over
	contestMost  = 16               // objects looked at in one repair; a flushed table is not a contest about ten thousand routes
)

// contests knows what has to be repaired again and again, and which programs undo it.
type contests map[string]*contest

type contest struct {
	repairs     int
	first, last time.Time
	by          []string
}

// repaired takes note of a plan that made good what others had changed. It reports whether the first object is contested.
func (cs contests) repaired(plan ip.Plan, by []string) bool {
	now := time.Now()
	cs.forget(now)
	for _, op := range plan[:min(len(plan), contestMost)] {
		text := op.Brief()
		c := cs[text]
		if c == nil {
			c = &contest{first: now}
			cs[text] = c
		}
		c.repairs++
		c.last = now
		c.by = mergeActors(c.by, by)
	}
	return cs[plan[0].Brief()].repairs >= contestAfter
}

func (cs contests) forget(now time.Time) {
	maps.DeleteFunc(cs, func(_ string, c *contest) bool { return now.Sub(c.last) >= contestGap })
}

// lasting describes the contests that are going on.
func (cs contests) lasting() []string {
	cs.forget(time.Now())
	var texts []string
	for what, c := range cs {
		if c.repairs < contestAfter {
			continue
		}
		by := cmp.Or(strings.Join(c.by, ", "), "a process that the kernel does not name")
		texts = append(texts, fmt.Sprintf("contested by %s, which undid %d times since %s: %s", by, c.repairs, c.first.Format(time.TimeOnly), what))
	}
	slices.Sort(texts)
	return texts
}

// end returns when the first contest is over if no more is repaired; false if there is none.
func (cs contests) end() (end time.Time, ok bool) {
	for _, c := range cs {
		if over := c.last.Add(contestGap); c.repairs >= contestAfter && (!ok || over.Before(end)) {
			end, ok = over, true
		}
	}
	return end, ok
}

// mostActors bounds the names that are kept: a script that runs ip(8) in a loop is another process each time.
const mostActors = 3

// mergeActors adds names, the latest last. Of one program the latest process is enough.
func mergeActors(have, more []string) []string {
	program := func(actor string) string { name, _, _ := strings.Cut(actor, "["); return name }
	for _, one := range more {
		have = slices.DeleteFunc(slices.Clone(have), func(h string) bool { return program(h) == program(one) })
		have = append(have, one)
	}
	return have[max(0, len(have)-mostActors):]
}
