package dist_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tulle/subnet/flannel"
)

func TestNetworksAreValid(t *testing.T) {
	names, err := filepath.Glob("networks/*.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("found %d sample networks: %v", len(names), err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, warnings, err := flannel.ParseNetwork(text, 1); err != nil || len(warnings) > 0 {
			t.Errorf("%s: error %v, doubts %q, want neither", name, err, warnings)
		}
	}
}

// TestEnvironmentFile wants settings that systemd reads as they are meant, all switched off.
func TestEnvironmentFile(t *testing.T) {
	f, err := os.Open("tulled.env")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	valid := regexp.MustCompile(`^(# .*|#|#TULLED_[A-Z0-9_]+=[^ ]*)?$`)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if !valid.MatchString(lines.Text()) {
			t.Errorf("%q is neither a remark nor a setting that is switched off", lines.Text())
		}
	}
}

// TestUnits has systemd look for mistakes.
func TestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("needs systemd-analyze (Debian package systemd): %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	unit, err := os.ReadFile("systemd/tulled.service")
	if err != nil {
		t.Fatal(err)
	}
	// verify wants the program to be there.
	text := strings.Replace(string(unit), "ExecStart=/usr/bin/tulled", "ExecStart=/bin/true", 1)
	path := filepath.Join(t.TempDir(), "tulled.service")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), analyze, "verify", "--recursive-errors=no", "--man=no", path).CombinedOutput()
	if err != nil || strings.Contains(string(out), "tulled.service") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
