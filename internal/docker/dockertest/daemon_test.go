//go:build linux

package dockertest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tulle/internal/docker/dockertest"
)

// What counts is how this dockerd runs: not the usual files, and not who else has the number in one of them.
func TestConfigureFindsDaemon(t *testing.T) {
	for _, e := range engines(t) {
		if e.daemonJSON != "" && e.nftables {
			continue // how dockerd is found does not depend on its firewall
		}
		t.Run(e.name, func(t *testing.T) {
			m := newMachine(t, upLab(t, 1).Hosts[0], engine{name: e.name, dockerd: e.dockerd})
			m.StopDocker(t)
			elsewhere := []string{"--pidfile=/run/other.pid", "--config-file=/etc/other/docker.json"}
			writeFile(t, m, "/etc/other/docker.json", "{\"debug\":false}")
			requireFlagsSeen(t, m, elsewhere)

			// Another program has the number that an earlier dockerd left behind.
			m.Run(t, "sh", "-c", "sh -c 'sleep 1000; :' dockerd --mtu=1400 >/dev/null 2>&1 & echo $! >/run/docker.pid")
			m.StartDocker(t, elsewhere...)
			requireSays(t, m.Run(t, "tulle", "docker", "configure"), "/etc/other/docker.json:")
			requireText(t, m, "/etc/docker/daemon.json", "")
			m.RestartDocker(t, elsewhere...)
			requireSays(t, m.Run(t, "tulle", "docker", "configure"), "Docker need not restart.")
			m.Run(t, "tulle", "docker", "status")
			requireRefused(t, m, "reads /etc/other/docker.json, not /etc/docker/daemon.json", "status", "--daemon-json=/etc/docker/daemon.json")
			m.Run(t, "tulle", "docker", "unconfigure")
			m.RestartDocker(t, elsewhere...)
			m.Run(t, "tulle", "docker", "unconfigure")
			requireText(t, m, "/etc/other/docker.json", "{\"debug\":false}")
			m.StopDocker(t)

			requireStoppedSeen(t, m)
		})
	}
}

// requireFlagsSeen starts Docker with what does not go with a lease, or would be there twice.
func requireFlagsSeen(t *testing.T, m *dockertest.Machine, elsewhere []string) {
	t.Helper()
	for _, flags := range [][]string{{"--mtu=1400"}, {"--mtu", "1400"}, {"--default-gateway=172.17.0.9"}, {"--fixed-cidr", "172.17.4.0/24"}, {"-b", "none"}} {
		m.StartDocker(t, append(elsewhere, flags...)...)
		requireRefused(t, m, "dockerd runs with "+strings.Join(flags, " "), "configure")
		requireText(t, m, "/etc/docker/daemon.json", "")
		requireText(t, m, "/etc/other/docker.json", "{\"debug\":false}")
		m.StopDocker(t)
	}
	m.StartDocker(t, append(elsewhere, "--host=unix:///run/other.sock", "--host=unix:///run/docker.sock")...)
	requireRefused(t, m, "give --docker-socket", "configure", "--docker-socket=/run/none.sock", "--docker-version=20.10")
	m.StopDocker(t)
}

// requireStoppedSeen asks the unit how Docker will start.
func requireStoppedSeen(t *testing.T, m *dockertest.Machine) {
	t.Helper()
	const configure = "configure"
	unit := "[Service]\nEnvironmentFile=-/etc/default/docker\nExecStart=/usr/sbin/dockerd -H fd:// \\\n  --config-file /etc/unit/docker.json $DOCKER_OPTS\n"
	writeFile(t, m, "/etc/systemd/system/docker.service", unit)
	writeFile(t, m, "/etc/default/docker", "# none\nDOCKER_OPTS=\"--default-gateway=10.9.0.1 --mtu=1400\"\n")
	requireRefused(t, m, "--default-gateway=10.9.0.1 and --mtu=1400", configure, "--docker-version=20.10")
	writeFile(t, m, "/etc/default/docker", "")
	out := m.Run(t, "tulle", "docker", configure, "--docker-version=20.10")
	requireSays(t, out, "/etc/unit/docker.json:")
	requireSays(t, out, "as /etc/systemd/system/docker.service says")
	m.Run(t, "tulle", "docker", "unconfigure")
	requireText(t, m, "/etc/unit/docker.json", "")
}

// What dockerd itself refuses never gets in place.
func TestConfigureAsksDaemon(t *testing.T) {
	const marked = "\ufeff{\"debug\":false}"
	for _, e := range engines(t) {
		t.Run(e.name, func(t *testing.T) {
			m := newMachine(t, upLab(t, 1).Hosts[0], e)
			m.RestartDocker(t, "--log-level=info")
			refused := map[string]string{
				`{"no-such-key":true}`: "no-such-key",
				`{"log-level":"info"}`: "specified both as a flag and in the configuration file: log-level",
			}
			if e.daemonJSON == "" {
				// Debian's does not know --validate, nor a byte order mark.
				refused = map[string]string{marked: "Docker 20.10 cannot read"}
				writeFile(t, m, "/etc/marked.json", marked)
				out, err := m.Try(t, "timeout", "30", "dockerd", "--pidfile=/run/marked.pid", "--config-file=/etc/marked.json")
				if err == nil || !strings.Contains(out, "invalid character") {
					t.Errorf("dockerd with a byte order mark: %s, want refusal", out)
				}
			}
			for text, says := range refused {
				writeFile(t, m, "/etc/docker/daemon.json", text)
				requireRefused(t, m, says, "configure")
				requireText(t, m, "/etc/docker/daemon.json", text)
				if left := m.Run(t, "ls", "-A", "/etc/docker"); strings.Contains(left, "tulle") {
					t.Errorf("left in /etc/docker: %s", left)
				}
			}
			if e.daemonJSON == "" {
				return
			}
			text := "\ufeff" + e.daemonJSON
			writeFile(t, m, "/etc/docker/daemon.json", text)
			m.Run(t, "tulle", "docker", "configure")
			m.RestartDocker(t, "--log-level=info")
			requireSays(t, m.Run(t, "tulle", "docker", "configure"), "Docker need not restart.")
			m.Run(t, "tulle", "docker", "unconfigure")
			m.RestartDocker(t, "--log-level=info")
			m.Run(t, "tulle", "docker", "unconfigure")
			requireText(t, m, "/etc/docker/daemon.json", text)
		})
	}
}

// Pools that overlap the network are named, and the remedy for what Docker made from them works.
func TestAddressPools(t *testing.T) {
	e := engines(t)[0]
	m := newMachine(t, upLab(t, 1).Hosts[0], engine{name: e.name, dockerd: e.dockerd})
	const pools = `{"default-address-pools":[{"base":"10.244.128.0/17","size":24},{"base":"192.168.64.0/18","size":24}]}`
	writeFile(t, m, "/etc/docker/daemon.json", pools)
	m.RestartDocker(t)
	requireSays(t, m.Run(t, "tulle", "docker", "configure"), "take 10.244.128.0/17 out of default-address-pools in /etc/docker/daemon.json")
	m.RestartDocker(t)
	m.Run(t, "docker", "network", "create", "app")
	remedy := "docker network rm app && docker network create app"
	out, err := m.Try(t, "tulle", "docker", "status")
	if err == nil || !strings.Contains(out, "take 10.244.128.0/17 out of default-address-pools") || !strings.Contains(out, remedy) {
		t.Errorf("status: %s (%v), want failure with the pool and %q", out, err, remedy)
	}
	text, err := os.ReadFile(m.File("/etc/docker/daemon.json"))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, m, "/etc/docker/daemon.json", strings.Replace(string(text), `{"base":"10.244.128.0/17","size":24},`, "", 1))
	m.RestartDocker(t)
	requireSays(t, m.Run(t, "sh", "-c", "tulle docker status | tail -n 1"), remedy)
	m.Run(t, "sh", "-c", remedy)
	m.Run(t, "tulle", "docker", "status")
}

// A file that cannot be replaced stays as it is, and nothing is left beside it.
func TestConfigureCannotReplace(t *testing.T) {
	m := newMachine(t, upLab(t, 1).Hosts[0], engines(t)[0])
	m.StopDocker(t)
	const text = `{"debug":false}`
	for _, test := range []struct{ name, prepare, says string }{
		{"mounted", "mount --bind /etc/docker/source.json /etc/docker/daemon.json", "umount /etc/docker/daemon.json"},
		{"read-only", "mount --bind /etc/docker /etc/docker && mount -o remount,bind,ro /etc/docker", "file system is read-only"},
	} {
		t.Run(test.name, func(t *testing.T) {
			writeFile(t, m, "/etc/docker/source.json", text)
			writeFile(t, m, "/etc/docker/daemon.json", text)
			m.Run(t, "sh", "-c", test.prepare)
			requireRefused(t, m, test.says, "configure", "--docker-version=20.10")
			requireText(t, m, "/etc/docker/daemon.json", text)
			if out := m.Run(t, "ls", "-A", "/etc/docker"); strings.Contains(out, "tulle") {
				t.Errorf("left in /etc/docker: %s", out)
			}
			m.Run(t, "sh", "-c", "umount /etc/docker/daemon.json 2>/dev/null || umount /etc/docker")
			m.Run(t, "sh", "-c", "rm -f /etc/docker/*")
		})
	}
}

func writeFile(t *testing.T, m *dockertest.Machine, path, text string) {
	t.Helper()
	m.Run(t, "mkdir", "-p", filepath.Dir(path))
	if err := os.WriteFile(m.File(path), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func requireText(t *testing.T, m *dockertest.Machine, path, want string) {
	t.Helper()
	if text, err := os.ReadFile(m.File(path)); string(text) != want || (err != nil) != (want == "") {
		t.Errorf("%s is %q (%v), want %q", path, text, err, want)
	}
}

func requireRefused(t *testing.T, m *dockertest.Machine, want string, args ...string) {
	t.Helper()
	out, err := m.Try(t, append([]string{"tulle", "docker"}, args...)...)
	if err == nil || !strings.Contains(out, want) {
		t.Errorf("tulle docker %s: %s, want failure that says %q", fmt.Sprint(args), out, want)
	}
}
