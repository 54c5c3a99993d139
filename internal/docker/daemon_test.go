//go:build linux

package docker

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// startAs runs a program of that name with the socket, if any, until the test ends.
func startAs(t *testing.T, name string, socket *os.File) *exec.Cmd {
	t.Helper()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "1000", "--", "600")
	if socket != nil {
		cmd.ExtraFiles = []*os.File{socket}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// listen makes a socket, as systemd does for Docker.
func listen(t *testing.T) (path string, socket *os.File) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "docker.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if socket, err = l.File(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	return path, socket
}

// The daemon is who holds the socket: not who made it, nor another of the same name.
func TestFindDaemon(t *testing.T) {
	path, socket := listen(t)
	other, _ := listen(t)
	startAs(t, "dockerd-not", socket)
	want := startAs(t, "dockerd", socket)
	idle := startAs(t, "dockerd", nil)
	// The same socket by way of a link is the same socket.
	link := filepath.Join(t.TempDir(), "link.sock")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, socket := range []string{path, link} {
		d, err := FindDaemon(socket)
		if err != nil || d == nil || d.PID != want.Process.Pid {
			t.Fatalf("dockerd on %s is %v (%v), want process %d", socket, d, err, want.Process.Pid)
		}
		if diff := cmp.Diff([]string{"1000", "--", "600"}, d.Args); diff != "" {
			t.Errorf("arguments, -want +got:\n%s", diff)
		}
		if got, err := d.ConfigFile(); err != nil || got != UsualConfigFile {
			t.Errorf("its configuration is %s (%v), want %s", got, err, UsualConfigFile)
		}
	}
	for _, socket := range []string{other, filepath.Join(t.TempDir(), "missing.sock")} {
		d, err := FindDaemon(socket)
		if err == nil || !strings.Contains(err.Error(), strconv.Itoa(idle.Process.Pid)) || !strings.Contains(err.Error(), "--docker-socket") {
			t.Errorf("dockerd on %s is %v (%v), want an error that names process %d", socket, d, err, idle.Process.Pid)
		}
	}
}

func TestPlannedDaemon(t *testing.T) {
	admin, vendor := t.TempDir(), t.TempDir()
	write := func(text string, names ...string) string {
		t.Helper()
		path := filepath.Join(names...)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	require := func(source, want string) {
		t.Helper()
		d, err := PlannedDaemon([]string{admin, vendor}, "tulle.conf")
		if want == "" && d == nil && err == nil {
			return
		}
		if err != nil || d == nil || d.Unit != source || d.Program+" "+strings.Join(d.Args, "|") != want {
			t.Errorf("planned is %+v (%v), want %q from %s", d, err, want, source)
		}
	}
	require("", "")
	env := write("# DOCKER_OPTS=\"--mtu=9000\"\n DOCKER_OPTS=\"--mtu=1400  --debug\"\nONE='a b'\n", vendor, "env")
	unit := write("[Unit]\nExecStart=wrong\n[Service]\nEnvironment=TWO=2 \"THREE=3 3\"\nEnvironmentFile=-"+env+
		"\nEnvironmentFile=-/missing\nExecStart=-/usr/bin/dockerd -H fd:// \\\n  $DOCKER_OPTS \"--label=x y\" --label=${ONE} ${THREE} $NONE\n", vendor, unitName)
	require(unit, "/usr/bin/dockerd -H|fd://|--mtu=1400|--debug|--label=x y|--label=a b|3 3")
	// What replaces the command line: a later name wins, Tulle's own does not count, and the administrator hides the vendor.
	write("[Service]\nExecStart=\nExecStart=dockerd --hidden\n", vendor, unitName+".d", "b.conf")
	dropIn := write("[Service]\nExecStart=\nExecStart=dockerd --seen\n", admin, unitName+".d", "b.conf")
	write("[Service]\nExecStart=\nExecStart=dockerd --early\n", vendor, unitName+".d", "a.conf")
	write("[Service]\nExecStart=\nExecStart=dockerd --bip=${FLANNEL_SUBNET}\n", admin, unitName+".d", "tulle.conf")
	require(dropIn, "dockerd --seen")
	// Masked.
	if err := os.RemoveAll(filepath.Join(admin, unitName+".d")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(vendor, unitName+".d")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/null", filepath.Join(admin, unitName)); err != nil {
		t.Fatal(err)
	}
	require("", "")
}

func TestOverlappingPools(t *testing.T) {
	for _, test := range []struct{ name, text, flags, network, want string }{
		{"none", `{}`, "", "10.5.0.0/16", ""},
		{"usual", `{}`, "", "172.28.0.0/16", "to others than Docker's usual 172.28.0.0/14"},
		{"others", `{"default-address-pools":[{"base":"192.168.0.0/16","size":24}]}`, "", "172.28.0.0/16", ""},
		{"in the file", `{"default-address-pools":[{"base":"10.0.0.0/8","size":24},{"base":"192.168.0.0/16","size":24}]}`, "", "10.5.0.0/16", "take 10.0.0.0/8 out of default-address-pools in "},
		{"as a flag", `{}`, "--default-address-pool base=10.5.128.0/17,size=24", "10.5.0.0/16", "take 10.5.128.0/17 off dockerd's command line"},
		{"of the other family", `{"default-address-pools":[{"base":"fd05::/32","size":64}]}`, "", "10.5.0.0/16", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "daemon.json")
			if err := os.WriteFile(path, []byte(test.text), 0o644); err != nil {
				t.Fatal(err)
			}
			env := leaseOf("10.5.1.0/24")
			env.Network.V4 = netip.MustParsePrefix(test.network)
			got, err := OverlappingPools(env, File{path: path}, &Daemon{Args: strings.Fields(test.flags)})
			if err != nil || test.want == "" && got != "" || !strings.Contains(got, test.want) {
				t.Errorf("advice is %q (%v), want %q", got, err, test.want)
			}
		})
	}
}
