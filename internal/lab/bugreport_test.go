//go:build linux

package lab_test

import (
	"archive/tar"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tulle/internal/lab"
)

// A report of a host tells all that there is, and neither what the host is asked by nor, masked, the addresses of hosts. That tulled is stopped is said, and
// the rest is there.
func TestBugReport(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 2, Containers: 1, DaemonArgs: func(*lab.Host) []string { return []string{"--probe=on"} }})
	host := l.Hosts[0]
	key, err := os.ReadFile(filepath.Join(filepath.Dir(host.Socket()), "probe-key"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(key)))
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{strings.TrimSpace(string(key)), base64.StdEncoding.EncodeToString(raw)}
	whole := []string{"about.txt", "status.json", "peers.json", "doctor.json", "metrics.txt", "log.txt", "subnet.env", "wanted.txt", "kernel.txt", "plan.txt", "config.json", "leases.json"}
	report := func(want []string, args ...string) map[string]string {
		t.Helper()
		archive := filepath.Join(t.TempDir(), "report.tar.gz")
		said := tulle(t, l, host, append([]string{"bugreport", "--output", archive}, args...)...)
		files := unpack(t, archive)
		for _, name := range want {
			text, ok := files["tulle-bugreport/"+name]
			if empty := text == ""; !ok || empty != (name == "plan.txt") {
				t.Errorf("%s: there is %t, %q; said %s", name, ok, text, said)
			}
		}
		if len(files) != len(want) {
			t.Errorf("%d files, want %d", len(files), len(want))
		}
		for name, text := range files {
			for _, s := range secrets {
				if strings.Contains(text, s) {
					t.Errorf("%s holds the key by which the host is asked", name)
				}
			}
		}
		return files
	}
	files := report(whole)
	if text := files["tulle-bugreport/log.txt"]; !strings.Contains(text, "starting") {
		t.Errorf("log: %q", text)
	}
	for _, name := range []string{"kernel.txt", "wanted.txt"} {
		if text := files["tulle-bugreport/"+name]; !strings.Contains(text, "172.30.1.2 self permanent") {
			t.Errorf("%s lacks the peer:\n%s", name, text)
		}
	}
	for name, text := range report(whole, "--mask") {
		if strings.Contains(text, "172.30.1.") || strings.Contains(text, "fd30:") {
			t.Errorf("%s, masked, has an address of a host:\n%s", name, text)
		}
		if name == "tulle-bugreport/kernel.txt" && !strings.Contains(text, "10.244.") {
			t.Errorf("%s, masked, lacks the containers' addresses:\n%s", name, text)
		}
	}
	if err := host.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	stopped := slices.DeleteFunc(whole, func(name string) bool {
		return slices.Contains([]string{"status.json", "peers.json", "metrics.txt", "log.txt"}, name)
	})
	if text := report(append(stopped, "missing.txt"))["tulle-bugreport/missing.txt"]; !strings.Contains(text, "status.json: no tulled answers") {
		t.Errorf("missing: %s", text)
	}
}

func unpack(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	compressed, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for archive := tar.NewReader(compressed); ; {
		h, err := archive.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(text)
	}
}
