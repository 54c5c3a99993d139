//go:build linux

package dockertest_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tulle/internal/docker/dockertest"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

// Two hosts put docker0 on the fabric, as the README does:
//
//	h1: tulled, dockerd, container "web" ── flannel.1 ─── underlay ─── flannel.1 ── h2: tulled, dockerd, container "web"
func TestDocker0(t *testing.T) {
	for _, e := range engines(t) {
		t.Run(e.name, func(t *testing.T) {
			l := upLab(t, 2)
			machines := newMachines(t, l, e)
			for _, m := range machines {
				configure(t, m)
			}
			a, b := runContainer(t, machines[0], "bridge", "web"), runContainer(t, machines[1], "bridge", "web")
			requireMTU(t, a)
			requireReach(t, a, b)
			requireTransfer(t, a, b)
			requirePublished(t, b, a, e)

			requireHeals(t, a, b, e)
			requireReach(t, a, b)
			requireSources(t, l, a, b, e)

			if out, err := a.Try(t, "tulle", "docker", "network", "create", "fabric"); err == nil || !strings.Contains(out, "docker0") {
				t.Errorf("a network beside docker0: error %v, want one that names docker0", err)
			}
			a.Run(t, "docker", "rm", "--force", "web")
			requireMovedDocker0(t, a.Machine)
			unconfigure(t, a.Machine, e)
		})
	}
}

// configure gives docker0 the lease and restarts Docker.
func configure(t *testing.T, m *dockertest.Machine) {
	t.Helper()
	out := m.Run(t, "tulle", "docker", "configure")
	t.Logf("tulle docker configure on %s:\n%s", m, out)
	requireSays(t, out, "Docker must restart: docker0: it holds 172.17.0.0/16, but the lease is")
	if out, err := m.Try(t, "tulle", "docker", "status"); err == nil || !strings.Contains(out, "tulle docker configure --restart") {
		t.Errorf("status before Docker's restart: %s (%v), want failure and a remedy", out, err)
	}
	if out, err := m.Try(t, "tulle", "docker", "configure", "--restart"); err == nil || !strings.Contains(out, "systemd does not run here") {
		t.Errorf("--restart without systemd: %s (%v), want failure that names systemd", out, err)
	}
	m.RestartDocker(t)
	requireSays(t, m.Run(t, "tulle", "docker", "configure"), "Docker need not restart.")
	t.Logf("tulle docker status on %s:\n%s", m, m.Run(t, "tulle", "docker", "status"))
	if _, err := os.Stat(m.File(dropIn)); err != nil {
		t.Errorf("drop-in for systemd: %v", err)
	}
}

// requireMovedDocker0 changes the lease and lets docker0 follow.
func requireMovedDocker0(t *testing.T, m *dockertest.Machine) {
	t.Helper()
	changeLease(t, m)
	out, err := m.Try(t, "tulle", "docker", "status", "--subnet-file", changedEnv)
	if err == nil {
		t.Error("status after the lease has changed: success, want failure")
	}
	t.Logf("tulle docker status:\n%s", out)
	requireSays(t, out, "but the lease is 10.244.250.0/24,fd10:244:0:fa::/64")
	requireSays(t, out, "tulle docker configure --restart")
	m.Run(t, "tulle", "docker", "configure", "--subnet-file", changedEnv)
	m.RestartDocker(t)
	m.Run(t, "tulle", "docker", "status", "--subnet-file", changedEnv)
	if out := m.Run(t, "ip", "-br", "address", "show", "docker0"); !strings.Contains(out, " 10.244.250.1/24 fd10:244:0:fa::1/64 fe80:") {
		t.Errorf("docker0 keeps addresses: %s", out)
	}
}

// unconfigure puts everything back by hand.
func unconfigure(t *testing.T, m *dockertest.Machine, e engine) {
	t.Helper()
	out := m.Run(t, "tulle", "docker", "unconfigure")
	t.Logf("tulle docker unconfigure on %s:\n%s", m, out)
	requireSays(t, out, "systemctl restart docker && tulle docker unconfigure")
	if again := m.Run(t, "tulle", "docker", "unconfigure"); !strings.Contains(again, "docker0 holds the lease until Docker restarts") {
		t.Errorf("unconfigure before Docker's restart: %s", again)
	}
	if _, err := os.Stat(m.File(dropIn)); err == nil {
		t.Error("the drop-in for systemd is left over")
	}
	m.RestartDocker(t)
	t.Logf("tulle docker unconfigure on %s:\n%s", m, m.Run(t, "tulle", "docker", "unconfigure"))
	text, err := os.ReadFile(m.File("/etc/docker/daemon.json"))
	if string(text) != e.daemonJSON || (err != nil) != (e.daemonJSON == "") {
		t.Errorf("daemon.json is %q (%v), want %q", text, err, e.daemonJSON)
	}
	left, err := filepath.Glob(m.File("/etc/docker/daemon.json?*"))
	if err != nil || len(left) > 0 {
		t.Errorf("%q is left over (%v)", left, err)
	}
	requireSays(t, m.Run(t, "tulle", "docker", "status"), "no Docker network holds the lease")
}

// Two hosts put a network of its own on the fabric: Docker does not restart.
func TestNetwork(t *testing.T) {
	for _, e := range engines(t) {
		t.Run(e.name, func(t *testing.T) {
			machines := newMachines(t, upLab(t, 2), e)
			for _, m := range machines {
				out := m.Run(t, "tulle", "docker", "network", "create", "fabric")
				t.Log(out)
				if e.nftables {
					requireSays(t, out, `"bridge-accept-fwmark": "0x2000/0x2000"`)
					writeDaemonJSON(t, m, `{"firewall-backend":"nftables", "bridge-accept-fwmark": "0x2000/0x2000"}`)
					m.RestartDocker(t)
				}
				requireSays(t, m.Run(t, "tulle", "docker", "network", "create", "fabric"), "holds the lease already")
			}
			a, b := runContainer(t, machines[0], "fabric", "web"), runContainer(t, machines[1], "fabric", "web")
			t.Logf("tulle docker network ls on h1:\n%s", a.Run(t, "tulle", "docker", "network", "ls"))
			requireMTU(t, a)
			requireReach(t, a, b)
			requireTransfer(t, b, a)
			requirePublished(t, a, b, e)
			a.RestartDocker(t)
			a.inspect(t, "fabric")
			requireReach(t, a, b)

			for _, refused := range [][]string{
				{"network", "create", "second"}, {"network", "create", "bridge"}, {"network", "rm", "fabric"}, {"network", "rm", "bridge"}, {"configure"},
			} {
				out, err := a.Try(t, append([]string{"tulle", "docker"}, refused...)...)
				t.Logf("tulle docker %s: %s", strings.Join(refused, " "), out)
				if err == nil {
					t.Errorf("tulle docker %q: success, want refusal", refused)
				}
			}
			requireMoved(t, a)
		})
	}
}

// requireMoved changes the lease under a running container: status says how to move the network, and that works.
func requireMoved(t *testing.T, c *container) {
	t.Helper()
	changeLease(t, c.Machine)
	out, err := c.Try(t, "tulle", "docker", "status", "--subnet-file", changedEnv)
	if err == nil {
		t.Error("status after the lease has changed: success, want failure")
	}
	t.Logf("tulle docker status:\n%s", out)
	requireSays(t, out, "but the lease is 10.244.250.0/24,fd10:244:0:fa::/64")
	requireSays(t, out, "tulle docker network rm fabric && tulle docker network create fabric")
	c.exec(t, "true")
	c.Run(t, "docker", "rm", "--force", c.name)
	c.Run(t, "tulle", "docker", "network", "rm", "fabric")
	c.Run(t, "tulle", "docker", "network", "create", "fabric", "--subnet-file", changedEnv)
	c.Run(t, "tulle", "docker", "status", "--subnet-file", changedEnv)
}

// changedEnv is a subnet file on a machine, with a lease that the fabric does not know.
const changedEnv = "/etc/changed.env"

func changeLease(t *testing.T, m *dockertest.Machine) {
	t.Helper()
	env, err := flannel.ReadEnv(m.SubnetFile())
	if err != nil {
		t.Fatal(err)
	}
	env.Subnets = subnet.Subnets{V4: netip.MustParsePrefix("10.244.250.0/24"), V6: netip.MustParsePrefix("fd10:244:0:fa::/64")}
	if _, err := env.WriteFile(m.File(changedEnv)); err != nil {
		t.Fatal(err)
	}
}

func requireSays(t *testing.T, out, want string) {
	t.Helper()
	if !strings.Contains(out, want) {
		t.Errorf("says\n%s\nwant %q in it", out, want)
	}
}
