//go:build linux

// Package labtest gives tests labs that run the programs of this module.
package labtest

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"tulle/internal/lab"
	"tulle/internal/netns/netnstest"
)

// programsEnv names a directory with tulle and tulled.
const programsEnv = "TULLE_PROGRAMS"

// Programs is the directory with tulle and tulled, once Main has built them.
func Programs() string { return os.Getenv(programsEnv) }

// Main is the TestMain of packages whose tests run tulle and tulled. It builds them unless TULLE_PROGRAMS says where they are.
// Tests that leak goroutines or descriptors fail.
func Main(m *testing.M) {
	ownMounts()
	if Programs() == "" {
		dir, err := os.MkdirTemp("", "tulle-programs-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if err := Build(".", dir, "tulle/cmd/tulle", "tulle/cmd/tulled"); err != nil {
			panic(err)
		}
		os.Setenv(programsEnv, dir)
	}
	before := inUse()
	if m.Run() != 0 {
		return
	}
	if err := leaked(before); err != nil {
		panic(err)
	}
}

// Build builds packages into directory out: static, as they ship, or under the race detector if the tests run under it. Module is a
// directory in the module that they are looked up from.
func Build(module, out string, packages ...string) error {
	line, cgo := []string{"build", "-C", module, "-buildvcs=false", "-o", out}, "CGO_ENABLED=0"
	if Raced() {
		line, cgo = append(line, "-race"), "CGO_ENABLED=1"
	}
	cmd := exec.Command("go", append(line, packages...)...)
	cmd.Env = append(os.Environ(), cgo)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, output)
	}
	return nil
}

// New builds an underlay that is removed at the end of the test. The programs are those of Main, unless config names others.
func New(t testing.TB, config lab.Config) *lab.Lab {
	t.Helper()
	config.Tulle = cmp.Or(config.Tulle, filepath.Join(Programs(), "tulle"))
	config.Tulled = cmp.Or(config.Tulled, filepath.Join(Programs(), "tulled"))
	l, err := lab.New(t.Context(), config)
	netnstest.Require(t, err)
	t.Cleanup(func() {
		requireNoRace(t, l)
		if t.Failed() {
			logDaemons(t, l)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func logDaemons(t testing.TB, l *lab.Lab) {
	t.Helper()
	for _, host := range l.Hosts {
		if text, err := os.ReadFile(host.Log()); err == nil {
			t.Logf("log of tulled on %s:\n%s", host, text)
		}
	}
}
