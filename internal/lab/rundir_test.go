//go:build linux

package lab_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"tulle/internal/lab"
)

// A host whose run directory is read-only forwards all the same, over a restart too, and says what is wrong in its log, which is all it has. When the
// directory can be written it is ready, without a restart.
func TestReadOnlyRunDirectory(t *testing.T) {
	l := newLab(t, lab.Config{Hosts: 2, Containers: 1})
	begin(t, l)
	host, peer := l.Hosts[0], l.Hosts[1]
	startTulled(t, peer)
	dir := host.Dir + "/run"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	tulled := l.Config.Tulled
	confine(t, l, fmt.Sprintf("mount --bind %s %s\nmount -o remount,bind,ro %s", dir, dir, dir))
	for restarted := range 2 {
		if err := host.StartDaemon(); err != nil {
			t.Fatal(err)
		}
		requireLines(t, host, "lease acquired", restarted+1)
		if restarted == 0 {
			requireLines(t, host, "subnet file written", 1)
			if err := l.StartContainers(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		requireMatrix(t, l)
		requireLines(t, host, "code=file.unwritable", restarted+1)
		if err := host.StopDaemon(); err != nil {
			t.Fatal(err)
		}
	}
	if err := host.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	requireLines(t, host, "the run directory cannot be written", 3)
	requireLines(t, host, "code=file.unwritable", 3)
	run(t, host, "", "nsenter", "--mount", "--target", fmt.Sprint(host.DaemonPID()), "mount", "-o", "remount,bind,rw", dir)
	l.Config.Tulled = tulled
	if err := host.WaitReady(t.Context()); err != nil {
		t.Error(err)
	}
	requireMatrix(t, l)
}

// requireLines waits until the log of a host has a text in so many lines.
func requireLines(t *testing.T, host *lab.Host, text string, times int) {
	t.Helper()
	var log []byte
	if !eventually(10*time.Second, func() bool {
		var err error
		log, err = os.ReadFile(host.Log())
		return err == nil && strings.Count(string(log), text) == times
	}) {
		t.Fatalf("the log does not say %q %d times:\n%s", text, times, log)
	}
}
