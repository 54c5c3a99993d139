//go:build linux

package cniplugin_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"
)

// A delegate that refuses its configuration at ADD refuses it at DEL too. Neither leaves anything that stands in the way of cni uninstall,
// of the next ADD or of GC.
func TestDelegateRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		members map[string]any
		debian  bool
		says    string
	}{
		"its configuration": {members: map[string]any{"delegate": map[string]any{"vlan": 5000}}, says: "VLAN"},
		"the version":       {members: map[string]any{"cniVersion": "1.1.0"}, debian: true, says: "incompatible CNI versions"},
	} {
		t.Run(name, func(t *testing.T) {
			h, c := newDualHost(t), newContainer(t, "c")
			if tt.debian {
				needsDebianPlugins(t)
				h.plugins = built().debian
			}
			conf := h.conf(tt.members)
			if _, _, err := h.cni(c, "eth0", "ADD", conf); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("ADD: %v, want an error that says %q", err, tt.says)
			}
			wantOnlyLoopback(t, c)
			h.wantNothingLeft(t)
			h.must(t, c, "eth0", "DEL", conf)
			h.wantNothingLeft(t)
		})
	}
}

// What is recorded may have been refused by an earlier version, or by a plugin that is no longer there.
func TestRecordedConfigurationIsRefused(t *testing.T) {
	for name, spoil := range map[string]func(delegate map[string]any){
		"another version": func(d map[string]any) { d["cniVersion"] = "9.9.9" },
		"another plugin":  func(d map[string]any) { d["type"] = "gone" },
		"a wrong setting": func(d map[string]any) { d["vlan"] = 5000 },
	} {
		for _, gone := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				h, c := newDualHost(t), newContainer(t, "c")
				h.add(t, c, "eth0", h.conf(nil))
				var r map[string]any
				text, err := os.ReadFile(h.state("c"))
				if err := errors.Join(err, json.Unmarshal(text, &r)); err != nil {
					t.Fatal(err)
				}
				spoil(r["delegate"].(map[string]any))
				if text, err = json.Marshal(r); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(h.state("c"), text, 0o600); err != nil {
					t.Fatal(err)
				}
				today := h.conf(nil)
				if gone { // and nothing that could be refused
					spoil := map[string]any{"delegate": map[string]any{"vlan": 5000}}
					c.ip(t, "link", "delete", "eth0")
					h.freeAll(t)
					today = h.conf(spoil)
				}
				for range 2 {
					h.must(t, c, "eth0", "DEL", today)
				}
				wantOnlyLoopback(t, c)
				h.wantNothingLeft(t)
			})
		}
	}
}

// An address stays recorded as long as it is not free, though today's configuration looks for it elsewhere.
func TestAddressIsKeptElsewhere(t *testing.T) {
	h, c := newDualHost(t), newContainer(t, "c")
	addrs := h.add(t, c, "eth0", h.conf(nil))
	good, err := os.ReadFile(h.state("c"))
	if err != nil {
		t.Fatal(err)
	}
	spoiled := strings.Replace(string(good), `"type":"bridge"`, `"type":"gone"`, 1)
	if err := os.WriteFile(h.state("c"), []byte(spoiled), 0o600); err != nil {
		t.Fatal(err)
	}
	elsewhere := h.conf(map[string]any{"ipam": map[string]any{"dataDir": t.TempDir()}})
	if _, _, err := h.cni(c, "eth0", "DEL", elsewhere); err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("DEL while %v is not freed: %v, want an error that names the plugin that is missing", addrs.V4, err)
	}
	if left := h.left(t); !slices.Contains(left, "file "+addrs.V4.Addr().String()) || !slices.Contains(left, "file fabric:c:eth0") {
		t.Errorf("left %q, want the address and the state", left)
	}
	if err := os.WriteFile(h.state("c"), good, 0o600); err != nil {
		t.Fatal(err)
	}
	h.must(t, c, "eth0", "DEL", elsewhere)
	h.wantNothingLeft(t)
}

// freeAll frees all of host-local's addresses.
func (h *host) freeAll(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(h.addresses(), "fabric")); err != nil {
		t.Fatal(err)
	}
}

// An attachment whose state file could not be named is refused before anything is made, and there is never one.
func TestNamesThatAreTooLong(t *testing.T) {
	h := newDualHost(t)
	c := newContainer(t, "c")
	c.id = strings.Repeat("c", 250)
	h.refuses(t, c, "ADD", h.conf(nil), types.ErrInvalidEnvironmentVariables, "choose a shorter network name or container id")
	wantOnlyLoopback(t, c)
	h.wantNothingLeft(t)
	h.must(t, c, "eth0", "DEL", h.conf(nil))
	h.refuses(t, c, "CHECK", h.conf(map[string]any{"prevResult": map[string]any{"cniVersion": "1.1.0"}}), types.ErrUnknownContainer, "has no interface eth0")
	c.id = strings.Repeat("c", 220)
	h.add(t, c, "eth0", h.conf(nil))
	h.must(t, c, "eth0", "DEL", h.conf(nil))
	h.wantNothingLeft(t)
}

// ADD and DEL of one attachment at the same moment come one after the other, or say what happened.
func TestAddAndDelAtOnce(t *testing.T) {
	h, c := newDualHost(t), newContainer(t, "c")
	var wg sync.WaitGroup
	for range 6 {
		for _, command := range []string{"ADD", "DEL"} {
			wg.Go(func() {
				for range 3 {
					_, _, err := h.cni(c, "eth0", command, h.conf(nil))
					var reported *types.Error
					if err != nil && (!errors.As(err, &reported) || command == "DEL" || strings.Contains(err.Error(), "no such file")) {
						t.Errorf("%s: %v", command, err)
					}
				}
			})
		}
	}
	wg.Wait()
	h.must(t, c, "eth0", "DEL", h.conf(nil))
	wantOnlyLoopback(t, c)
	h.wantNothingLeft(t)
}

// A DEL that has waited for too long goes on without the lock, and leaves what whoever holds it may be writing.
func TestDelWithoutTheLock(t *testing.T) {
	h, c := newDualHost(t), newContainer(t, "c")
	h.must(t, c, "eth0", "ADD", h.conf(nil))
	other := h.lock(t, "c")
	writing := filepath.Join(h.states(), "."+filepath.Base(h.state("c"))+".new7")
	if err := os.WriteFile(writing, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.must(t, c, "eth0", "DEL", h.conf(nil))
	wantOnlyLoopback(t, c)
	if _, err := os.Lstat(writing); err != nil {
		t.Errorf("what another command may be writing is gone: %v", err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	h.must(t, c, "eth0", "DEL", h.conf(nil))
	h.wantNothingLeft(t)
}

// DELs that have waited for too long go on at once, and take the interface away under each other's hands.
func TestDelsAtOnceWithoutTheLock(t *testing.T) {
	h := newDualHost(t)
	defer h.wantNothingLeft(t)
	var wg sync.WaitGroup
	for i := range 8 {
		c := newContainer(t, fmt.Sprint("c", i))
		h.must(t, c, "eth0", "ADD", h.conf(nil))
		held := h.lock(t, c.id)
		for range 10 {
			wg.Go(func() {
				if _, _, err := h.cni(c, "eth0", "DEL", h.conf(nil)); err != nil {
					t.Errorf("DEL: %v", err)
				}
			})
		}
		defer func() {
			wantOnlyLoopback(t, c)
			if err := held.Close(); err != nil {
				t.Error(err)
			}
			h.must(t, c, "eth0", "DEL", h.conf(nil))
		}()
	}
	wg.Wait()
}

// lock has another command be at work on the attachment of a container, until what it returns is closed.
func (h *host) lock(t *testing.T, container string) *os.File {
	t.Helper()
	other, err := os.Create(filepath.Join(h.states(), "."+filepath.Base(h.state(container))+".lock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return other
}
