//go:build linux

package lab_test

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/ip"
)

// With a policy of DROP, such as Docker's, the containers of a CNI bridge reach what is outside of the network, and get answers. What
// nobody asked for stays out.
func TestOutsideThroughPolicyDrop(t *testing.T) {
	for engine, name := range engines() {
		t.Run("iptables"+name, func(t *testing.T) {
			t.Parallel()
			l := upLab(t, lab.Config{Hosts: 2, Containers: 1})
			host := l.Hosts[0]
			for _, family := range l.Config.Families {
				routeToContainers(t, l, host, family)
				if err := dialContainer(t, l, host, family); err != nil {
					t.Fatalf("without any filter: %v", err)
				}
			}
			iptables(t, host, engine, "-P", "FORWARD", "DROP")
			for _, program := range []string{"iptables", "ip6tables"} {
				if !eventually(healTimeout, func() bool { return openings(t, host, program+name) == 8 }) {
					t.Errorf("%s-save shows %d openings, want 8", program+name, openings(t, host, program+name))
				}
			}
			requireMatrix(t, l)
			for _, family := range l.Config.Families {
				requireOutside(t, l, family, true)
				if err := dialContainer(t, l, host, family); err == nil {
					t.Errorf("%s: the container is reached from outside of the network", family)
				}
			}
		})
	}
}

// routeToContainers leads the router to the containers of a host.
func routeToContainers(t *testing.T, l *lab.Lab, host *lab.Host, family ip.Family) {
	t.Helper()
	env, err := host.ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	router, err := l.Namespace("router")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "ip", "route", "add", env.Subnets.Of(family).String(), "via", host.Addr.Of(family).String())
	if err := router.Do(func() error {
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%s: %w: %s", cmd, err, out)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// dialContainer connects from the router to a container of the host.
func dialContainer(t *testing.T, l *lab.Lab, host *lab.Host, family ip.Family) error {
	t.Helper()
	var listener net.Listener
	container := host.Containers[0]
	addr := netip.AddrPortFrom(container.Addr.Of(family), 8080)
	if err := container.Do(func() (err error) {
		listener, err = net.Listen("tcp", addr.String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	router, err := l.Namespace("router")
	if err != nil {
		t.Fatal(err)
	}
	return router.Do(func() error {
		conn, err := net.DialTimeout("tcp", addr.String(), 500*time.Millisecond)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}
