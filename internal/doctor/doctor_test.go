package doctor

import (
	"slices"
	"testing"

	"tulle/internal/trouble"
)

// Whatever has a code has its place in the causal order, once.
func TestEveryCodeHasACheck(t *testing.T) {
	var have []trouble.Code
	for _, c := range Checks() {
		if slices.Contains(have, c.Code) || c.Title == "" || len(c.Reads) == 0 {
			t.Errorf("%s is there twice, or lacks something", c.Code)
		}
		have = append(have, c.Code)
	}
	for i, c := range Checks() {
		for _, follows := range c.Brings {
			if follows == c.Code {
				continue // several of them stand for themselves
			}
			if at := slices.Index(have, follows); at < i {
				t.Errorf("%s brings %s about, which comes before it", c.Code, follows)
			}
		}
	}
	for _, k := range append(trouble.Kinds(), trouble.DoctorKinds()...) {
		if !slices.Contains(have, k.Code) {
			t.Errorf("%s has no check", k.Code)
		}
	}
	if len(have) != len(trouble.Kinds())+len(trouble.DoctorKinds()) {
		t.Errorf("there are %d checks", len(have))
	}
}

// What follows from a finding stands below it, whatever host it is of; a second one of the same code stands for itself.
func TestFold(t *testing.T) {
	f := func(code trouble.Code, host string) Finding { return Finding{Code: code, Host: host} }
	got := fold([]Finding{f(trouble.UplinkDown, "h1"), f(trouble.StoreUnreachable, "h1"), f(trouble.ForwardBlocked, "h1"), f(trouble.PeerUnreachable, "h2")})
	if len(got) != 2 || len(got[0].Follows) != 2 || got[0].Follows[1].Host != "h2" || got[1].Code != trouble.ForwardBlocked {
		t.Errorf("folded to %+v", got)
	}
	if got := fold([]Finding{f(trouble.StoreUnreachable, "h1"), f(trouble.StoreUnreachable, "h2")}); len(got) != 2 {
		t.Errorf("of two of a kind there are %+v", got)
	}
}

// A check that could not be made is told, with the reason, and is not passed.
func TestUntold(t *testing.T) {
	r := Diagnose(Case{Here: Facts{Node: "h1", Daemon: Daemon{Running: true}, Status: &Status{Ready: true}, Unread: []Unread{{PartConntrack, "no right"}}}})
	want := []Untold{{trouble.ConntrackFull, "h1", "connection tracking: no right"}}
	if !r.Healthy() || !slices.Equal(r.Untold, want) {
		t.Errorf("%+v, want %+v", r, want)
	}
}

// Of what tulled alone knows, nothing is passed while it does not run.
func TestUntoldWithoutDaemon(t *testing.T) {
	f := sound()
	f.Daemon, f.Last, f.Status = Daemon{Err: "no tulled answers"}, f.Status, nil
	r := Diagnose(Case{Here: f})
	for _, k := range trouble.Kinds() {
		if !slices.ContainsFunc(r.Untold, func(u Untold) bool { return u.Code == k.Code }) {
			t.Errorf("%s counts as well", k.Code)
		}
	}
	if slices.ContainsFunc(r.Untold, func(u Untold) bool { return u.Code == trouble.BridgeDown || u.Code == trouble.DaemonStopped }) {
		t.Errorf("too much is untold: %+v", r.Untold)
	}
}

// Advice is no finding: packets flow.
func TestAdvice(t *testing.T) {
	st := &Status{Troubles: []trouble.Trouble{trouble.New(trouble.UplinkOther, "eth0", "x")}, Count: map[trouble.Code]int{trouble.UplinkOther: 1}}
	r := Diagnose(Case{Here: Facts{Daemon: Daemon{Running: true}, Status: st}})
	if !r.Healthy() || len(r.Advice) != 1 || r.Advice[0].Code != trouble.UplinkOther {
		t.Errorf("%+v", r)
	}
}
