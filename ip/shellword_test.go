package ip

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"
)

// Operators paste what a plan prints: whatever an interface is called, a shell takes it for one word.
func TestNamesInCommandsAreWords(t *testing.T) {
	for _, name := range []string{"eth0", "eth0.5@x", "$(reboot)", "a;b", "it's", "`id`", "*", "x\x1b[2J'", `a"`, "\u202e\\"} {
		out, err := exec.CommandContext(t.Context(), "bash", "-c", "LC_ALL=C.UTF-8; printf %s "+shellWord(name)).Output()
		if err != nil || string(out) != name {
			t.Errorf("%q becomes %q in a shell (%v)", name, out, err)
		}
	}
	plan := Plan{{Verb: Add, New: Addr{Link: "$(reboot)", Prefix: netip.MustParsePrefix("10.5.1.0/32")}}}
	if text := plan.String(); !strings.Contains(text, "dev '$(reboot)'") {
		t.Errorf("plan is %q, want the name quoted", text)
	}
}
