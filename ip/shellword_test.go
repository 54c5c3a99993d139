package ip

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"tulle/internal/printable"
)

// Operators paste what a plan prints: whatever an interface is called, a shell takes it for one word.
func TestNamesInCommandsAreWords(t *testing.T) {
	for _, name := range []string{"eth0", "eth0.5@x", "$(reboot)", "a;b", "it's", "`id`", "*", "x\x1b[2J'", `a"`, "\u202e\\", "", "/run/a b", "é", "\xff'", "e\u0301'", "\u3164'"} {
		out, err := exec.CommandContext(t.Context(), "bash", "-c", "LC_ALL=C.UTF-8; set -- "+ShellWord(name)+`; printf "%s words, %s" $# "$1"`).Output()
		if want := "1 words, " + name; err != nil || string(out) != want {
			t.Errorf("%q becomes %q in a shell (%v), want %q", name, out, err, want)
		}
	}
	for _, name := range []string{"\xff'", "e\u0301'", "\u3164'"} {
		if word := ShellWord(name); printable.Text(word, printable.Line) != word {
			t.Errorf("%q becomes %s, which is escaped when it is shown", name, word)
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

// So are those of chains and tables of others, also for nft(8), which reads its words anew.
func TestNamesOfChainsAreWords(t *testing.T) {
	dst := netip.MustParsePrefix("10.5.0.0/16")
	for _, tt := range []struct {
		place               Place
		shown, list, accept string // the latter may be empty: there is none
	}{
		{Place{NFTables, IPv4, "filter", "DOCKER-USER"}, "nft table ip filter chain DOCKER-USER", "iptables -t filter -S DOCKER-USER", "nft insert rule ip filter DOCKER-USER ip saddr"},
		{Place{NFTables, 0, "fire.wall/1", "_in"}, "nft table inet fire.wall/1 chain _in", "nft list chain inet fire.wall/1 _in", "nft insert rule inet fire.wall/1 _in ip saddr"},
		{Place{NFTables, IPv4, "filter", "$(reboot)"}, "nft table ip filter chain '$(reboot)'", "iptables -t filter -S '$(reboot)'", `nft insert rule ip filter '"$(reboot)"' ip saddr`},
		{Place{NFTables, 0, "a b", `";flush ruleset`}, `nft table inet 'a b' chain '";flush ruleset'`, `nft list chain inet '"a b"' '"?;flush ruleset"'`, `nft insert rule inet '"a b"' '"?;flush ruleset"' ip saddr`},
		{Place{IPTables, IPv6, "filter", "it's"}, `ip6tables-legacy table filter chain 'it'\''s'`, `ip6tables-legacy -t filter -S 'it'\''s'`, ""},
	} {
		if got := tt.place.String(); got != tt.shown {
			t.Errorf("shows as %s, want %s", got, tt.shown)
		}
		if got := tt.place.List(); got != tt.list {
			t.Errorf("is listed by %s, want %s", got, tt.list)
		}
		if got := tt.place.Accept(dst, dst); tt.accept != "" && !strings.HasPrefix(got, tt.accept) {
			t.Errorf("is opened by %s, want %s", got, tt.accept)
		}
	}
}
