package main

import (
	"fmt"
	"time"

	"tulle/internal/agent"
)

// fastPathLine says how the fast path of a host stands.
func fastPathLine(st agent.FastPathStatus) string {
	if !st.On {
		return "fast path off: " + shown(st.Reason)
	}
	line := "fast path on"
	if st.Paused > 0 {
		line = "fast path paused for " + st.Paused.Round(time.Second).String()
	}
	if st.Partly != "" {
		line += ", partly: " + shown(st.Partly)
	}
	containers := fmt.Sprintf("%d containers", st.Ports)
	if st.Ports == 1 {
		containers = "1 container"
	}
	if st.Hook != "" {
		containers = shownName(st.Hook) + ", " + containers
	}
	return fmt.Sprintf("%s (%s), %s", line, containers, recentShare(st.Recent))
}

// recentShare says how much of the traffic between hosts was fast. A share is rounded down: all is said only of all.
func recentShare(s agent.FastPathShare) string {
	over := s.Over.Round(time.Second) / time.Second
	switch {
	case over == 0:
		return "no traffic measured yet"
	case s.Bytes == 0:
		return fmt.Sprintf("no traffic in the last %d s", over)
	}
	return fmt.Sprintf("%d %% of %s in the last %d s", int(100*float64(s.FastBytes)/float64(s.Bytes)), size(s.Bytes), over)
}

// size prints a number of bytes with two digits at least.
func size(n uint64) string {
	unit, value := "B", float64(n)
	for _, larger := range []string{"kB", "MB", "GB", "TB", "PB", "EB"} {
		if value < 999.5 {
			break
		}
		unit, value = larger, value/1000
	}
	if unit == "B" || value >= 9.95 {
		return fmt.Sprintf("%.0f %s", value, unit)
	}
	return fmt.Sprintf("%.1f %s", value, unit)
}
