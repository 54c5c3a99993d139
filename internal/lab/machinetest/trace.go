//go:build linux

package machinetest

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"tulle/internal/lab"
)

// Traces is all that ip, bridge, nft and iptables show of a host, except for what counts, ages or is drawn by lot.
func Traces(t *testing.T, host *lab.Host) string {
	t.Helper()
	var text strings.Builder
	for _, command := range []string{
		"ip -d address", "ip rule", "ip -6 rule", "ip route show table all", "ip -6 route show table all", "ip neighbor show nud permanent",
		"bridge fdb", "nft list ruleset", "iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save",
	} {
		words := strings.Fields(command)
		cmd := exec.CommandContext(t.Context(), words[0], words[1:]...)
		var output, complaint strings.Builder
		cmd.Stdout, cmd.Stderr = &output, &complaint
		if err := host.Do(cmd.Start); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%s: %v: %s", command, err, &complaint)
		}
		text.WriteString(steady(output.String()))
	}
	return text.String()
}

// steady leaves out what differs between two looks at the same thing.
func steady(text string) string {
	for _, unsteady := range []struct{ pattern, instead string }{
		{`(?m)^#.*\n`, ""},                                // remarks of iptables-save on the time
		{`\[\d+:\d+\]`, ""},                               // counters of chains: traffic of the host itself counts
		{`counter packets \d+ bytes \d+`, "counter"},      // and of rules
		{`(?m)^\d+: `, ""},                                // index of an interface
		{`@if\d+`, "@if"},                                 // and of its peer
		{`(_timer) +[0-9.]+`, "$1"},                       // of a bridge
		{`\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b`, "MAC"},       // Docker's bridge draws it
		{`\b8000\.[0-9a-f:]+`, "8000.MAC"},                // it is part of the identifier of a bridge,
		{`\bfe80::[0-9a-f:]*:[0-9a-f:]+`, "LINKLOCAL"},    // of addresses
		{`\b33:33:ff(:[0-9a-f]{2}){3}\b`, "33:33:ff:MAC"}, // and of multicast groups
	} {
		text = regexp.MustCompile(unsteady.pattern).ReplaceAllString(text, unsteady.instead)
	}
	return text
}
