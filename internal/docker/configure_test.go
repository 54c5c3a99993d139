//go:build linux

package docker

import (
	"encoding/json"
	"errors"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"tulle/subnet/flannel"
)

// leaseOf is a lease of the prefixes in text, one per family, with masquerading by tulled.
func leaseOf(text string) flannel.Env {
	env := flannel.Env{MTU: 1450, IPMasq: true}
	for prefix := range strings.SplitSeq(text, ",") {
		if p := netip.MustParsePrefix(prefix); p.Addr().Is4() {
			env.Subnets.V4, env.Network.V4 = p, netip.MustParsePrefix("10.5.0.0/16")
		} else {
			env.Subnets.V6, env.Network.V6 = p, netip.MustParsePrefix("fd05::/48")
		}
	}
	return env
}

// files returns every file in dir with its content.
func files(t interface{ Fatal(...any) }, dir string) map[string]string {
	all := map[string]string{}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(name)] = string(text)
	}
	return all
}

func (f File) configureFor(env flannel.Env, version Version, force bool) ([]Change, error) {
	return f.Configure(Settings(env, version), env.Subnets, force)
}

func TestConfigure(t *testing.T) {
	dual := leaseOf("10.5.1.0/24,fd05:0:0:1::/64")
	unmasqueraded := dual
	unmasqueraded.IPMasq = false
	for _, test := range []struct {
		name    string
		before  string
		env     flannel.Env
		version Version
		force   bool
		want    string
	}{
		{"none", "", leaseOf("10.5.1.0/24"), Version{20, 10}, false,
			"{\n  \"bip\": \"10.5.1.1/24\",\n  \"mtu\": 1450,\n  \"ip-masq\": false\n}\n"},
		{"kept", "{\"debug\":true , \"mtu\":1450.0}", leaseOf("10.5.1.0/24"), Version{20, 10}, false,
			"{\"debug\":true , \"mtu\":1450.0, \"bip\":\"10.5.1.1/24\", \"ip-masq\":false}"},
		{"dual stack, new docker", "{\n\t\"debug\": true\n}", dual, Version{28, 2}, false,
			"{\n\t\"debug\": true,\n\t\"bip\": \"10.5.1.1/24\",\n\t\"mtu\": 1450,\n\t\"ip-masq\": false,\n\t\"ipv6\": true,\n\t\"fixed-cidr-v6\": \"fd05:0:0:1::/64\",\n\t\"allow-direct-routing\": true\n}"},
		{"docker masquerades", "{}", unmasqueraded, Version{28, 1}, false,
			"{\n  \"bip\": \"10.5.1.1/24\",\n  \"mtu\": 1450,\n  \"ipv6\": true,\n  \"fixed-cidr-v6\": \"fd05:0:0:1::/64\"\n}"},
		{"IPv6 only", "{}", leaseOf("fd05:0:0:1::/64"), Version{27, 0}, false,
			"{\n  \"mtu\": 1450,\n  \"ipv6\": true,\n  \"fixed-cidr-v6\": \"fd05:0:0:1::/64\"\n}"},
		{"range inside the lease", `{"fixed-cidr":"10.5.1.128/25","bridge":""}`, leaseOf("10.5.1.0/24"), Version{20, 10}, false,
			`{"fixed-cidr":"10.5.1.128/25","bridge":"","bip":"10.5.1.1/24","mtu":1450,"ip-masq":false}`},
		{"forced", `{"bip":"10.9.0.1/24", "bridge":"br9", "fixed-cidr":"10.9.0.128/25", "mtu":9000}`, leaseOf("10.5.1.0/24"), Version{20, 10}, true,
			`{"bip":"10.5.1.1/24", "mtu":1450, "ip-masq":false}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "daemon.json")
			before := map[string]string{}
			if test.before != "" {
				before["daemon.json"] = test.before
				if err := os.WriteFile(path, []byte(test.before), 0o640); err != nil {
					t.Fatal(err)
				}
			}
			f, err := OpenFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.configureFor(test.env, test.version, test.force); err != nil {
				t.Fatal(err)
			}
			after := files(t, dir)
			if diff := cmp.Diff(test.want, after["daemon.json"]); diff != "" {
				t.Errorf("daemon.json, -want +got:\n%s", diff)
			}
			if got := after["daemon.json.before-tulle"]; got != test.before {
				t.Errorf("backup is %q, want %q", got, test.before)
			}
			if info, err := os.Stat(path); err != nil || test.before != "" && info.Mode().Perm() != 0o640 {
				t.Errorf("daemon.json has mode %v (%v), want that of before", info.Mode(), err)
			}
			if changes, err := f.configureFor(test.env, test.version, false); err != nil || len(changes) > 0 {
				t.Errorf("a second time: changes %v, error %v, want neither", changes, err)
			}
			if _, _, err := f.Unconfigure(nil); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, files(t, dir)); diff != "" {
				t.Errorf("after unconfigure, -want +got:\n%s", diff)
			}
		})
	}
}

func TestConfigureRefuses(t *testing.T) {
	for _, test := range []struct{ name, before, says string }{
		{"conflict", `{"bip":"10.9.0.1/24","mtu":1450,"bridge":"br9"}`, "bip is \"10.9.0.1/24\", must be \"10.5.1.1/24\"\n  bridge is \"br9\", must not be set"},
		{"broken", "{\n\"mtu\": 1450,\n}", "line 3"},
		{"ambiguous", `{"mtu":1450,"mtu":1450}`, "twice"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "daemon.json")
			if err := os.WriteFile(path, []byte(test.before), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := File{path: path}.configureFor(leaseOf("10.5.1.0/24"), Version{20, 10}, false)
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("error %v does not say %q", err, test.says)
			}
			if diff := cmp.Diff(map[string]string{"daemon.json": test.before}, files(t, dir)); diff != "" {
				t.Errorf("files, -want +got:\n%s", diff)
			}
		})
	}
}

// TestConfigureAgain follows a changed lease, and edits by hand in between.
func TestConfigureAgain(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "daemon.json")
	write := func(old, text string) {
		t.Helper()
		have := files(t, dir)["daemon.json"]
		if err := os.WriteFile(path, []byte(strings.Replace(have, old, text, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := File{path: path}
	write("", `{"debug":true,"ip-masq":true}`)
	configure := func(env flannel.Env, force bool, want string) {
		t.Helper()
		if _, err := f.configureFor(env, Version{20, 10}, force); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, files(t, dir)["daemon.json"]); diff != "" {
			t.Errorf("daemon.json, -want +got:\n%s", diff)
		}
	}
	env := leaseOf("10.5.1.0/24")
	configure(env, true, `{"debug":true,"ip-masq":false,"bip":"10.5.1.1/24","mtu":1450}`)
	// The lease changes, and Docker shall masquerade again: what is Tulle's own needs no force.
	env.Subnets.V4, env.IPMasq = netip.MustParsePrefix("10.5.9.0/24"), false
	configure(env, false, `{"debug":true,"ip-masq":true,"bip":"10.5.9.1/24","mtu":1450}`)
	// What somebody else has set since does.
	write("1450", "1400")
	var conflict *ConflictError
	if _, err := f.configureFor(env, Version{20, 10}, false); !errors.As(err, &conflict) || len(conflict.Conflicts) != 1 {
		t.Errorf("after an edit by hand: error %v, want a conflict about mtu", err)
	}
	write(`"debug":true`, `"debug":false`)
	// Edits survive, the rest goes.
	if _, _, err := f.Unconfigure(nil); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"daemon.json": `{"debug":false,"ip-masq":true,"mtu":1400}`}
	if diff := cmp.Diff(want, files(t, dir)); diff != "" {
		t.Errorf("after unconfigure, -want +got:\n%s", diff)
	}
	if changes, _, err := f.Unconfigure(nil); err != nil || len(changes) > 0 {
		t.Errorf("unconfigure again: changes %v, error %v, want neither", changes, err)
	}
}

// TestConfigureThroughLink edits the file that a link leads to.
func TestConfigureThroughLink(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	link, file := filepath.Join(dir, "daemon.json"), filepath.Join(elsewhere, "real.json")
	if err := errors.Join(os.WriteFile(file, []byte("{}"), 0o600), os.Symlink(file, link)); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFile(link)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.configureFor(leaseOf("10.5.1.0/24"), Version{}, false); err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(link); err != nil || target != file {
		t.Errorf("link leads to %q (%v), want %q", target, err, file)
	}
	if got := files(t, elsewhere)["real.json"]; !strings.Contains(got, "10.5.1.1/24") {
		t.Errorf("file is %s, want the lease in it", got)
	}
}

// TestConfigureIsReversible draws files: what is not set keeps its bytes and its place, Docker reads what was to be
// set, and unconfigure restores every byte, also after the lease has changed.
func TestConfigureIsReversible(t *testing.T) {
	root := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(root, "")
		if err != nil {
			t.Fatal(err)
		}
		f := File{path: filepath.Join(dir, "daemon.json")}
		before := map[string]string{}
		if rapid.Float64().Draw(t, "existence") > 0.1 {
			before["daemon.json"] = drawDocument(t)
			if err := os.WriteFile(f.path, []byte(before["daemon.json"]), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		original := map[string]string{}
		if text := before["daemon.json"]; text != "" {
			original = values(t, []byte(text))
		}
		for range rapid.IntRange(1, 3).Draw(t, "rounds") {
			env := leaseOf(rapid.SampledFrom([]string{"10.5.1.0/24", "10.5.2.0/24", "fd05:0:0:1::/64", "10.5.1.0/24,fd05:0:0:1::/64"}).Draw(t, "lease"))
			env.IPMasq = rapid.Bool().Draw(t, "masquerade")
			version := rapid.SampledFrom([]Version{{20, 10}, {28, 2}}).Draw(t, "version")
			if _, err := f.configureFor(env, version, true); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(f.path)
			if err != nil {
				t.Fatal(err)
			}
			after := values(t, text)
			for _, s := range Settings(env, version) {
				if !same(json.RawMessage(after[s.Key]), s.Value) {
					t.Fatalf("%s is %s, want %s, in %q", s.Key, after[s.Key], s.Value, text)
				}
			}
			kept := maps.Clone(original)
			for _, key := range []string{"bip", "mtu", "ip-masq", "ipv6", "fixed-cidr-v6", "allow-direct-routing", "bridge", "fixed-cidr", "bip6"} {
				delete(kept, key)
				delete(after, key)
			}
			if diff := cmp.Diff(kept, after); diff != "" {
				t.Fatalf("other keys, -want +got:\n%s", diff)
			}
			if order := others(t, text); !slices.IsSortedFunc(order, byPlace(others(t, []byte(before["daemon.json"])))) {
				t.Fatalf("other keys changed places: %q", order)
			}
		}
		if _, _, err := f.Unconfigure(nil); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, files(t, dir)); diff != "" {
			t.Fatalf("after unconfigure, -want +got:\n%s", diff)
		}
	})
}

// others lists the keys that Tulle never sets, in order.
func others(t *rapid.T, text []byte) []string {
	if len(text) == 0 {
		return nil
	}
	d, err := parseDocument(text)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, m := range d.members {
		if slices.Contains([]string{"debug", "hosts", "log-opts", "", "bip\x00", `"mtu"`, "dns", "ü{"}, m.key) {
			keys = append(keys, m.key)
		}
	}
	return keys
}

func byPlace(order []string) func(a, b string) int {
	return func(a, b string) int { return slices.Index(order, a) - slices.Index(order, b) }
}

func FuzzConfigure(f *testing.F) {
	for _, seed := range []string{"{}", "{\n  \"mtu\": 1\n}\n", `{"a":[{}],"bip":"x"}`, "{\"\\u006dtu\":null , \"b\":1e9}"} {
		f.Add([]byte(seed))
	}
	root := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		dir, err := os.MkdirTemp(root, "")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		file := File{path: filepath.Join(dir, "daemon.json")}
		if err := os.WriteFile(file.path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		// Refused or reversible: either way the bytes are those of before.
		if _, err := file.configureFor(leaseOf("10.5.1.0/24"), Version{28, 2}, true); err == nil {
			if _, _, err := file.Unconfigure(nil); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(map[string]string{"daemon.json": string(text)}, files(t, dir)); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	})
}
