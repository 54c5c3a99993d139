//go:build linux

package cniplugin_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// inTheWay are what others may put in the place of a file, which is gone by then.
func inTheWay(secret string) map[string]func(path string) error {
	return map[string]func(path string) error{
		"pipe":      func(path string) error { return syscall.Mkfifo(path, 0o666) },
		"link":      func(path string) error { return os.Symlink(secret, path) },
		"device":    func(path string) error { return os.Symlink("/dev/zero", path) },
		"sparse":    func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 3<<30)) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
	}
}

// within fails the test if fn has not returned soon, and does not wait for it any longer then.
func within(t *testing.T, what string, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); fn() }()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s has not ended after 30 s", what)
	}
}

// A state file that is none costs its own attachment its state, and nobody else anything.
func TestStateFilesInTheWay(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(`{"name":"fabric","type":"bridge"}`), 0o400); err != nil {
		t.Fatal(err)
	}
	for kind, put := range inTheWay(secret) {
		t.Run(kind, func(t *testing.T) {
			h := newDualHost(t)
			bad, drop, keep := newContainer(t, "bad"), newContainer(t, "drop"), newContainer(t, "keep")
			for _, c := range []container{bad, drop, keep} {
				h.add(t, c, "eth0", h.conf(nil))
			}
			foreign := filepath.Join(h.states(), "foreign") // as flannel's plugin names it
			remove(t, h.state("bad"))
			if err := errors.Join(put(h.state("bad")), put(foreign)); err != nil {
				t.Fatal(err)
			}
			_, _, err := h.cni(bad, "eth0", "CHECK", h.conf(map[string]any{"prevResult": map[string]any{"cniVersion": "1.1.0"}}))
			if err == nil || !strings.Contains(err.Error(), h.state("bad")) {
				t.Errorf("CHECK = %v, want an error that names %s", err, h.state("bad"))
			}

			valid := []types.GCAttachment{{ContainerID: "keep", IfName: "eth0"}}
			within(t, "GC", func() {
				_, _, err = h.cni(container{}, "", "GC", h.conf(map[string]any{"cni.dev/valid-attachments": valid}))
			})
			if err == nil || !strings.Contains(err.Error(), foreign) {
				t.Errorf("GC = %v, want an error that names %s", err, foreign)
			}
			wantOnlyLoopback(t, drop)
			if got, want := keep.interfaces(t), []string{"lo", "eth0"}; !slices.Equal(got, want) {
				t.Errorf("interfaces of the container to keep = %q, want %q", got, want)
			}

			if err := errors.Join(os.RemoveAll(h.state("bad")), put(h.state("bad"))); err != nil {
				t.Fatal(err)
			}
			within(t, "DEL", func() { h.must(t, bad, "eth0", "DEL", h.conf(nil)) })
			wantOnlyLoopback(t, bad)
			if _, err := os.Lstat(h.state("bad")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("state after DEL: %v, want none", err)
			}
			if info, err := os.Stat(secret); err != nil || info.Mode() != 0o400 || info.Size() == 0 {
				t.Errorf("what a link led to: %v, %v, want it unchanged", info, err)
			}
		})
	}
}

// A subnet file that is none is an error that says so, at once. It may be a link.
func TestSubnetFileInTheWay(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	for kind, put := range inTheWay(secret) {
		t.Run(kind, func(t *testing.T) {
			h := newDualHost(t)
			if err := os.Rename(h.subnetFile, secret); err != nil {
				t.Fatal(err)
			}
			if err := put(h.subnetFile); err != nil {
				t.Fatal(err)
			}
			c := newContainer(t, "c")
			var err error
			within(t, "ADD", func() { _, _, err = h.cni(c, "eth0", "ADD", h.conf(nil)) })
			switch {
			case kind == "link" && err != nil:
				t.Errorf("ADD with a link to the subnet file: %v", err)
			case kind != "link" && (err == nil || !strings.Contains(err.Error(), "remove it")):
				t.Errorf("ADD = %v, want an error with the remedy", err)
			}
			within(t, "DEL", func() { h.must(t, c, "eth0", "DEL", h.conf(nil)) })
			h.wantNothingLeft(t)
		})
	}
}
