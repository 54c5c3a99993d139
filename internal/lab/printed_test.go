//go:build linux

package lab_test

import (
	"strings"
	"testing"
	"unicode"

	"tulle/internal/lab"
	"tulle/ip"
)

// Whatever the store holds, it moves nobody's cursor and pads nobody's table.
func TestStoreCannotWriteToTheTerminal(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 2, Families: []ip.Family{ip.IPv4}})
	host := l.Hosts[0]
	config, err := l.Etcd.Get(t.Context(), l.Etcd.Key("config"))
	if err != nil || len(config) != 1 {
		t.Fatalf("configuration is %v, %v, want one", config, err)
	}
	const lease = `{"PublicIP":"172.30.1.20X","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:c8"},"Tulle":{"Node":"NODE","Instance":"x"}}`
	var keys []string
	for i, node := range []string{`a\u001b[2Jb`, `a\nb`, `a\u202eb`, `a\u0000b`, strings.Repeat("x", 30000)} {
		n := string(rune('0' + i))
		keys = append(keys, l.Etcd.Key("subnets/10.244.25"+n+".0-24"))
		if err := l.Etcd.Put(t.Context(), keys[i], strings.NewReplacer("X", n, "NODE", node).Replace(lease)); err != nil {
			t.Fatal(err)
		}
	}
	name := l.Etcd.Key("subnets/\x1b[2J\n\u202e" + strings.Repeat("y", 3000))
	if err := l.Etcd.Put(t.Context(), name, "{}"); err != nil {
		t.Fatal(err)
	}
	awaitProblems(t, host, append(keys, name))
	spoiled := strings.Replace(config[l.Etcd.Key("config")], "{", "{\"Note\": \"\x1b[2J\u202e\",\r", 1)
	if err := l.Etcd.Put(t.Context(), l.Etcd.Key("config"), spoiled); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"status"}, {"leases", "list"}, {"config", "get"}} {
		for line := range strings.Lines(tulle(t, l, host, args...)) {
			text := strings.TrimSuffix(line, "\n")
			if len(text) > 3000 || strings.ContainsFunc(text, func(r rune) bool { return r != '\t' && !unicode.IsPrint(r) }) {
				t.Errorf("tulle %s prints %.200q, of %d bytes", strings.Join(args, " "), text, len(text))
			}
		}
	}
}
