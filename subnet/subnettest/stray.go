package subnettest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tulle/subnet"
)

// stray is a lease that uses the identity of a host which starts, and is not its own.
type stray struct {
	name  string
	claim func() subnet.Claim

	// What a host without a lease of its own gets while the stray's owner is silent: the stray's subnet, another, or none.
	inherits, waits bool
}

func strays() []stray {
	sameNode := func(hardware ...string) func() subnet.Claim {
		return func() subnet.Claim {
			claim := claimOf(9)
			claim.Attrs.Node, claim.Attrs.Hardware = "node-1", hardware
			return claim
		}
	}
	return []stray{
		{name: "NodeIDOnOtherHardware", claim: sameNode("board-9"), waits: true},
		{name: "NodeIDOnThisHardware", claim: sameNode("board-1"), inherits: true},
		{name: "NodeIDWithoutHardware", claim: sameNode(), inherits: true},
		{name: "Address", claim: func() subnet.Claim {
			claim := claimOf(9)
			claim.Attrs.Public.V4 = claimOf(1).Attrs.Public.V4
			return claim
		}},
	}
}

// own says which lease of its own a host finds when it starts.
type own int

const (
	noLease     own = iota
	fromThisRun     // of the daemon that ran before on this machine
	fromLastBoot
)

// strayTests is the table of what a host does that finds leases with its identity. Its own lease from before a restart
// is proof enough, and so is one of its hardware from before a reboot whose node id nobody answers to. Without it an answer turns
// the host down, whoever gave it, and silence from other hardware makes it wait.
func strayTests() map[string]func(*testing.T, Harness) {
	tests := map[string]func(*testing.T, Harness){}
	for _, s := range strays() {
		for age, put := range map[string]func(h Harness, stray, mine func()){
			"Older": func(_ Harness, stray, mine func()) { stray(); mine() },
			"Newer": func(_ Harness, stray, mine func()) { mine(); stray() },
		} {
			tests["Stray"+s.name+age+"BesideOwnLease"] = func(t *testing.T, h Harness) { s.beside(t, h, fromThisRun, put) }
			tests["Stray"+s.name+age+"AfterReboot"] = func(t *testing.T, h Harness) { s.beside(t, h, fromLastBoot, put) }
		}
		tests["Stray"+s.name+"Alone"] = s.alone
		for suffix, found := range map[string]own{"Alone": noLease, "BesideOwnLease": fromThisRun, "AfterReboot": fromLastBoot} {
			tests["Stray"+s.name+"Answers"+suffix] = func(t *testing.T, h Harness) { s.answers(t, h, found) }
		}
	}
	tests["StraysInNumbers"] = straysInNumbers
	return tests
}

// The leases of the host that starts and of the stray.
func mineAt() subnet.Subnets  { return v4("10.5.10.0/24") }
func strayAt() subnet.Subnets { return v4("10.5.20.0/24") }

// starter is the claim of the host that starts, and what the lease says that it finds as its own.
func starter(found own) (claim subnet.Claim, before subnet.Attrs) {
	claim = claimOf(1)
	claim.Attrs.Hardware = []string{"board-1", "card-1"}
	before = claim.Attrs
	if found == fromLastBoot {
		claim.Previous = mineAt()
		before.Instance, before.Hardware = "before-the-reboot", []string{"card-1"}
	}
	return claim, before
}

// beside starts a host that has a lease of its own, beside a stray whose owner is silent.
func (s stray) beside(t *testing.T, h Harness, found own, put func(h Harness, stray, mine func())) {
	h.Configure(network4())
	claim, lease := starter(found)
	attrs := s.claim().Attrs
	put(h, func() { h.Put(strayAt(), attrs, time.Hour) }, func() { h.Put(mineAt(), lease, time.Hour) })
	wantOwn(t, h, start(t, h, claim), attrs)
}

// wantOwn fails unless a host goes on with its own lease, and the stray is as it was.
func wantOwn(t *testing.T, h Harness, x *host, strayAttrs subnet.Attrs) {
	t.Helper()
	if got := x.subnets(); got != mineAt() {
		t.Errorf("the host holds %v, want its own %v", got, mineAt())
	}
	wantLeases(t, h, mineAt(), strayAt())
	wantLease(t, h, strayAt(), strayAttrs, false)
}

// alone starts a host that has no lease, beside a stray whose owner is silent.
func (s stray) alone(t *testing.T, h Harness) {
	h.Configure(network4())
	claim, _ := starter(noLease)
	attrs := s.claim().Attrs
	h.Put(strayAt(), attrs, time.Hour)
	x, err := tryStart(t, h, claim)
	var conflict *subnet.ConflictError
	switch {
	case s.waits:
		if !errors.As(err, &conflict) || !conflict.Silent {
			t.Errorf("Acquire = %v, want a conflict with an owner that is silent", err)
		}
		wantLeases(t, h, strayAt())
	case err != nil:
		t.Errorf("Acquire = %v, want a lease", err)
	case s.inherits:
		wantLeases(t, h, strayAt())
	default:
		wantLeases(t, h, strayAt(), x.subnets())
	}
}

// answers starts a host while somebody answers for the stray: a true owner, or a program that may write the store.
func (s stray) answers(t *testing.T, h Harness, found own) {
	h.Configure(network4())
	owner := s.claim()
	owner.Previous = strayAt()
	start(t, h, owner)
	claim, lease := starter(found)
	if found != noLease {
		h.Put(mineAt(), lease, time.Hour)
	}
	x, err := tryStart(t, h, claim)
	if found == fromThisRun || found == fromLastBoot && owner.Attrs.Node != claim.Attrs.Node {
		if err != nil {
			t.Fatal(err)
		}
		wantOwn(t, h, x, owner.Attrs)
		return
	}
	var conflict *subnet.ConflictError
	if !errors.As(err, &conflict) || conflict.Silent || !strings.Contains(err.Error(), "is in use by the live host") {
		t.Errorf("Acquire = %v, want a conflict with a live host", err)
	}
	wantLease(t, h, strayAt(), owner.Attrs, false)
}

// Each owner is asked once, and all at once: a store full of strays must not keep a host from starting.
func straysInNumbers(t *testing.T, h Harness) {
	h.Configure(network4())
	for n := 2; n < 22; n++ {
		claim := claimOf(n)
		claim.Attrs.Public = claimOf(1).Attrs.Public
		if n%2 == 0 {
			claim.Attrs.Node = "node-1"
		}
		h.Put(v4(fmt.Sprintf("10.5.%d.0/24", n)), claim.Attrs, time.Hour)
	}
	began := time.Now()
	start(t, h, claimOf(1))
	if took := time.Since(began); took > patience {
		t.Errorf("the start took %v beside 20 strays, want no more than %v", took, patience)
	}
}
