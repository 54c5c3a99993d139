//go:build linux

package cniplugin_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tulle/internal/lab/labtest"
)

// programs are the real parts, built once for all tests.
type programs struct {
	tulle, tulled string
	cni           string // directory of plugins: ours as tulle and flannel, and those it delegates to, of the newest version
	debian        string // the same with those of Debian 12, 1.1.1, where they are installed
}

// debianPlugins is where Debian's containernetworking-plugins puts them.
const debianPlugins = "/usr/lib/cni"

// programsEnv names the directory with the programs of the tests.
const programsEnv = "TULLE_TEST_CNI_PROGRAMS"

func TestMain(m *testing.M) {
	if killer, err := asDelegate(); err != nil {
		panic(err)
	} else if killer {
		return
	}
	// Fuzzing starts this program again and again, and needs none of the parts.
	if slices.ContainsFunc(os.Args, func(arg string) bool { return strings.HasPrefix(arg, "-test.fuzz") }) {
		m.Run()
		return
	}
	dir, err := os.MkdirTemp("", "tulle-cni-")
	if err != nil {
		panic(err)
	}
	if err := build(locate(dir)); err != nil {
		panic(errors.Join(err, os.RemoveAll(dir)))
	}
	os.Setenv(programsEnv, dir)
	defer os.RemoveAll(dir)
	m.Run()
}

func locate(dir string) programs {
	return programs{tulle: filepath.Join(dir, "tulle"), tulled: filepath.Join(dir, "tulled"), cni: filepath.Join(dir, "cni"), debian: filepath.Join(dir, "debian")}
}

func built() programs { return locate(os.Getenv(programsEnv)) }

func build(p programs) error {
	for _, b := range []struct {
		module, out string
		packages    []string
	}{
		{"..", filepath.Dir(p.tulle), []string{"./cmd/tulle", "./cmd/tulle-cni"}},
		{"testdata/tools", p.cni, []string{"tool"}},
	} {
		if err := os.MkdirAll(b.out, 0o755); err != nil {
			return err
		}
		if err := labtest.Build(b.module, b.out, b.packages...); err != nil {
			return err
		}
	}
	if err := labtest.BuildDaemon("..", p.tulled); err != nil {
		return err
	}
	theirs, err := filepath.Glob(filepath.Join(debianPlugins, "*"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(p.debian, 0o755); err != nil {
		return err
	}
	for _, program := range theirs {
		if err := os.Symlink(program, filepath.Join(p.debian, filepath.Base(program))); err != nil {
			return err
		}
	}
	for _, dir := range []string{p.cni, p.debian} {
		for _, name := range []string{"tulle", "flannel"} {
			if err := os.Link(filepath.Join(filepath.Dir(p.tulle), "tulle-cni"), filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// needsDebianPlugins skips the test where these are not installed.
func needsDebianPlugins(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(debianPlugins, "bridge")); err != nil && os.Getenv("CI") == "" {
		t.Skipf("needs Debian's containernetworking-plugins: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
}
