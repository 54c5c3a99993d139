//go:build linux

package cniplugin_test

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/internal/lab/machinetest"
	"tulle/ip"
	"tulle/subnet/flannel"
)

// runContainerd leaves it running on a machine.
const runContainerd = `
setsid containerd --log-level warn >/run/containerd.log 2>&1 </dev/null &
for try in $(seq 200); do
	ctr version >/dev/null 2>&1 && exit
	sleep 0.1
done
cat /run/containerd.log
exit 1
`

// containerdImage is what the containers of the tests are made from.
const containerdImage = "docker.io/library/busybox:latest"

// newContainerdMachine needs the programs of Debian's packages containerd, runc and busybox-static.
func newContainerdMachine(t *testing.T, h *lab.Host) *machinetest.Machine {
	t.Helper()
	m := machinetest.New(t, h, filepath.Dir(built().tulle))
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.File("/run/image.tar"), machinetest.Image(t, containerdImage, busybox), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if log, err := os.ReadFile(m.File("/run/containerd.log")); err == nil && t.Failed() {
			t.Logf("containerd on %s:\n%s", h, log)
		}
	})
	return m
}

// needsContainerd skips the test where the programs, or files, are not installed.
func needsContainerd(t *testing.T, programs ...string) {
	t.Helper()
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	for _, program := range append(programs, "containerd", "ctr", "runc", "busybox", "nsenter") {
		if _, err := exec.LookPath(program); err != nil && os.Getenv("CI") == "" {
			t.Skipf("needs %s: %v", program, err)
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// containerd is a host where it runs, with the plugin as `tulle cni install` installs it.
type containerd struct {
	*machinetest.Machine
	t   *testing.T
	env flannel.Env
}

func startContainerd(t *testing.T, h *lab.Host) *containerd {
	t.Helper()
	env, err := flannel.ReadEnv(h.SubnetFile())
	if err != nil {
		t.Fatal(err)
	}
	c := &containerd{Machine: newContainerdMachine(t, h), t: t, env: env}
	c.Run(t, "sh", "-c", runContainerd)
	c.Run(t, "ctr", "image", "import", "/run/image.tar")
	c.Run(t, "tulle", "cni", "install")
	c.Run(t, "ln", "-sf", filepath.Join(built().cni, "bridge"), filepath.Join(built().cni, "host-local"),
		filepath.Join(built().cni, "loopback"), filepath.Join(built().cni, "portmap"), "/opt/cni/bin")
	return c
}

// start runs a container until it is stopped.
func (c *containerd) start(name string, command ...string) {
	c.t.Helper()
	c.Run(c.t, append([]string{"ctr", "run", "--detach", "--cni", containerdImage, name}, command...)...)
}

// ctrExec runs a command in a container and returns what it prints. That goes through a file of the container: ctr
// deletes a short command before it has read all that it printed (containerd's pull request 13931).
func ctrExec(t *testing.T, m *machinetest.Machine, container string, command ...string) string {
	t.Helper()
	id := "exec-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	line := []string{"ctr", "task", "exec", "--exec-id", id, container, "sh", "-c", `exec "$@" >"/$0" 2>&1`, id}
	_, err := m.Try(t, append(line, command...)...)
	out, errRead := os.ReadFile(m.File(filepath.Join("/run/containerd/io.containerd.runtime.v2.task/default", container, "rootfs", id)))
	if err := errors.Join(err, errRead); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(bytes.TrimSpace(out))
}

// addr is the address that a container has in this host's subnet.
func (c *containerd) addr(name string, f ip.Family) netip.Addr {
	c.t.Helper()
	for field := range strings.FieldsSeq(ctrExec(c.t, c.Machine, name, "ip", "-o", "addr", "show", "dev", "eth0")) {
		if p, err := netip.ParsePrefix(field); err == nil && c.env.Subnets.Of(f).Contains(p.Addr()) {
			return p.Addr()
		}
	}
	c.t.Fatalf("container %s has no address in %s", name, c.env.Subnets.Of(f))
	return netip.Addr{}
}

// held lists the addresses that host-local has given away.
func (c *containerd) held() []string {
	names, err := filepath.Glob(c.File("/var/lib/cni/networks/tulle/*[.:]*"))
	if err != nil {
		c.t.Fatal(err)
	}
	var addrs []string
	for _, name := range names {
		if addr, err := netip.ParseAddr(filepath.Base(name)); err == nil {
			addrs = append(addrs, addr.String())
		}
	}
	return addrs
}

// Containers that containerd starts on two hosts reach each other. What ctr forgets to detach, GC frees.
func TestContainerd(t *testing.T) {
	needsContainerd(t)
	both := ip.Families()
	l := newLab(t, both[:])
	if err := l.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	here, there := startContainerd(t, l.Hosts[0]), startContainerd(t, l.Hosts[1])
	there.start("server", "httpd", "-f", "-p", "80", "-h", "/www")
	here.start("client", "sleep", "1000")
	for _, f := range both {
		addr := there.addr("server", f).String()
		// busybox's own wget looks up names by libraries that the container lacks.
		get := "echo 'GET /cgi-bin/from HTTP/1.0\r\n\r\n' | nc -w 5 " + addr + " 80"
		if got, want := ctrExec(t, here.Machine, "client", "sh", "-c", get), here.addr("client", f).String(); !strings.Contains(got, want) {
			t.Errorf("%s says that it sees %q, want %s", addr, got, want)
		}
	}
	if got := ctrExec(t, here.Machine, "client", "cat", "/sys/class/net/eth0/mtu"); got != strconv.Itoa(here.env.MTU) {
		t.Errorf("MTU in the container = %s, want the %d that the network carries", got, here.env.MTU)
	}

	here.Run(t, "ctr", "task", "kill", "--signal", "KILL", "client")
	here.Run(t, "ctr", "task", "delete", "--force", "client")
	if len(here.held()) == 0 {
		t.Error("ctr has freed the addresses of a container that was killed: GC has nothing to show")
	}
	gc := here.Command(t.Context(), "env", "CNI_COMMAND=GC", "CNI_PATH=/opt/cni/bin", "/opt/cni/bin/tulle")
	gc.Stdin = strings.NewReader(`{"cniVersion":"1.1.0","name":"tulle","cni.dev/valid-attachments":[]}`)
	if out, err := gc.CombinedOutput(); err != nil {
		t.Errorf("GC: %v\n%s", err, bytes.TrimSpace(out))
	}
	if held := here.held(); len(held) > 0 {
		t.Errorf("addresses %s are still held after GC", held)
	}
	if states, err := filepath.Glob(here.File("/var/lib/cni/flannel/*")); err != nil || len(states) > 0 {
		t.Errorf("states %q, %v are still there after GC", states, err)
	}
}
