//go:build linux

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tulle/internal/doctor"
	"tulle/internal/trouble"
)

func TestPrintReport(t *testing.T) {
	var out bytes.Buffer
	printDiagnosis(&out, doctor.Report{
		Findings: []doctor.Finding{
			{Code: trouble.BridgeDown, Host: "h1", Text: "cni0 is down: its containers reach nobody", Fix: []string{"ip link set dev cni0 up"}, Undo: []string{"ip link set dev cni0 down"}, Sure: doctor.Certain,
				Follows: []doctor.Finding{{Code: trouble.RouteShadowed, Host: "h1"}, {Code: trouble.RouteShadowed, Host: "h1"}, {Code: trouble.PeerUnreachable, Host: "h2"}}},
			{Code: trouble.PeerNarrow, Host: "h\x1b[2J", Text: "a\nb", Remedy: "Raise it.", Sure: doctor.Likely},
		},
		Advice: []doctor.Finding{{Code: trouble.UplinkOther, Host: "h1", Text: "it would be eth1"}},
		Untold: []doctor.Untold{{Code: trouble.ConntrackFull, Host: "h1", Why: "counters: none"}, {Code: trouble.NeighborsFull, Host: "h1", Why: "counters: none"}},
	})
	if diff := cmp.Diff(`1. h1: cni0 is down: its containers reach nobody (bridge.down)
     fix   ip link set dev cni0 up
     undo  ip link set dev cni0 down
     follows: peer.unreachable on h2, route.shadowed on h1

2. "h\x1b[2J": a; b (peer.narrow, likely)
     do    Raise it.
advice: it would be eth1 (uplink.other)
not told of h1: counters: none
`, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestVerdict(t *testing.T) {
	for want, r := range map[int]doctor.Report{
		exitOK: {}, exitFailed: {Findings: []doctor.Finding{{}}, Untold: []doctor.Untold{{}}}, exitUntold: {Untold: []doctor.Untold{{}}},
	} {
		code := exitOK
		if err := verdict(r); err != nil {
			code = err.(*commandError).code
		}
		if code != want {
			t.Errorf("%+v: exit code %d, want %d", r, code, want)
		}
	}
}

// What is safe is done, also where it is folded below its cause, and what takes it back is printed; nothing else is.
func TestCarryOut(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	report := doctor.Report{Findings: []doctor.Finding{
		{Code: trouble.DaemonStopped, Host: "h1", Fix: []string{"touch " + file("other")}, Safe: true, Follows: []doctor.Finding{
			{Code: trouble.ForwardOff, Fix: []string{"touch " + file("a"), "touch " + file("b")}, Undo: []string{"rm a"}, Safe: true}}},
		{Code: trouble.ForwardOff, Subject: "x", Fix: []string{"touch " + file("unsafe")}},
	}}
	var out bytes.Buffer
	err := carryOut(t.Context(), &out, report, trouble.ForwardOff)
	if failed, ok := err.(*commandError); !ok || failed.code != exitFailed {
		t.Errorf("one is left, and it says %v", err)
	}
	if want := "did  touch " + file("a") + "\ndid  touch " + file("b") + "\nundo rm a\nleft x: "; !strings.HasPrefix(out.String(), want) {
		t.Errorf("printed %q, want %q", &out, want)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("made %v, %v, want a and b", entries, err)
	}
	if err := carryOut(t.Context(), &out, report, "no.such"); err == nil || !strings.Contains(err.Error(), `"no.such"`) {
		t.Errorf("a code that no finding has: %v", err)
	}
	report.Findings[0].Fix = []string{"false"}
	if err := carryOut(t.Context(), &out, report, trouble.DaemonStopped); err == nil || !strings.Contains(err.Error(), "run false") {
		t.Errorf("a fix that fails: %v", err)
	}
	out.Reset()
	report.Findings[0].Fix, report.Findings[0].Undo = []string{"true", "false"}, []string{"rm c"}
	if err := carryOut(t.Context(), &out, report, trouble.DaemonStopped); err == nil || out.String() != "did  true\nundo rm c\n" {
		t.Errorf("a fix that fails halfway: %v, printed %q", err, &out)
	}
}

// A check that could not be made is none that was passed.
func TestPrintReportOfHalf(t *testing.T) {
	var out bytes.Buffer
	printDiagnosis(&out, doctor.Report{Untold: []doctor.Untold{{Host: "h2", Why: "its tulled is silent"}}})
	if text := out.String(); strings.Contains(text, "checks") || !strings.Contains(text, "not all") {
		t.Errorf("printed %q", text)
	}
}
