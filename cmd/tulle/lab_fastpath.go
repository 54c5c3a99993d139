//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"tulle/internal/lab"
	"tulle/ip"
)

// labFastPath is how the fast path of a lab stands.
type labFastPath struct {
	// On is whether every host has it, and Hook what it hangs by there.
	On   bool   `json:"on"`
	Hook string `json:"hook,omitempty"`
	// Reason says why and where it is off, as a whole or in part.
	Reason string `json:"reason,omitempty"`
	// FastPackets are those of the Packets between containers of different hosts that took it, of which both hosts count each.
	FastPackets uint64 `json:"fastPackets"`
	Packets     uint64 `json:"packets"`
}

// fastPathStates are how it stands on each host. One whose daemon does not answer has none.
func fastPathStates(ctx context.Context, l *lab.Lab) []ip.FastPathState {
	states := make([]ip.FastPathState, len(l.Hosts))
	for i, host := range l.Hosts {
		var err error
		if states[i], err = host.FastPath(ctx); err != nil {
			states[i] = ip.FastPathState{Reason: "tulled does not answer"}
		}
	}
	return states
}

func newLabFastPath(l *lab.Lab, before, after []ip.FastPathState) labFastPath {
	f := labFastPath{On: true}
	var reasons []string
	where := map[string][]string{}
	for i, st := range after {
		f.On = f.On && st.On
		if st.Hook != "" {
			f.Hook = st.Hook
		}
		for _, reason := range []string{st.Reason, st.Partly, st.Failed} {
			if reason != "" && where[reason] == nil {
				reasons = append(reasons, reason)
			}
			where[reason] = append(where[reason], l.Hosts[i].Name)
		}
		was := before[i]
		fast := st.Out.FastPackets + st.In.FastPackets - was.Out.FastPackets - was.In.FastPackets
		f.FastPackets += fast
		f.Packets += fast + st.Out.SlowPackets + st.In.SlowPackets - was.Out.SlowPackets - was.In.SlowPackets
	}
	for i, reason := range reasons {
		if hosts := where[reason]; len(hosts) < len(after) {
			reasons[i] = strings.Join(hosts, ", ") + ": " + reason
		}
	}
	f.Reason = strings.Join(slices.Compact(reasons), "; ")
	return f
}

// String says it in a line.
func (f labFastPath) String() string {
	state := "off"
	if f.On {
		state = fmt.Sprintf("on (%s)", f.Hook)
	} else if f.Hook != "" {
		state = fmt.Sprintf("on (%s), not everywhere", f.Hook)
	}
	if f.Packets > 0 {
		state += fmt.Sprintf(", %d %% of the packets between containers of different hosts", f.FastPackets*100/f.Packets)
	}
	if f.Reason == "" {
		return state
	}
	return state + ": " + f.Reason
}
