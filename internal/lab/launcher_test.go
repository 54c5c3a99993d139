//go:build linux

package lab

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"tulle/internal/netns/netnstest"
)

func TestProcessesStartInside(t *testing.T) {
	ns := netnstest.New(t)
	l := newLauncher()
	t.Cleanup(l.close)
	var want string
	if err := ns.Do(func() (err error) {
		want, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for name, start := range map[string]func(*exec.Cmd) error{
		"namespace": func(cmd *exec.Cmd) error { return ns.Do(cmd.Start) },
		"launcher":  func(cmd *exec.Cmd) error { return l.start(ns, cmd) },
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			cmd := exec.CommandContext(t.Context(), "readlink", "/proc/self/ns/net")
			cmd.Stdout = &out
			if err := start(cmd); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSpace(out.String()); got != want {
				t.Errorf("process ran in %s, want %s", got, want)
			}
		})
	}
}

func TestProcessesDieWithTheLauncher(t *testing.T) {
	ns := netnstest.New(t)
	l := newLauncher()
	cmd := exec.CommandContext(t.Context(), "sleep", "60")
	if err := l.start(ns, cmd); err != nil {
		t.Fatal(err)
	}
	l.close()
	if err := cmd.Wait(); err == nil {
		t.Error("process outlived its launcher")
	}
}
