//go:build linux

// Package labtest gives tests labs that run the programs of this module.
package labtest

import (
	"cmp"
	"errors"
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
		if err := errors.Join(Build(".", dir, "tulle/cmd/tulle"), BuildDaemon(".", dir)); err != nil {
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

// Build builds packages into directory out, static, as they ship. Module is a directory in the module that they are looked up from.
func Build(module, out string, packages ...string) error {
	return build("CGO_ENABLED=0", module, out, packages)
}

// BuildDaemon builds tulled to out, which may be a directory, as Build does, but under the race detector if the tests run under it. It is what has goroutines
// to show: commands and plugins come and go, and the etcd that tulle brings is not ours.
func BuildDaemon(module, out string, flags ...string) error {
	args := append(flags, "tulle/cmd/tulled")
	if Raced() {
		return build("CGO_ENABLED=1", module, out, append([]string{"-race"}, args...))
	}
	return build("CGO_ENABLED=0", module, out, args)
}

func build(cgo, module, out string, args []string) error {
	cmd := exec.Command("go", append([]string{"build", "-C", module, "-buildvcs=false", "-o", out}, args...)...)
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
