//go:build linux

package dockertest_test

import (
	"os"
	"strings"
	"testing"

	"tulle/internal/docker"
	"tulle/subnet/flannel"
)

// Docker gets the lease only if nobody else hands it out, and CNI only if Docker does not. Who has it already gets it again.
func TestOneAllocator(t *testing.T) {
	host := upLab(t, 1).Hosts[0]
	m := newMachine(t, host, engines(t)[0])
	env, err := flannel.ReadEnv(host.SubnetFile())
	if err != nil {
		t.Fatal(err)
	}
	gateway := docker.Gateway(env.Subnets.V4).String() + "/24"
	refuses := func(want string, args ...string) {
		t.Helper()
		out, err := m.Try(t, append([]string{"tulle"}, args...)...)
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("tulle %s: %s (%v), want failure that says %q", strings.Join(args, " "), out, err, want)
		}
	}
	configure, create := []string{"docker", "configure"}, []string{"docker", "network", "create", "fabric"}
	install := []string{"cni", "install", "--plugin", "/bin/sh", "--bin-dir", "/run/cni/bin", "--conf-dir", "/run/cni/net.d", "--data-dir", "/run/cni/data"}

	for _, args := range [][]string{configure, create} {
		m.Run(t, "sh", "-c", `mkdir -p /run/cni/net.d && echo '{"name":"cbr0","plugins":[{"type":"flannel"}]}' >/run/cni/net.d/10-flannel.conflist`)
		refuses("CNI network cbr0 holds it by /run/cni/net.d/10-flannel.conflist", append(args, "--cni-conf-dir", "/run/cni/net.d")...)
		m.Run(t, "rm", "/run/cni/net.d/10-flannel.conflist")
		m.Run(t, "ip", "link", "add", "cni0", "type", "bridge")
		m.Run(t, "ip", "address", "add", gateway, "dev", "cni0")
		refuses("bridge cni0 holds "+gateway, args...)
		m.Run(t, "ip", "link", "del", "cni0")
	}
	if text, err := os.ReadFile(m.File("/etc/docker/daemon.json")); err == nil {
		t.Errorf("daemon.json is %q after refusals, want none", text)
	}

	for range 2 {
		m.Run(t, append([]string{"tulle"}, create...)...)
	}
	refuses("bridge br-", install...)
	m.Run(t, "tulle", "docker", "network", "rm", "fabric")
	m.Run(t, append([]string{"tulle"}, configure...)...)
	m.RestartDocker(t)
	requireSays(t, m.Run(t, append([]string{"tulle"}, configure...)...), "Docker need not restart.")
	refuses("bridge docker0 holds "+gateway, install...)
}
