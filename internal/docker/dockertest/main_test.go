//go:build linux

package dockertest_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"tulle/internal/docker/dockertest"
	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/ip"
)

func TestMain(m *testing.M) { labtest.Main(m) }

// engine is a dockerd to test with, and what its configuration says before tulle comes.
type engine struct {
	name, dockerd, daemonJSON string
	nftables                  bool
}

// filters reports whether Docker has packet filter rules for a family: since 27 for IPv6 too.
func (e engine) filters(f ip.Family) bool { return f == ip.IPv4 || e.daemonJSON != "" }

// engines are the dockerd in PATH, and that of DockerdEnv with either of its firewall backends.
func engines(t *testing.T) []engine {
	t.Helper()
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	for _, program := range []string{"dockerd", "docker", "busybox", "nsenter", "iptables"} {
		if _, err := exec.LookPath(program); err != nil && os.Getenv("CI") == "" {
			t.Skipf("needs %s (make test-docker installs it on Debian): %v", program, err)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if ids, err := os.ReadFile("/proc/self/uid_map"); (err != nil || !strings.Contains(string(ids), "4294967295")) && os.Getenv("CI") == "" {
		t.Skipf("needs root outside of any user namespace: uid_map is %q (%v)", ids, err)
	}
	dockerd, err := exec.LookPath("dockerd")
	if err != nil {
		t.Fatal(err)
	}
	list := []engine{{name: "packaged", dockerd: dockerd}}
	if newer := os.Getenv(dockertest.DockerdEnv); newer != "" {
		list = append(list,
			engine{"newer-iptables", newer, `{ "debug":false, "firewall-backend":"iptables" }`, false},
			engine{"newer-nftables", newer, `{ "debug":false, "firewall-backend":"nftables" }`, true},
		)
	}
	return list
}

// upLab runs a fabric of hosts without containers.
func upLab(t *testing.T, hosts int) *lab.Lab {
	t.Helper()
	return upLabOf(t, lab.Config{Hosts: hosts})
}

func upLabOf(t *testing.T, config lab.Config) *lab.Lab {
	t.Helper()
	config.FastPath = "on"
	l := labtest.New(t, config)
	startFabric(t, l)
	return l
}

func startFabric(t *testing.T, l *lab.Lab) {
	t.Helper()
	for _, step := range []func(context.Context) error{l.Etcd.Start, l.Configure, l.StartDaemons} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// newMachines gives every host a Docker that knows the test image.
func newMachines(t *testing.T, l *lab.Lab, e engine) []*dockertest.Machine {
	t.Helper()
	var machines []*dockertest.Machine
	for _, host := range l.Hosts {
		machines = append(machines, newMachine(t, host, e))
	}
	return machines
}

func newMachine(t *testing.T, host *lab.Host, e engine) *dockertest.Machine {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	m := dockertest.New(t, host, e.dockerd, labtest.Programs())
	if e.daemonJSON != "" {
		writeDaemonJSON(t, m, e.daemonJSON)
	}
	if e.nftables {
		// With this backend Docker leaves it to the administrator, and does not start without.
		m.Run(t, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
	}
	m.StartDocker(t)
	m.Import(t, busybox)
	return m
}

func writeDaemonJSON(t *testing.T, m *dockertest.Machine, text string) {
	t.Helper()
	if err := os.WriteFile(m.File("/etc/docker/daemon.json"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
