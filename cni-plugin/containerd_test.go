//go:build linux

package cniplugin_test

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/ip"
	"tulle/subnet"
)

// containerdView gives containerd a file system of its own where its paths cannot be chosen.
//
//go:embed testdata/containerd.sh
var containerdView string

// containerd is a containerd on a lab host, with the plugin as `tulle cni install` installs it.
type containerd struct {
	t    *testing.T
	host *lab.Host
	dir  string
	pid  int
	log  *bytes.Buffer
	env  subnet.Env
}

// startContainerd needs the programs of Debian's packages containerd, runc and busybox-static.
func startContainerd(t *testing.T, h *lab.Host) *containerd {
	t.Helper()
	// Sockets below it must have short paths.
	dir, err := os.MkdirTemp("", "tulle-ctd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	env, err := subnet.ReadEnv(h.SubnetFile())
	if err != nil {
		t.Fatal(err)
	}
	c := &containerd{t: t, host: h, dir: dir, log: new(bytes.Buffer), env: env}
	c.install()
	c.fillRoot()
	cmd := exec.Command("unshare", "--mount", "sh", "-euc", containerdView, dir)
	cmd.Stdout, cmd.Stderr = c.log, c.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := h.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	c.pid = cmd.Process.Pid
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if t.Failed() {
			t.Logf("containerd on %s:\n%s", h, c.log)
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; {
		if _, err = c.try("version"); err == nil {
			return c
		}
		if time.Now().After(deadline) {
			t.Fatalf("containerd on %s: %v", h, err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// install puts the plugin and its configuration where ctr looks for them.
func (c *containerd) install() {
	c.t.Helper()
	install := exec.Command(built().tulle, "cni", "install", "--bin-dir", filepath.Join(c.dir, "bin"), "--conf-dir", filepath.Join(c.dir, "net.d"),
		"--run-dir", filepath.Dir(c.host.Socket()), "--subnet-file", c.host.SubnetFile())
	if out, err := install.CombinedOutput(); err != nil {
		c.t.Fatalf("%s: %v\n%s", install, err, out)
	}
	for _, name := range []string{"bridge", "host-local", "loopback", "portmap"} {
		if err := os.Link(filepath.Join(built().cni, name), filepath.Join(c.dir, "bin", name)); err != nil {
			c.t.Fatal(err)
		}
	}
}

// fillRoot makes the root directory of containers: busybox alone, and a page.
func (c *containerd) fillRoot() {
	c.t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		c.t.Fatal(err)
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		c.t.Fatal(err)
	}
	for name, content := range map[string][]byte{"bin/busybox": program, "www/index.html": []byte("hello from " + c.host.Name), "etc/keep": nil} {
		path := filepath.Join(c.dir, "root", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			c.t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o755); err != nil {
			c.t.Fatal(err)
		}
	}
}

// try runs ctr as it runs on the host.
func (c *containerd) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	line := append([]string{"--target", strconv.Itoa(c.pid), "--mount", "--net", "ctr", "--address", filepath.Join(c.dir, "c.sock")}, args...)
	out, err := exec.CommandContext(ctx, "nsenter", line...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return strings.TrimSpace(string(out)), nil
}

func (c *containerd) ctr(args ...string) string {
	c.t.Helper()
	out, err := c.try(args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// start runs a container until it is stopped.
func (c *containerd) start(name string, command ...string) {
	c.t.Helper()
	c.ctr(append([]string{"run", "--detach", "--cni", "--rootfs", filepath.Join(c.dir, "root"), name, "/bin/busybox"}, command...)...)
	c.t.Cleanup(func() { c.try("task", "delete", "--force", name) })
}

// exec runs a command in a container.
func (c *containerd) exec(name string, command ...string) string {
	c.t.Helper()
	return c.ctr(append([]string{"task", "exec", "--exec-id", "e" + strconv.FormatInt(time.Now().UnixNano(), 36), name, "/bin/busybox"}, command...)...)
}

// addr is the address that a container has in this host's subnet.
func (c *containerd) addr(name string, f ip.Family) netip.Addr {
	c.t.Helper()
	for field := range strings.FieldsSeq(c.exec(name, "ip", "-o", "addr", "show", "dev", "eth0")) {
		if p, err := netip.ParsePrefix(field); err == nil && c.env.Subnets.Of(f).Contains(p.Addr()) {
			return p.Addr()
		}
	}
	c.t.Fatalf("container %s has no address in %s", name, c.env.Subnets.Of(f))
	return netip.Addr{}
}

// held lists the addresses that host-local has given away.
func (c *containerd) held() []string {
	names, err := filepath.Glob(filepath.Join(c.dir, "lib/cni/networks/tulle/*[.:]*"))
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
	for _, program := range []string{"containerd", "ctr", "runc", "busybox"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") == "" {
				t.Skipf("needs %s: %v", program, err)
			}
			t.Fatal(err)
		}
	}
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
		get := "echo 'GET /index.html HTTP/1.0\r\n\r\n' | busybox nc -w 5 " + addr + " 80"
		if got := here.exec("client", "sh", "-c", get); !strings.HasSuffix(got, "hello from h2") {
			t.Errorf("%s says %q, want hello from h2", addr, got)
		}
	}
	if got := here.exec("client", "cat", "/sys/class/net/eth0/mtu"); got != strconv.Itoa(here.env.MTU) {
		t.Errorf("MTU in the container = %s, want the %d of the fabric", got, here.env.MTU)
	}

	here.ctr("task", "kill", "--signal", "KILL", "client")
	here.ctr("task", "delete", "--force", "client")
	if len(here.held()) == 0 {
		t.Error("ctr has freed the addresses of a container that was killed: GC has nothing to show")
	}
	gc := exec.CommandContext(t.Context(), "nsenter", "--target", strconv.Itoa(here.pid), "--mount", "--net", "/opt/cni/bin/tulle")
	gc.Env = []string{"PATH=" + os.Getenv("PATH"), "CNI_COMMAND=GC", "CNI_PATH=/opt/cni/bin"}
	gc.Stdin = strings.NewReader(`{"cniVersion":"1.1.0","name":"tulle","cni.dev/valid-attachments":[]}`)
	if out, err := gc.CombinedOutput(); err != nil {
		t.Errorf("GC: %v\n%s", err, out)
	}
	if held := here.held(); len(held) > 0 {
		t.Errorf("addresses %s are still held after GC", held)
	}
	if states, err := filepath.Glob(filepath.Join(here.dir, "lib/cni/flannel/*")); err != nil || len(states) > 0 {
		t.Errorf("states %q, %v are still there after GC", states, err)
	}
}
