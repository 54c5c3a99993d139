package main

import (
	"testing"
	"time"

	"tulle/internal/agent"
	"tulle/ip"
)

func TestFastPathLine(t *testing.T) {
	for want, st := range map[string]agent.FastPathStatus{
		"fast path off: the kernel refuses; twice": {FastPathState: ip.FastPathState{Reason: "the kernel refuses\ntwice"}},
		"fast path on (tcx, 12 containers), 97 % of 1.2 GB in the last 10 s": {
			FastPathState: ip.FastPathState{On: true, Hook: "tcx", Ports: 12}, Recent: agent.FastPathShare{FastBytes: 1_179_000_000, Bytes: 1_200_000_000, Over: 10 * time.Second}},
		"fast path on, partly: vethA has a shaper (clsact, 1 container), no traffic in the last 10 s": {
			FastPathState: ip.FastPathState{On: true, Hook: "clsact", Ports: 1, Partly: "vethA has a shaper"}, Recent: agent.FastPathShare{Over: 10 * time.Second}},
		"fast path paused for 5m0s (tcx, 2 containers), no traffic measured yet": {FastPathState: ip.FastPathState{On: true, Hook: "tcx", Ports: 2, Paused: 5*time.Minute - 1}},
		"fast path on (tcx, 0 containers), no traffic measured yet":              {FastPathState: ip.FastPathState{On: true, Hook: "tcx"}},
	} {
		if st.Recent.Bytes > 0 {
			st.Recent.FastBytes = st.Recent.Bytes * 979 / 1000
		}
		if got := fastPathLine(st); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 9949: "9.9 kB", 9950: "10 kB", 999_499: "999 kB", 999_500: "1.0 MB", 1 << 63: "9.2 EB"} {
		if got := size(n); got != want {
			t.Errorf("%d bytes are %q, want %q", n, got, want)
		}
	}
}
