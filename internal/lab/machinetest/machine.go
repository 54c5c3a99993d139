//go:build linux

// Package machinetest gives hosts of a lab files and processes of their own, for programs whose paths cannot be chosen.
package machinetest

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tulle/internal/lab"
	"tulle/internal/netns/netnstest"
)

// binDir is on a machine, and the first place where programs are looked for.
const binDir = "/run/bin"

const pollInterval = 50 * time.Millisecond

// world prepares what a machine has for itself, and then is its init.
//
//go:embed world.sh
var world string

// Machine is a host of a lab whose programs find their files where they would on any host.
type Machine struct {
	*lab.Host

	// Env are settings for commands, beside those of where programs are. New fills in the host's.
	Env []string

	path string // of programs
	init *exec.Cmd
}

// New prepares a machine, which ends with the test. Programs are directories that come before those in PATH.
func New(t *testing.T, host *lab.Host, programs ...string) *Machine {
	t.Helper()
	netnstest.RequireOwnMounts(t)
	root := filepath.Join(host.Dir, "machine")
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	path := append([]string{binDir}, programs...)
	m := &Machine{Host: host, Env: host.Environment(), path: strings.Join(append(path, os.Getenv("PATH"), "/usr/sbin:/sbin"), ":")}
	m.init = exec.Command("sh", "-c", world, "init", host.Dir, root)
	m.init.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	m.init.Stderr = &stderr
	out, err := m.init.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		// The death signal comes with the death of the thread that forks: it is kept until the end.
		_ = host.Do(func() error {
			err := m.init.Start()
			started <- err
			if err != nil {
				return err
			}
			line, _ := bufio.NewReader(out).ReadString('\n')
			if line != "ready\n" {
				err = fmt.Errorf("prepare machine %s: it says %q", host, line)
			}
			started <- err
			return m.init.Wait()
		})
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// With its init every process of the machine ends, and with them the mounts.
		_ = m.init.Process.Kill()
		<-ended
	})
	if err := <-started; err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	m.requireOwnFiles(t)
	return m
}

// requireOwnFiles ends the test unless commands see the files that were prepared for the machine. Else they would write to those of the computer that
// runs the tests, as in a chroot, which entering a mount namespace leaves.
func (m *Machine) requireOwnFiles(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"/etc", "/opt", "/var/lib", "/run"} {
		var prepared unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/root%s", m.init.Process.Pid, dir), &prepared); err != nil {
			t.Fatalf("look at %s of machine %s: %v", dir, m, err)
		}
		want := fmt.Sprintf("%d:%d", prepared.Dev, prepared.Ino)
		if got := m.Run(t, "stat", "-c", "%d:%i", dir); got != want {
			t.Fatalf("commands on machine %s see another %s than was prepared (%s, want %s): run the tests where / is the root of the mount namespace", m, dir, got, want)
		}
	}
}

// Command prepares a command that runs on the machine.
func (m *Machine) Command(ctx context.Context, line ...string) *exec.Cmd {
	// In a chroot, entering a mount namespace alone would lead out of it.
	enter := []string{"--target", strconv.Itoa(m.init.Process.Pid), "--mount", "--root", "--wdns=/", "--pid", "--net", "--"}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, line...)...)
	cmd.Dir = "/"
	cmd.Env = append([]string{"PATH=" + m.path, "HOME=/root"}, m.Env...)
	return cmd
}

// Try runs a command on the machine and returns what it prints, on both outputs.
func (m *Machine) Try(t *testing.T, line ...string) (string, error) {
	t.Helper()
	out, err := m.Command(t.Context(), line...).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		err = fmt.Errorf("%s: %s: %w: %s", m, strings.Join(line, " "), err, text)
	}
	return text, err
}

// Run is Try for commands that must succeed.
func (m *Machine) Run(t *testing.T, line ...string) string {
	t.Helper()
	out, err := m.Try(t, line...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// File is the path, as the test sees it, of a file on the machine.
func (m *Machine) File(path string) string {
	return filepath.Join("/proc", strconv.Itoa(m.init.Process.Pid), "root", path)
}

// Program puts a shell script on the machine, where it comes before a program of that name.
func (m *Machine) Program(t *testing.T, name, script string) {
	t.Helper()
	if err := os.WriteFile(m.File(filepath.Join(binDir, name)), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
}

// Retry calls try until it succeeds.
func (m *Machine) Retry(t *testing.T, timeout time.Duration, what string, try func() error) {
	t.Helper()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatal(errors.Join(fmt.Errorf("on %s, %s: not within %v", m, what, timeout), err))
		}
	}
}
