//go:build linux

package fastpath_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"tulle/ip/kernel/fastpath"
)

// hazard is what a fast path without a remedy does wrong.
type hazard struct {
	name   string
	remedy string // what leaves it out of the programs, defined for the compiler; zero: it is not one of them
	kinds  []config
	held   func(*world) error
}

func hazards() []hazard {
	all := []hazard{
		{"a neighbour forges", "WITHOUT_TAG", kinds(), neighbourForges},
		{"frames of others", "WITHOUT_PKT_TYPE", kinds(), framesOfOthers},
		{"a peer holds a flow", "WITHOUT_PREFIX_CHECK", unchecked(tunnels()), peerHoldsNoFlow},
		{"an address moves", "WITHOUT_EPOCH", kinds(), addressMoves},
		{"a bridge floods", "WITHOUT_STATION", kinds(), silentReceiver},
		{"a rule bites", "WITHOUT_EPOCH", kinds(), func(w *world) error { return w.bite(ruleChanges()[0], w.hosts[0], ruleLimit) }},
		{"a veth is reused", "WITHOUT_STATION", kinds(), vethIsReused},
		{"a container is replaced", "", kinds(), containerIsReplaced},
		{"a connection is reopened", "", kinds(), reopened},
		{"outer rules", "", tunnels(), outerRulesHold},
		{"a rule about outer packets bites", "OBSERVE_AT_DEVICE", tunnels(), func(w *world) error { return w.bite(outerChange(), w.hosts[0], ruleLimit) }},
	}
	for name, scenario := range translations() {
		all = append(all, hazard{name, "WITHOUT_TAG", kinds(), scenario})
	}
	for _, f := range forgeries() {
		all = append(all, hazard{name: "a packet " + f.name, kinds: f.kinds(), held: f.held})
	}
	return all
}

// The plain path does nothing of it wrong.
func TestPlainPathHasNoHazards(t *testing.T) {
	for _, h := range hazards() {
		t.Run(h.name, func(t *testing.T) {
			holds(t, with(h.kinds[:min(1, len(h.kinds))], func(c *config) { c.engines = -1 }), h.held)
		})
	}
}

// Each remedy is needed: a fast path without it does what a test says that it does not. What ends all admissions meanwhile, as tests beside this one do when they
// change rules by iptables, can hide that: so there is more than one attempt.
func TestRemediesAreNeeded(t *testing.T) {
	const attempts = 5
	for _, h := range hazards() {
		if h.remedy == "" {
			continue
		}
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			object := compile(t, h.remedy)
			c := h.kinds[0]
			c.observed = h.remedy == "OBSERVE_AT_DEVICE"
			c.unlisted = h.remedy == "WITHOUT_EPOCH"
			c.open = func(c fastpath.Config) (*fastpath.FastPath, error) { return fastpath.OpenWith(c, object) }
			for range attempts {
				var err error
				t.Run("without it", func(t *testing.T) { err = h.held(newWorld(t, c)) })
				if err != nil {
					t.Logf("without it: %v", err)
					return
				}
			}
			t.Errorf("the test passes without the remedy, in %d attempts", attempts)
		})
	}
}

// compile makes the programs with something defined.
func compile(t *testing.T, define string) []byte {
	t.Helper()
	if _, err := exec.LookPath("clang"); err != nil && os.Getenv("CI") == "" {
		t.Skipf("needs clang to compile programs: %v", err)
	}
	object := filepath.Join(t.TempDir(), "programs.o")
	for _, line := range [][]string{
		{"clang", "-target", "bpfel", "-mcpu=v1", "-g", "-O2", "-I/usr/include/x86_64-linux-gnu", "-D" + define, "-c", "bpf/fastpath.c", "-o", object},
		{"llvm-strip", "-g", object},
	} {
		if out, err := exec.CommandContext(t.Context(), line[0], line[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
	content, err := os.ReadFile(object)
	must(t, err)
	return content
}
