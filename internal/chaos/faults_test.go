//go:build linux

package chaos

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"tulle/internal/netns/netnstest"
)

// onlyEnv is a pattern of names: only these scripts run.
const onlyEnv = "TULLE_CHAOS_ONLY"

// TestFaults runs every script once, in the order of their names; or, for a
// soak, at random for as long as TULLE_SOAK says.
func TestFaults(t *testing.T) {
	soak := soakFromEnvironment(t)
	scripts, err := filepath.Glob("testdata/" + cmp.Or(os.Getenv(onlyEnv), "*") + ".txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("found %d scripts in testdata: %v", len(scripts), err)
	}
	report := &report{}
	// Before the world, so that it is written after it.
	t.Cleanup(func() { report.publish(t) })
	w := newWorld(t)
	if soak != nil {
		soak.run(t, w, scripts, report)
		return
	}
	for _, script := range scripts {
		if twin := strings.ReplaceAll(script, "ipv6", "ipv4"); testing.Short() && twin != script && slices.Contains(scripts, twin) {
			continue // as under the race detector: both go by the same code
		}
		runScript(t, w, script, report)
	}
}

// runScript reports whether the script passed.
func runScript(t *testing.T, w *world, script string, report *report) bool {
	t.Helper()
	if err := w.await(convergeTimeout, w.converged); err != nil {
		t.Fatalf("before %s: %v", script, err)
	}
	r, skipped := newRow(w, script), false
	passed := t.Run(r.name, func(t *testing.T) {
		defer func() { skipped = t.Skipped() }()
		requireMounts(t, script)
		testscript.RunT(serial{t}, testscript.Params{
			Files: []string{script},
			Setup: r.setup,
			Cmds:  commands(),
		})
	})
	if skipped {
		return true
	}
	report.add(r.finish(passed))
	if !passed {
		w.repair(t)
	}
	return passed
}

// requireMounts is netnstest.RequireOwnMounts for scripts with processes that have mounts of their own.
func requireMounts(t *testing.T, script string) {
	t.Helper()
	text, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "unshare --mount") {
		netnstest.RequireOwnMounts(t)
	}
}

// serial runs scripts one at a time: they share a network.
type serial struct{ *testing.T }

func (serial) Parallel() {}

func (serial) Verbose() bool { return testing.Verbose() }

func (s serial) Run(_ string, script func(testscript.T)) { script(s) }
