//go:build linux

package lab_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"tulle/internal/lab"
	"tulle/internal/netns/netnstest"
)

// programsEnv names a directory with tulle and tulled. TestMain builds them
// unless it is set.
const programsEnv = "TULLE_PROGRAMS"

func TestMain(m *testing.M) {
	if os.Getenv(programsEnv) != "" {
		m.Run()
		return
	}
	dir, err := buildPrograms()
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	os.Setenv(programsEnv, dir)
	m.Run()
}

func buildPrograms() (string, error) {
	dir, err := os.MkdirTemp("", "tulle-programs-")
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-buildvcs=false", "-o", dir, "tulle/cmd/tulle", "tulle/cmd/tulled")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("build tulle and tulled: %w\n%s", err, output), os.RemoveAll(dir))
	}
	return dir, nil
}

// newLab builds an underlay that is removed at the end of the test.
func newLab(t *testing.T, config lab.Config) *lab.Lab {
	t.Helper()
	programs := os.Getenv(programsEnv)
	config.Tulle = filepath.Join(programs, "tulle")
	config.Tulled = filepath.Join(programs, "tulled")
	config.Progress = func(message string) { t.Log(message) }
	l, err := lab.New(t.Context(), config)
	netnstest.Require(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			logDaemons(t, l)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// upLab runs a whole network that is removed at the end of the test.
func upLab(t *testing.T, config lab.Config) *lab.Lab {
	t.Helper()
	l := newLab(t, config)
	if err := l.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l
}

func logDaemons(t *testing.T, l *lab.Lab) {
	t.Helper()
	for _, host := range l.Hosts {
		if text, err := os.ReadFile(host.Log()); err == nil {
			t.Logf("log of tulled on %s:\n%s", host.Name, text)
		}
	}
}

// requireMatrix fails the test unless every container reaches every other.
func requireMatrix(t *testing.T, l *lab.Lab) lab.Matrix {
	t.Helper()
	matrix, err := l.Matrix(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !matrix.Pass {
		t.Fatalf("not all containers reach each other:\n%s", table(t, matrix))
	}
	return matrix
}
