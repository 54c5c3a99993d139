//go:build linux

package lab_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/internal/netns/netnstest"
	"tulle/ip"
)

// confine has the lab run tulled as in a container: in a mount namespace in which a shell has prepared some mounts.
func confine(t *testing.T, l *lab.Lab, prepare string) {
	t.Helper()
	netnstest.RequireOwnMounts(t)
	path := filepath.Join(t.TempDir(), "tulled")
	script := fmt.Sprintf("#!/bin/sh\nexec unshare --mount sh -ec '%s\nexec %s \"$@\"' tulled \"$@\"\n", prepare, l.Config.Tulled)
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	l.Config.Tulled = path
}

// setForwarding does what a host's operator does.
func setForwarding(t *testing.T, host *lab.Host, value string) {
	t.Helper()
	if err := host.Namespace().Do(func() error {
		return errors.Join(os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte(value), 0),
			os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte(value), 0))
	}); err != nil {
		t.Fatal(err)
	}
}

// begin takes the first steps of a lab whose daemons the test starts.
func begin(t *testing.T, l *lab.Lab) {
	t.Helper()
	if err := l.Etcd.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.Configure(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Without privileges /proc/sys is read-only in a container, as by flannel's own manifest. What packets need is missed until the
// host has it; what is nice to have is told.
func TestReadOnlySettings(t *testing.T) {
	l := newLab(t, lab.Config{Hosts: 2, Containers: 1})
	confine(t, l, "mount --bind /proc/sys /proc/sys\nmount -o remount,bind,ro /proc/sys")
	begin(t, l)
	for _, host := range l.Hosts {
		setForwarding(t, host, "0")
		if err := host.StartDaemon(); err != nil {
			t.Fatal(err)
		}
		var reason string
		if !eventually(20*time.Second, func() bool {
			_, reason = host.Ready(t.Context())
			return strings.Contains(reason, "run sysctl -w net/ipv4/ip_forward=1 on the host, or mount /proc/sys writable")
		}) {
			t.Errorf("without forwarding %s says %q, want the remedy", host, reason)
		}
		setForwarding(t, host, "1")
		if err := host.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		const setting = "net/ipv6/conf/flannel.1/disable_ipv6"
		if status := tulle(t, l, host, "status"); !strings.Contains(status, "advice   setting.advised  "+setting+" is 0 and cannot be written here") {
			t.Errorf("status of %s does not tell of %s:\n%s", host, setting, status)
		}
		if plan := tulle(t, l, host, "plan"); !strings.Contains(plan, "sysctl -w "+setting+"=1\n") {
			t.Errorf("plan of %s: %q, want the settings that cannot be written", host, plan)
		}
	}
	if err := l.StartContainers(t.Context()); err != nil {
		t.Fatal(err)
	}
	requireMatrix(t, l)
}

// A container that keeps neither a node id nor any other state goes on with the subnet of the one before it.
func TestThrowAwayState(t *testing.T) {
	l := newLab(t, lab.Config{
		Hosts: 2, Containers: 1, Families: []ip.Family{ip.IPv4},
		DaemonArgs: func(host *lab.Host) []string {
			if host.Name == "h2" {
				return []string{"--node-id", ""}
			}
			return nil
		},
	})
	begin(t, l)
	if err := l.Hosts[0].StartDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := l.Hosts[0].WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The lab's hosts share this machine's hardware, if it shows any: h2 has some of its own.
	confine(t, l, `if [ -e /etc/machine-id ]; then mount --bind /dev/null /etc/machine-id; fi
mount -t tmpfs none /sys
mkdir -p /sys/class/dmi/id
echo board-of-h2 >/sys/class/dmi/id/product_uuid`)
	host := l.Hosts[1]
	var first string
	for run := 1; run <= 3; run++ {
		if err := host.StartDaemon(); err != nil {
			t.Fatal(err)
		}
		if err := host.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		env, err := host.ReadSubnetFile()
		if err != nil {
			t.Fatal(err)
		}
		if subnet := env.Subnets.V4.String(); run == 1 {
			first = subnet
		} else if subnet != first {
			t.Errorf("run %d holds %s, want %s as before", run, subnet, first)
		}
		leases, err := l.Etcd.Get(t.Context(), l.Etcd.Key("subnets/"))
		if err != nil {
			t.Fatal(err)
		}
		if len(leases) != 2 {
			t.Errorf("run %d: leases %v, want one for each host", run, leases)
		}
		if status := tulle(t, l, host, "status"); !strings.Contains(status, "advice   node.random  the node id") || !strings.Contains(status, "/etc/machine-id") {
			t.Errorf("run %d: status does not say what to mount:\n%s", run, status)
		}
		if run == 3 {
			break
		}
		if err := host.StopDaemon(); err != nil {
			t.Fatal(err)
		}
		for _, kept := range []string{"state", "run", "subnet.env"} {
			if err := os.RemoveAll(filepath.Join(host.Dir, kept)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.StartContainers(t.Context()); err != nil {
		t.Fatal(err)
	}
	requireMatrix(t, l)
}
