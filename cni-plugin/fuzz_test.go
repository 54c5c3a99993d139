//go:build linux

package cniplugin

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// A configuration is refused, or what the delegate gets of it is one that a delegate can read.
func FuzzConf(f *testing.F) {
	for _, text := range []string{
		`{"cniVersion":"1.1.0","name":"tulle","type":"tulle"}`,
		`{"name":"cbr0","type":"flannel","delegate":{"hairpinMode":true,"isDefaultGateway":true}}`,
		`{"name":"n","ipam":{"type":"host-local","routes":[{"dst":"10.0.0.0/8"}]},"runtimeConfig":{"mac":"02:00:00:00:00:01"}}`,
		`{"name":"n","delegate":{"type":null}}`, `{"name":"n","ipam":{"routes":0}}`, `{"name":"n","delegate":{"name":"x"}}`, `null`, `[`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseConf(text)
		if err != nil || c.check() != nil {
			return
		}
		delegate, err := delegateConf(c, dualEnv())
		if err != nil {
			t.Fatalf("%s passes the check, but: %v", text, err)
		}
		if _, err := delegateField(delegate, "type"); err != nil {
			t.Errorf("the delegate would get %s: %v", delegate, err)
		}
		// What is kept of an attachment can be read again.
		kept, err := json.Marshal(record{Netns: "/run/netns/x", Delegate: delegate})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseRecord(kept); err != nil {
			t.Errorf("the state %s: %v", kept, err)
		}
	})
}

// Whatever is in a state file: it is read or refused.
func FuzzState(f *testing.F) {
	for _, text := range []string{`{"netns":"/x","netnsID":"4:5","delegate":{"name":"n","type":"bridge"}}`, `{"name":"n","type":"bridge"}`, `{"delegate":{"type":1}}`, `{`, ``} {
		f.Add([]byte(text))
	}
	s := states{f.TempDir()}
	a := attachment{"n", "c", "eth0"}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, path := range []string{s.path(a), s.flannelPath(a.container)} {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := s.read(a)
			if err == nil && !json.Valid(r.Delegate) {
				t.Errorf("%s holds %q: read as %q", filepath.Base(path), text, r.Delegate)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	})
}
