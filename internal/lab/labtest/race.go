//go:build linux

package labtest

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"testing"

	"tulle/internal/lab"
)

// Raced reports whether the tests run under the race detector. The daemon that they build does then too, and takes several times as long.
func Raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// requireNoRace fails the test if a program of the lab has reported a data race: to its log, since most are killed and have no exit code.
func requireNoRace(t testing.TB, l *lab.Lab) {
	t.Helper()
	ofEtcd, _ := filepath.Glob(filepath.Join(l.Config.Dir, "*.log")) // the patterns are well formed
	ofHosts, _ := filepath.Glob(filepath.Join(l.Config.Dir, "*", "*.log"))
	for _, path := range append(ofEtcd, ofHosts...) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		if _, report, found := bytes.Cut(text, []byte("WARNING: DATA RACE\n")); found {
			report, _, _ = bytes.Cut(report, []byte("\n=================="))
			t.Errorf("data race, reported in %s:\n%s", path, report)
		}
	}
}
