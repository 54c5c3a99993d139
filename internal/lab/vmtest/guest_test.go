//go:build linux && vm

package vmtest

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/internal/netns/netnstest"
	"tulle/ip"
)

// TestMain is also the init of the virtual machine, which ends with it.
func TestMain(m *testing.M) {
	if os.Getpid() != 1 {
		m.Run()
		return
	}
	err := boot()
	if err == nil {
		os.Args = []string{initPath, "-test.v", "-test.run=" + cmp.Or(os.Getenv(runEnv), "^TestVM$"), "-test.timeout=" + guestTimeout}
		if m.Run() == 0 {
			fmt.Println(passed)
		}
	} else {
		fmt.Println("boot:", err)
	}
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// boot does what an init does, as far as a lab needs it.
func boot() error {
	for _, m := range []struct{ dir, kind string }{{"/proc", "proc"}, {"/sys", "sysfs"}, {"/dev", "devtmpfs"}, {"/tmp", "tmpfs"}, {"/run", "tmpfs"}} {
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	if err := os.Setenv("TULLE_PROGRAMS", programsDir); err != nil {
		return err
	}
	// A machine that is emulated stands still now and then, and packets that were due meanwhile come all at once.
	if err := os.WriteFile("/proc/sys/net/core/netdev_max_backlog", []byte("100000"), 0); err != nil {
		return err
	}
	return load(modulesDir)
}

// load loads the modules in a directory, those that are not there yet.
func load(dir string) error {
	files, err := filepath.Glob(dir + "/*")
	if err != nil {
		return err
	}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", file, err)
		}
	}
	return nil
}

// guest runs what another kernel shows. The first test of IPIP loads it.
func guest(t *testing.T) {
	t.Run("FastPath", fastPath)
	t.Run("LoadsModule", loadsModule)
	t.Run("DirectRouting", directRouting)
}

func ipipLab(t *testing.T, segments int, direct bool) *lab.Lab {
	t.Helper()
	return labtest.New(t, lab.Config{
		Hosts: 3, Segments: segments, Containers: 2, Families: []ip.Family{ip.IPv4},
		Backend:  map[string]any{"Type": "ipip", "DirectRouting": direct},
		Progress: func(message string) { t.Log(message) },
	})
}

// loadsModule starts daemons on a kernel without ipip, which say so, and go on by themselves once somebody has loaded it.
func loadsModule(t *testing.T) {
	l := ipipLab(t, 1, false)
	ctx := t.Context()
	if err := l.Etcd.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.Configure(ctx); err != nil {
		t.Fatal(err)
	}
	for _, host := range l.Hosts {
		if err := host.StartDaemon(); err != nil {
			t.Fatal(err)
		}
	}
	for _, host := range l.Hosts {
		within(t, host.Name+" says what it lacks", func() (bool, string) {
			ready, text := host.Ready(ctx)
			return !ready && strings.Contains(text, "modprobe ipip"), text
		})
	}
	if err := load(ipipDir); err != nil {
		t.Fatal(err)
	}
	for _, host := range l.Hosts {
		if err := host.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
		within(t, host.Name+" knows the others", func() (bool, string) {
			var st struct{ Networks []struct{ PeerCount int } }
			if err := host.Status(ctx, &st); err != nil {
				t.Fatal(err)
			}
			return len(st.Networks) == 1 && st.Networks[0].PeerCount == len(l.Hosts)-1, fmt.Sprintf("%+v", st)
		})
	}
	if err := l.StartContainers(ctx); err != nil {
		t.Fatal(err)
	}
	requirePaths(t, l, lab.PathIPIP, lab.PathNone)
	injectsNothing(t, l)
}

func directRouting(t *testing.T) {
	l := ipipLab(t, 2, true)
	if err := l.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	requirePaths(t, l, lab.PathDirect, lab.PathIPIP)
}

// requirePaths wants every container to reach every other, by one path within a segment and by another across.
func requirePaths(t *testing.T, l *lab.Lab, near, far lab.Path) {
	t.Helper()
	matrix, err := l.Matrix(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hosts := map[string]*lab.Host{}
	for _, c := range l.Containers() {
		hosts[c.Name] = c.Host
	}
	if got, want := len(matrix.Pairs), 6*5; got != want {
		t.Errorf("matrix has %d pairs, want %d", got, want)
	}
	for _, pair := range matrix.Pairs {
		from, to, want := hosts[pair.From], hosts[pair.To], far
		switch {
		case from == to:
			want = lab.PathLocal
		case from.Segment == to.Segment:
			want = near
		}
		if !pair.OK || pair.Path != want {
			t.Errorf("from %s to %s: arrives %t (%s), path %s, want %s", pair.From, pair.To, pair.OK, pair.Reason, pair.Path, want)
		}
	}
	for _, host := range l.Hosts {
		if d := drops(t, host); d != (ip.Drops{}) {
			t.Errorf("%s has dropped %+v", host, d)
		}
	}
}

// injectsNothing has a container send into the tunnel of another host, in the name of containers of a third.
func injectsNothing(t *testing.T, l *lab.Lab) {
	t.Helper()
	from, victim, third := l.Hosts[0], l.Hosts[1], l.Hosts[2]
	inner := netnstest.UDP(netip.AddrPortFrom(third.Containers[0].Addr.V4, 7), netip.AddrPortFrom(victim.Containers[0].Addr.V4, 7), nil)
	container := from.Containers[0]
	netnstest.SendIP(t, container.Do, netnstest.IPIP(container.Addr.V4, victim.Addr.V4, inner))
	// It goes to the other host by this one, and to this host itself.
	netnstest.SendIP(t, container.Do, netnstest.IPIP(container.Addr.V4, from.Addr.V4, inner))
	within(t, "drops both", func() (bool, string) {
		d := drops(t, from)
		return d == ip.Drops{Injected: 1, Strangers: 1}, fmt.Sprintf("%+v", d)
	})
}

// drops is what a host says that it has dropped.
func drops(t *testing.T, host *lab.Host) (d ip.Drops) {
	t.Helper()
	if err := host.Status(t.Context(), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func within(t *testing.T, what string, done func() (bool, string)) {
	t.Helper()
	const timeout = time.Minute
	text := ""
	for deadline := time.Now().Add(timeout); time.Now().Before(deadline); <-time.After(100 * time.Millisecond) {
		var ok bool
		if ok, text = done(); ok {
			return
		}
	}
	t.Fatalf("%s: not after %v: %s", what, timeout, text)
}
