//go:build linux

// Package dockertest gives the hosts of a lab a real Docker each.
package dockertest

import (
	"bufio"
	"bytes"
	"context"
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

	"tulle/internal/docker"
	"tulle/internal/lab"
)

// DockerdEnv names a dockerd to test beside the one in PATH. Its containerd, runc, shim and proxy stand beside it.
const DockerdEnv = "TULLE_TEST_DOCKERD"

// binDir is on a machine, and the first place where programs are looked for.
const binDir = "/run/bin"

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 30 * time.Second
	pollInterval = 50 * time.Millisecond
)

// world prepares what a machine has for itself: processes, /run, /etc, /var/lib and a view of its own network
// devices. $1 is the directory with tulled's files on that host, $2 an empty one. Its shell is then the machine's init:
// it reaps what others leave behind, and all ends with it.
const world = `
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs "$2"
mkdir "$2/cgroup" "$2/etc" "$2/etc.work" "$2/lib" "$2/lib.work" "$2/docker"
mount --rbind /sys/fs/cgroup "$2/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$2/cgroup" /sys/fs/cgroup
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$2/etc,workdir=$2/etc.work" /etc
mount -t overlay overlay -o "lowerdir=/var/lib,upperdir=$2/lib,workdir=$2/lib.work" /var/lib
mkdir -p /etc/docker /var/lib/docker
rm -f /etc/docker/daemon.json*
mount --bind "$2/docker" /var/lib/docker
mount -t tmpfs tmpfs /run
mkdir /run/lock /run/bin
ln -s "$1" /run/flannel
ln -s "$1/run" /run/tulle
echo ready
while :; do sleep 3600 & wait; done
`

// Machine is a host of a lab with a Docker of its own, which finds its files where it would on any host.
type Machine struct {
	*lab.Host

	// Env are settings for commands, beside those of where programs are. New fills in the host's.
	Env []string

	path    string // of programs
	init    *exec.Cmd
	dockerd process
}

type process struct {
	done chan struct{} // closed once it has ended; nil before the first start
	log  string
}

// New prepares a machine; Docker does not run yet. dockerd is the program to run. All of it ends with the test.
func New(t *testing.T, host *lab.Host, dockerd, programs string) *Machine {
	t.Helper()
	root := filepath.Join(host.Dir, "machine")
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	m := &Machine{Host: host, Env: host.Environment(), path: strings.Join([]string{binDir, programs, filepath.Dir(dockerd), os.Getenv("PATH"), "/usr/sbin:/sbin"}, ":")}
	m.dockerd.log = filepath.Join(host.Dir, "dockerd.log")
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
		if t.Failed() {
			t.Logf("log of dockerd on %s, what is not mere information:\n%s", host, m.complaints())
		}
		// With its init every process of the machine ends, and with them the mounts.
		_ = m.init.Process.Kill()
		<-ended
		if m.dockerd.done != nil {
			<-m.dockerd.done
		}
	})
	if err := <-started; err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	return m
}

// Command prepares a command that runs on the machine.
func (m *Machine) Command(ctx context.Context, line ...string) *exec.Cmd {
	enter := []string{"--target", strconv.Itoa(m.init.Process.Pid), "--mount", "--pid", "--net", "--"}
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

// StartDocker starts it and waits until it answers.
func (m *Machine) StartDocker(t *testing.T, options ...string) {
	t.Helper()
	log, err := os.OpenFile(m.dockerd.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := m.Command(context.Background(), append([]string{"dockerd"}, options...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	m.dockerd.done = done
	go func() {
		defer close(done)
		_ = cmd.Wait()
	}()
	m.Retry(t, startTimeout, "docker answers", func() error {
		select {
		case <-done:
			t.Fatalf("dockerd on %s has ended: %s", m, cmd.ProcessState)
		default:
		}
		_, err := docker.Connect(t.Context(), m.File("/run/docker.sock"))
		return err
	})
}

// complaints returns the lines of dockerd's log that matter.
func (m *Machine) complaints() string {
	text, err := os.ReadFile(m.dockerd.log)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, "level=info") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// StopDocker stops it as systemd would, with its containers.
func (m *Machine) StopDocker(t *testing.T) {
	t.Helper()
	m.Run(t, "sh", "-c", "kill $(cat /run/docker.pid)")
	select {
	case <-m.dockerd.done:
	case <-time.After(stopTimeout):
		t.Fatalf("dockerd on %s still runs %v after SIGTERM", m, stopTimeout)
	}
}

// RestartDocker stops and starts it.
func (m *Machine) RestartDocker(t *testing.T) {
	t.Helper()
	m.StopDocker(t)
	m.StartDocker(t)
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
