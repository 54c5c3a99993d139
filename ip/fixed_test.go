package ip

import (
	"slices"
	"syscall"
	"testing"
)

func TestSettable(t *testing.T) {
	const dev = "flannel.1"
	set := func(key, link string, optional bool) Op {
		return Op{Verb: Add, New: Sysctl{Key: key, Value: "1", Link: link, Optional: optional}}
	}
	forward, disable, new6, refused := set("forward", "", false), set("disable", dev, true), set("new", "flannel-v6.1", true), set("refused", dev, true)
	disable.Verb, disable.Old = Replace, Sysctl{Key: "disable", Value: "0", Link: dev, Optional: true}
	absent, needed := set("absent", dev, true), set("needed", dev, false)
	conntrack := set("conntrack", "", true)
	link := Op{Verb: Add, New: Link{Name: "flannel-v6.1"}}
	plan := Plan{forward, link, disable, new6, absent, conntrack, needed, refused}
	snap := Snapshot{Owned: State{Links: []Link{{Name: dev}}}, Fixed: map[string]bool{"forward": true, "disable": true}}
	settable, unset := snap.Settable(plan, map[string]bool{"refused": true})
	if want := (Plan{link, new6, needed}); !slices.Equal(settable, want) {
		t.Errorf("settable:\n%swant:\n%s", settable, want)
	}
	if want := (Plan{forward, disable, absent, conntrack, refused}); !slices.Equal(unset, want) {
		t.Errorf("unset:\n%swant:\n%s", Plan(unset), want)
	}
	if settable, unset := (Snapshot{}).Settable(plan, nil); len(settable) != len(plan)-1 || !slices.Equal(unset, Plan{conntrack}) {
		t.Errorf("where all can be written: %v, %v, want the plan but for what does not exist", settable, unset)
	}
}

func TestRefused(t *testing.T) {
	setting := OpError{Op{Verb: Add, New: Sysctl{Key: "x"}}, syscall.EROFS}
	route := OpError{Op{Verb: Add, New: Route{Link: "eth0"}}, syscall.ENETUNREACH}
	settings, rest := OpErrors{setting, route}.Refused()
	if len(rest) != 1 || rest[0].Err != syscall.ENETUNREACH || len(settings) != 1 || !settings["x"] {
		t.Errorf("%v, %v, want the setting apart from the route", settings, rest)
	}
}
