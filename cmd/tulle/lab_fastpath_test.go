//go:build linux

package main

import (
	"testing"

	"tulle/internal/lab"
	"tulle/ip"
)

func TestLabFastPath(t *testing.T) {
	on := func(fast, slow uint64) ip.FastPathState {
		return ip.FastPathState{On: true, Hook: "tcx", Out: ip.FastTraffic{FastPackets: fast, SlowPackets: slow}, In: ip.FastTraffic{FastPackets: fast}}
	}
	off := ip.FastPathState{Reason: "no bpf here"}
	partly := on(0, 0)
	partly.Partly = "veth7 has a shaper"
	l := &lab.Lab{Hosts: []*lab.Host{{Name: "h1"}, {Name: "h2"}}}
	for _, tt := range []struct {
		name          string
		before, after [2]ip.FastPathState
		want          string
	}{
		{"on", [2]ip.FastPathState{on(10, 10), on(0, 500)}, [2]ip.FastPathState{on(50, 12), on(4, 500)}, "on (tcx), 97 % of the packets between containers of different hosts"},
		{"idle", [2]ip.FastPathState{on(7, 1), on(7, 1)}, [2]ip.FastPathState{on(7, 1), on(7, 1)}, "on (tcx)"},
		{"off", [2]ip.FastPathState{off, off}, [2]ip.FastPathState{off, off}, "off: no bpf here"},
		{"mixed", [2]ip.FastPathState{on(0, 0), off}, [2]ip.FastPathState{on(3, 6), off}, "on (tcx), not everywhere, 50 % of the packets between containers of different hosts: h2: no bpf here"},
		{"partly", [2]ip.FastPathState{partly, on(0, 0)}, [2]ip.FastPathState{partly, on(1, 0)}, "on (tcx), 100 % of the packets between containers of different hosts: h1: veth7 has a shaper"},
	} {
		if got := newLabFastPath(l, tt.before[:], tt.after[:]).String(); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
