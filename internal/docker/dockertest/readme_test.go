//go:build linux

package dockertest_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tulle/internal/docker/dockertest"
)

// systemctl does what systemd would do for the commands of the README: there is none on a lab's hosts.
const systemctl = `#!/bin/sh
case "$*" in
daemon-reload)
	;;
"enable --now tulled")
	grep -q ExecStart=/usr/bin/tulled /etc/systemd/system/tulled.service || exit 1
	set -a
	. /etc/tulle/tulled.env
	setsid tulled >/run/tulled.log 2>&1 </dev/null &
	until tulle status >/dev/null 2>&1; do sleep 0.1; done
	;;
"restart docker")
	grep -q After=tulled.service /etc/systemd/system/docker.service.d/tulle.conf || exit 1
	kill "$(cat /run/docker.pid)"
	while [ -e /run/docker.pid ]; do sleep 0.1; done
	setsid dockerd >/run/dockerd.log 2>&1 </dev/null &
	until docker version >/dev/null 2>&1; do sleep 0.1; done
	;;
*)
	echo "what is $*?"
	exit 1
	;;
esac
`

// TestReadme pastes the README's commands on three hosts.
func TestReadme(t *testing.T) {
	const section, exampleHost, exampleContainer = "## Docker on three hosts", "192.0.2.10", "10.5.34.2"
	for _, e := range engines(t) {
		t.Run(e.name, func(t *testing.T) {
			blocks := commands(t, section)
			if len(blocks) != 3 {
				t.Fatalf("%s has %d blocks of commands, want three", section, len(blocks))
			}
			if count := strings.Count(strings.Join(blocks, ""), "\n"); count >= 10 {
				t.Errorf("%s has %d commands, want fewer than ten", section, count)
			}
			l := newLab(t, 3)
			machines := newMachines(t, l, e)
			first := l.Hosts[0].Addr.V4.String()
			for _, m := range machines {
				withSystemctl(t, m)
			}
			paste(t, machines[0], strings.ReplaceAll(blocks[0], exampleHost, first))
			addr := map[*dockertest.Machine]netip.Addr{}
			for _, m := range machines {
				paste(t, m, strings.ReplaceAll(blocks[1], exampleHost, first))
				acceptForwardedByHand(t, m)
				addr[m] = address(t, m)
			}
			for _, from := range machines {
				for _, to := range machines {
					if from != to {
						paste(t, from, strings.ReplaceAll(blocks[2], exampleContainer, addr[to].String()))
					}
				}
			}
		})
	}
}

// withSystemctl makes m a host on which systemd seems to run, and nothing of a lab's.
func withSystemctl(t *testing.T, m *dockertest.Machine) {
	t.Helper()
	m.Env = nil
	m.Run(t, "sh", "-c", "rm /run/flannel /run/tulle && mkdir -p /run/systemd/system && echo "+strings.Repeat(m.Name[1:], 32)+" >/etc/machine-id")
	if err := os.WriteFile(m.File("/run/bin/systemctl"), []byte(systemctl), 0o755); err != nil {
		t.Fatal(err)
	}
}

// commands returns the indented blocks in a section of the README.
func commands(t *testing.T, section string) []string {
	t.Helper()
	text, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), section+"\n")
	rest, _, _ = strings.Cut(rest, "\n## ")
	var blocks []string
	for paragraph := range strings.SplitSeq(rest, "\n\n") {
		if strings.HasPrefix(paragraph, "    ") {
			blocks = append(blocks, strings.ReplaceAll(paragraph, "    ", "")+"\n")
		}
	}
	return blocks
}

// paste runs commands in the repository, as a person would in a shell.
func paste(t *testing.T, m *dockertest.Machine, lines string) {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	// To a file: what stays in the background would keep a pipe open.
	out, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := m.Command(t.Context(), "sh", "-e", "-c", fmt.Sprintf("cd '%s'\n%s", root, lines))
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	text, _ := os.ReadFile(out.Name())
	if err != nil {
		t.Fatalf("on %s: %v\n%s\n%s", m, err, lines, text)
	}
	t.Logf("on %s:\n%s%s", m, lines, text)
}

// address is that of the container that the README starts.
func address(t *testing.T, m *dockertest.Machine) netip.Addr {
	t.Helper()
	out := m.Run(t, "docker", "exec", "one", "ip", "-o", "-4", "addr", "show", "eth0")
	_, rest, _ := strings.Cut(out, "inet ")
	prefix, err := netip.ParsePrefix(strings.Fields(rest + " none")[0])
	if err != nil {
		t.Fatalf("address of the container on %s: %q: %v", m, out, err)
	}
	return prefix.Addr()
}
