//go:build linux

package cniplugin_test

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"tulle/internal/netns/netnstest"
	"tulle/ip/kernel/bridge"
)

// stepCase is a command to kill.
type stepCase struct {
	command string
	routes  []any // in its configuration
	fails   bool  // even if it is not killed
	foreign bool  // there is a bridge that no plugin made
	before  func(*testing.T, *host, container)
}

func stepCases() map[string]stepCase {
	add := func(t *testing.T, h *host, c container) { h.add(t, c, "eth0", h.conf(nil)) }
	return map[string]stepCase{
		"ADD": {command: "ADD", before: func(*testing.T, *host, container) {}},
		// The delegate finds out when it has made the interface and taken the address.
		"ADD that fails": {command: "ADD", routes: []any{map[string]string{"dst": "10.9.0.0/16", "gw": "192.0.2.9"}}, fails: true,
			before: func(*testing.T, *host, container) {}},
		"ADD after a reboot": {command: "ADD", before: func(t *testing.T, h *host, c container) {
			earlier := newContainer(t, c.id)
			add(t, h, earlier)
			earlier.ip(t, "link", "delete", "eth0")
		}},
		"ADD on the bridge of an earlier lease": {command: "ADD", foreign: true, before: func(t *testing.T, h *host, _ container) {
			h.ip(t, "link", "add", "cni0", "type", "bridge")
			// Nothing here is about how long the kernel asks for its address.
			netnstest.Require(t, h.ns.Do(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/cni0/accept_dad", []byte("0"), 0) }))
			h.ip(t, "address", "replace", "10.50.8.1/24", "dev", "cni0")
		}},
		"DEL": {command: "DEL", before: add},
		"GC":  {command: "GC", before: add},
	}
}

// Wherever the plugin is killed, DEL, or GC alone, takes all back; and so does either, where it was killed itself.
func TestKilledAtEveryStep(t *testing.T) {
	stride := 1
	if testing.Short() { // as under the race detector, which sees nothing of processes that end
		stride = 5
	}
	for name, tt := range stepCases() {
		for _, undo := range []string{"DEL", "GC"} {
			t.Run(name+", then "+undo, func(t *testing.T) {
				t.Parallel()
				h, c := newDualHost(t), newContainer(t, "c")
				for n, killed := 1, true; killed; n += stride {
					tt.before(t, h, c)
					var steps []string
					steps, killed = h.killedAt(t, c, tt, n)
					h.undo(t, c, undo)
					wantOnlyLoopback(t, c)
					h.wantNothingLeft(t)
					// Every run has the same steps.
					h.removeBridge(t, !tt.foreign)
					remove(t, h.states())
					if t.Failed() || !killed {
						t.Logf("%d steps: %s", len(steps), strings.Join(steps, ", "))
					}
					if t.Failed() {
						return
					}
				}
			})
		}
	}
}

func (h *host) undo(t *testing.T, c container, command string) {
	t.Helper()
	if command == "GC" {
		c = container{}
	}
	h.must(t, c, "eth0", command, h.conf(nothingValid()))
}

func nothingValid() map[string]any { return map[string]any{"cni.dev/valid-attachments": []string{}} }

// removeBridge removes the bridge of the containers, if there is one, and wants it to be marked or not.
func (h *host) removeBridge(t *testing.T, marked bool) {
	t.Helper()
	if err := h.ns.Do(func() error {
		exists, err := bridge.Exists("cni0")
		if err != nil || !exists {
			return err
		}
		list, err := bridge.ListMarked()
		if got := len(list) == 1; got != marked {
			t.Errorf("bridges marked as made by the plugin: %v, want cni0: %t", list, marked)
		}
		return errors.Join(err, bridge.Remove("cni0"))
	}); err != nil {
		t.Fatal(err)
	}
}

// killedAt runs the plugin up to its nth step; killed is false if it ended before.
func (h *host) killedAt(t *testing.T, c container, tt stepCase, n int) (steps []string, killed bool) {
	t.Helper()
	members := nothingValid()
	members["ipam"] = map[string]any{"dataDir": h.addresses(), "routes": tt.routes}
	cmd := h.command(c, "eth0", tt.command, nil)
	// Files need nobody to read from them, or write to them, meanwhile.
	conf, output := tempFile(t, h.conf(members)), tempFile(t, nil)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = conf, output, output
	var status syscall.WaitStatus
	netnstest.Require(t, h.ns.Do(func() (err error) {
		steps, status, err = killedAt(cmd, n)
		return err
	}))
	if status.Signaled() && status.Signal() == syscall.SIGKILL && len(steps) == n {
		return steps, true
	}
	if failed := status.ExitStatus() != 0; failed != tt.fails {
		said, err := os.ReadFile(output.Name())
		t.Fatalf("%s ends with %d, %v: %s", tt.command, status.ExitStatus(), err, said)
	}
	return steps, false
}

func tempFile(t *testing.T, content []byte) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	return f
}
