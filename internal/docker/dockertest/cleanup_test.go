//go:build linux

package dockertest_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tulle/internal/docker"
	"tulle/internal/docker/dockertest"
	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/internal/lab/machinetest"
	"tulle/ip"
)

// A host that ran Docker before Tulle came is as it was, after a network of Docker's and docker0 have been on the fabric.
func TestCleanupLeavesNoTrace(t *testing.T) {
	for _, e := range engines(t) {
		t.Run(e.name, func(t *testing.T) {
			l := labtest.New(t, lab.Config{Hosts: 2, FastPath: "on"})
			m := newMachine(t, l.Hosts[0], e)
			useDocker(t, m)
			before := machinetest.Traces(t, m.Host)
			startFabric(t, l)
			m.WithSystemctl(t)
			m.Env = m.Environment()

			m.Run(t, "tulle", "docker", "network", "create", "fabric")
			requireReachesHost(t, m, "fabric", l.Hosts[1])
			m.Run(t, "tulle", "docker", "network", "rm", "fabric")

			m.Run(t, "tulle", "docker", "configure", "--restart")
			requireReachesHost(t, m, docker.DefaultNetwork, l.Hosts[1])
			if machinetest.Traces(t, m.Host) == before {
				t.Error("the fabric leaves no trace even while it is there")
			}

			if err := m.StopDaemon(); err != nil {
				t.Fatal(err)
			}
			requireSays(t, m.Run(t, "tulle", "cleanup", "--dry-run"), "docker0 keeps ")
			t.Log(m.Run(t, "tulle", "docker", "unconfigure", "--restart"))
			if out := m.Run(t, "tulle", "cleanup"); strings.Contains(out, "docker0") {
				t.Errorf("tulle cleanup after unconfigure names docker0:\n%s", out)
			}
			if after := machinetest.Traces(t, m.Host); after != before {
				t.Errorf("before (-) and after (+) differ:\n%s", cmp.Diff(before, after))
			}
		})
	}
}

// useDocker does to a host what leaves traces of Docker's own and of the kernel's.
func useDocker(t *testing.T, m *dockertest.Machine) {
	t.Helper()
	// Forwarding stays on, for others may rely on it by now. With IPv6 it shows in the tables of routes.
	m.Run(t, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
	m.Run(t, "docker", "network", "create", "--ipv6", "--subnet=fd00:d::/64", "six")
	for _, network := range []string{"six", docker.DefaultNetwork} {
		m.Run(t, "docker", "run", "--detach", "--init", "--name=first", "--network="+network, dockertest.Image)
		m.Retry(t, healTimeout, "docker0 has all its addresses", func() error {
			if out := m.Run(t, "ip", "-6", "address", "show", "tentative"); out != "" {
				return errors.New(out)
			}
			return nil
		})
		m.Run(t, "docker", "rm", "--force", "first")
	}
	m.Run(t, "docker", "network", "rm", "six")
	m.RestartDocker(t)
}

// requireReachesHost lets a container on a network reach the addresses that another host has in the fabric.
func requireReachesHost(t *testing.T, m *dockertest.Machine, network string, to *lab.Host) {
	t.Helper()
	c := runContainer(t, m, network, "web")
	env, err := to.ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range ip.Families() {
		// The first address of a subnet is that of the host's VXLAN device.
		addr := env.Subnets.Of(family).Addr()
		m.Retry(t, healTimeout, "ping "+addr.String(), func() error { _, err := c.try(t, "ping", "-c1", "-W1", addr.String()); return err })
	}
	m.Run(t, "docker", "rm", "--force", "web")
}
