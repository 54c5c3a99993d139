package inspect_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"tulle/internal/netns/netnstest"
	"tulle/ip/kernel/inspect"
)

// Chains of the family bridge, as nft(8) makes them: what they drop of a bridge whatever else is in it is told, and nothing else.
func TestBridgeFilters(t *testing.T) {
	ns := netnstest.New(t)
	nft := func(t *testing.T, script string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "nft", "-f", "-")
		cmd.Stdin = strings.NewReader(script)
		var out []byte
		if err := ns.Do(func() (err error) { out, err = cmd.CombinedOutput(); return err }); err != nil {
			t.Fatalf("nft: %v: %s of\n%s", err, out, script)
		}
	}
	for rules, drops := range map[string]bool{
		"":                                           false,
		"drop":                                       true,
		`counter log prefix "x" drop`:                true,
		`iifname "port1" drop`:                       false, // one of several
		`iifname "elsewhere" drop`:                   false,
		`iifname "br0" drop`:                         true,
		`meta protocol ip drop`:                      true,
		`ether type arp drop`:                        true,
		`ether type 0x88cc drop`:                     false,
		`meta protocol ip ip protocol udp drop`:      false,
		`ip saddr 10.0.0.0/8 drop`:                   false,
		`ether saddr 02:00:00:00:00:01 drop`:         false,
		`meta mark 7 drop`:                           false,
		"accept\ndrop":                               false,
		"ether saddr 02:00:00:00:00:01 accept\ndrop": false, // who knows which it lets through
		"iifname \"elsewhere\" accept\ndrop":         true,
		"iifname \"port*\" accept\ndrop":             false,
		"iifname \"port*\" drop":                     false,
		"jump other\ndrop":                           false,
		"meta l4proto icmp drop\nmeta protocol { ip, ip6 } counter": false,
	} {
		for _, policy := range []string{"accept", "drop"} {
			script := "table bridge t {\nchain other { }\nchain c { type filter hook input priority 0; policy " + policy + ";\n" + rules + "\n}\n}\n"
			t.Run(policy+"/"+rules, func(t *testing.T) {
				nft(t, script)
				defer nft(t, "delete table bridge t")
				var filters []inspect.BridgeFilter
				if err := ns.Do(func() (err error) {
					filters, err = inspect.BridgeFilters("br0", []string{"port1", "port2"})
					return err
				}); err != nil {
					t.Fatal(err)
				}
				var want []inspect.BridgeFilter
				passed := strings.HasPrefix(rules, "accept") || strings.HasPrefix(rules, `iifname "port*" accept`) || strings.HasPrefix(rules, "ether saddr") && strings.Contains(rules, "accept") || strings.HasPrefix(rules, "jump")
				if drops || policy == "drop" && !passed {
					want = []inspect.BridgeFilter{{Bridge: "br0", Table: "t", Chain: "c", Hook: "input"}}
				}
				if !slices.Equal(filters, want) {
					t.Errorf("%+v, want %+v, of\n%s", filters, want, script)
				}
			})
		}
	}
	t.Run("other families", func(t *testing.T) {
		nft(t, "table inet t { chain c { type filter hook input priority 0; policy drop; }; }")
		defer nft(t, "delete table inet t")
		var filters []inspect.BridgeFilter
		if err := ns.Do(func() (err error) { filters, err = inspect.BridgeFilters("br0", nil); return err }); err != nil || filters != nil {
			t.Errorf("%+v, %v", filters, err)
		}
	})
}
