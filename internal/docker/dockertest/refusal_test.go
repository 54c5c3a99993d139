//go:build linux

package dockertest_test

import (
	"os"
	"strings"
	"testing"

	"tulle/internal/docker/dockertest"
)

const dropIn = "/etc/systemd/system/docker.service.d/tulle.conf"

// What would keep Docker from starting, or the restart from helping, is said before anything is changed.
func TestConfigureRefuses(t *testing.T) {
	e := engines(t)[0]
	m := newMachine(t, upLab(t, 1).Hosts[0], e)
	requireRefusal := func(want string, args ...string) {
		t.Helper()
		out, err := m.Try(t, append([]string{"tulle", "docker"}, args...)...)
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("tulle docker %s: %s (%v), want failure that says %q", strings.Join(args, " "), out, err, want)
		}
	}
	requireUntouched := func(want string) {
		t.Helper()
		if text, err := os.ReadFile(m.File("/etc/docker/daemon.json")); string(text) != want || (err != nil) != (want == "") {
			t.Errorf("daemon.json is %q (%v), want %q", text, err, want)
		}
	}

	m.StopDocker(t)
	requireRefusal("give --docker-version", "configure")
	requireRefusal("no docker answers", "network", "create", "fabric")
	requireRefusal("no docker answers", "status")
	m.StartDocker(t, "--mtu=1400")
	requireRefusal("dockerd runs with --mtu=1400", "configure")
	requireUntouched("")
	// Flags that come from where the drop-in goes are gone with the restart.
	m.Run(t, "install", "-D", "/dev/null", dropIn)
	if err := os.WriteFile(m.File(dropIn), []byte("[Service]\nExecStart=\nExecStart=dockerd --mtu=1400\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	m.Run(t, "tulle", "docker", "configure")
	requireSays(t, m.Run(t, "cat", dropIn), "After=tulled.service")
	m.Run(t, "tulle", "docker", "unconfigure")
	requireUntouched("")

	m.StopDocker(t)
	broken := "{\n  \"debug\": true,\n}"
	writeDaemonJSON(t, m, broken)
	requireRefusal("/etc/docker/daemon.json: line 3", "configure", "--docker-version=20.10")
	requireUntouched(broken)

	conflicting := `{"live-restore":true, "mtu":1400}`
	writeDaemonJSON(t, m, conflicting)
	m.StartDocker(t)
	requireRefusal("mtu is 1400, must be 1430", "configure")
	requireUntouched(conflicting)

	requireLiveRestore(t, m)
	m.Run(t, "tulle", "docker", "unconfigure", "--restart")
	requireUntouched(conflicting)
}

// requireLiveRestore lets a container outlive a restart of Docker, and with it docker0's address.
func requireLiveRestore(t *testing.T, m *dockertest.Machine) {
	t.Helper()
	m.Run(t, "docker", "run", "--detach", "--name=web", "--init", "--stop-timeout=1", dockertest.Image)
	m.WithSystemctl(t)
	m.Env = m.Environment()
	out, err := m.Try(t, "tulle", "docker", "configure", "--force", "--restart")
	if err == nil || !strings.Contains(out, "live-restore keeps docker0 as it is while containers run: stop the 1 that do") {
		t.Errorf("--restart with live-restore: %s (%v), want failure that says why", out, err)
	}
	m.Run(t, "docker", "rm", "--force", "web")
	requireSays(t, m.Run(t, "tulle", "docker", "configure", "--restart"), "Docker has restarted.")
	m.Run(t, "tulle", "docker", "status")
	m.Run(t, "tulle", "docker", "configure", "--env-file=/run/docker_opts.env")
	requireSays(t, m.Run(t, "cat", "/run/docker_opts.env"), `DOCKER_OPT_MTU="--mtu=1430"`)
}
