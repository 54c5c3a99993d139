package ip

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"
)

// Operators paste what a plan prints: whatever an interface is called, a shell takes it for one word.
func TestNamesInCommandsAreWords(t *testing.T) {
	for _, name := range []string{"eth0", "eth0.5@x", "$(reboot)", "a;b", "it's", "`id`", "*", "x\x1b[2J'", `a"`, "\u202e\\", "", "/run/a b"} {
		out, err := exec.CommandContext(t.Context(), "bash", "-c", "LC_ALL=C.UTF-8; set -- "+ShellWord(name)+`; printf "%s words, %s" $# "$1"`).Output()
		if want := "1 words, " + name; err != nil || string(out) != want {
			t.Errorf("%q becomes %q in a shell (%v), want %q", name, out, err, want)
		}
	}
	for want, ops := range map[string][]Op{
		"dev '$(reboot)'":                {{Verb: Add, New: Addr{Link: "$(reboot)", Prefix: netip.MustParsePrefix("10.5.1.0/32")}}},
		"ip link add 'a;b' address":      {{Verb: Add, New: Link{Name: "a;b"}}},
		"ip link del dev 'a;b'":          {{Verb: Delete, Old: Link{Name: "a;b"}}},
		"ip link set dev 'a;b' mtu 1400": {{Verb: Replace, Old: Link{Name: "a;b"}, New: Link{Name: "a;b", MTU: 1400}}},
		"sysctl -w 'net/`id`'='$(id)'":   {{Verb: Replace, New: Sysctl{Key: "net/`id`", Value: "$(id)"}}},
		"sysctl -w net/ipv4/x=1":         {{Verb: Replace, New: Sysctl{Key: "net/ipv4/x", Value: "1"}}},
	} {
		if text := Plan(ops).String(); !strings.Contains(text, want) {
			t.Errorf("plan is %q, want it to say %q", text, want)
		}
	}
}
