//go:build linux

package lab_test

import (
	"testing"

	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

// newLab builds an underlay that is removed at the end of the test.
func newLab(t *testing.T, config lab.Config) *lab.Lab {
	t.Helper()
	config.Progress = func(message string) { t.Log(message) }
	return labtest.New(t, config)
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

func startTulled(t *testing.T, host *lab.Host) {
	t.Helper()
	if err := host.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := host.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
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

// bothBackends are those that most hosts have. Under the race detector, where all takes longer, it is one: they differ in what the kernel does.
func bothBackends() []string {
	if testing.Short() {
		return []string{"vxlan"}
	}
	return []string{"vxlan", "host-gw"}
}
