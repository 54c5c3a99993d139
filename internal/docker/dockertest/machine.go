//go:build linux

// Package dockertest gives the hosts of a lab a real Docker each.
package dockertest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tulle/internal/docker"
	"tulle/internal/lab"
	"tulle/internal/lab/machinetest"
)

// DockerdEnv names a dockerd to test beside the one in PATH. Its containerd, runc, shim and proxy stand beside it.
const DockerdEnv = "TULLE_TEST_DOCKERD"

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 30 * time.Second
)

// Machine is a host of a lab with a Docker of its own.
type Machine struct {
	*machinetest.Machine

	dockerd process
}

type process struct {
	done    chan struct{} // closed once it has ended; nil before the first start
	log     string
	pidFile string
}

// New prepares a machine; Docker does not run yet. dockerd is the program to run. All of it ends with the test.
func New(t *testing.T, host *lab.Host, dockerd, programs string) *Machine {
	t.Helper()
	m := &Machine{dockerd: process{log: filepath.Join(host.Dir, "dockerd.log")}}
	// Runs after the machine has ended, and dockerd with it.
	t.Cleanup(func() {
		if m.dockerd.done == nil {
			return
		}
		<-m.dockerd.done
		if t.Failed() {
			t.Logf("log of dockerd on %s, what is not mere information:\n%s", host, m.complaints())
		}
	})
	m.Machine = machinetest.New(t, host, programs, filepath.Dir(dockerd))
	return m
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
	m.dockerd.pidFile = "/run/docker.pid"
	for _, option := range options {
		if file, ok := strings.CutPrefix(option, "--pidfile="); ok {
			m.dockerd.pidFile = file
		}
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
	m.Run(t, "sh", "-c", "kill $(cat "+m.dockerd.pidFile+")")
	select {
	case <-m.dockerd.done:
	case <-time.After(stopTimeout):
		t.Fatalf("dockerd on %s still runs %v after SIGTERM", m, stopTimeout)
	}
}

// RestartDocker stops and starts it.
func (m *Machine) RestartDocker(t *testing.T, options ...string) {
	t.Helper()
	m.StopDocker(t)
	m.StartDocker(t, options...)
}
