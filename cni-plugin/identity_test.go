//go:build linux

package cniplugin_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

// inode is what versions up to the first recorded of a namespace.
func inode(t *testing.T, path string) string {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// rewrite changes a member of a container's state, and keeps it as that of another container, or of the same.
func (h *host) rewrite(t *testing.T, from, to, member, value string) {
	t.Helper()
	text, err := os.ReadFile(h.state(from))
	if err != nil {
		t.Fatal(err)
	}
	var r map[string]any
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	r[member] = value
	if text, err = json.Marshal(r); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.state(to), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// The kernel gives the inode of a namespace that is gone to another one. GC never enters that of another container which is in use.
func TestGCAfterInodeIsUsedAgain(t *testing.T) {
	h := newDualHost(t)
	living := newContainer(t, "living")
	h.add(t, living, "eth0", h.conf(nil))
	for _, id := range []string{inode(t, living.netns), ""} { // that of an earlier version, and whatever this one records
		if id == "" {
			h.rewrite(t, "living", "gone", "args", "")
		} else {
			h.rewrite(t, "living", "gone", "netnsID", id)
		}
		h.must(t, container{}, "", "GC", h.conf(map[string]any{
			"cni.dev/valid-attachments": []map[string]string{{"containerID": "living", "ifname": "eth0"}},
		}))
		if got := living.interfaces(t); !slices.Contains(got, "eth0") {
			t.Fatalf("interfaces of the container in use after GC = %q", got)
		}
		if left := h.left(t); slices.ContainsFunc(left, func(what string) bool { return strings.Contains(what, ":gone:") }) {
			t.Errorf("left after GC: %q", left)
		}
	}
	h.must(t, living, "eth0", "DEL", h.conf(nil))
	h.wantNothingLeft(t)
}

// After a reboot a container may come back with the path and the inode of its former namespace.
func TestAddAfterInodeIsUsedAgain(t *testing.T) {
	h, c := newDualHost(t), newContainer(t, "c")
	h.add(t, c, "eth0", h.conf(nil))
	h.rewrite(t, "c", "c", "netnsID", inode(t, c.netns))
	c.ip(t, "link", "delete", "eth0")
	h.add(t, c, "eth0", h.conf(nil))
	h.must(t, c, "eth0", "DEL", h.conf(nil))
	h.wantNothingLeft(t)
}

// A container has one interface of a name, in one namespace: its address is not free while the first lives.
func TestAddInSecondNamespace(t *testing.T) {
	h, c, second := newDualHost(t), newContainer(t, "c"), newContainer(t, "second")
	first := h.add(t, c, "eth0", h.conf(nil))
	h.refuses(t, container{"c", second.netns}, "ADD", h.conf(nil), types.ErrInvalidEnvironmentVariables, "in "+c.netns)
	wantOnlyLoopback(t, second)
	if left := h.left(t); !slices.Contains(left, "file "+first.V4.Addr().String()) {
		t.Errorf("left %q, want the address of the first", left)
	}
	h.must(t, c, "eth0", "DEL", h.conf(nil))
	h.add(t, container{"c", second.netns}, "eth0", h.conf(nil))
	h.must(t, container{"c", second.netns}, "eth0", "DEL", h.conf(nil))
	h.wantNothingLeft(t)
}

// Of several ADDs of one attachment, one makes it, and none undoes it.
func TestAddsAtOnce(t *testing.T) {
	h, c := newDualHost(t), newContainer(t, "c")
	var made atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			_, _, err := h.cni(c, "eth0", "ADD", h.conf(nil))
			if err == nil {
				made.Add(1)
			} else if !strings.Contains(err.Error(), "DEL comes before the next ADD") {
				t.Errorf("ADD: %v", err)
			}
		})
	}
	wg.Wait()
	if n := made.Load(); n != 1 {
		t.Errorf("%d of 8 ADDs made the attachment, want 1", n)
	}
	if got := c.interfaces(t); !slices.Contains(got, "eth0") {
		t.Errorf("interfaces = %q, want the one that was made", got)
	}
	h.must(t, c, "eth0", "DEL", h.conf(nil))
	h.wantNothingLeft(t)
}

// The number of a namespace begins anew with each boot.
func TestCookieOfAnotherBoot(t *testing.T) {
	h, c := newDualHost(t), newContainer(t, "c")
	h.add(t, c, "eth0", h.conf(nil))
	text, err := os.ReadFile(h.state("c"))
	if err != nil {
		t.Fatal(err)
	}
	var r struct{ NetnsID string }
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	_, number, ok := strings.Cut(r.NetnsID, "/")
	if !ok || !strings.HasPrefix(number, "cookie:") {
		t.Fatalf("recorded %q, want the boot and the namespace's cookie", r.NetnsID)
	}
	h.rewrite(t, "c", "c", "netnsID", "00000000-0000-4000-8000-000000000000/"+number)
	c.ip(t, "link", "delete", "eth0")
	h.add(t, c, "eth0", h.conf(nil))
	h.must(t, c, "eth0", "DEL", h.conf(nil))
	h.wantNothingLeft(t)
}

// An ADD that meets an interface undoes nothing of it, by whatever path and under whatever name it comes.
func TestAddWhereInterfaceIs(t *testing.T) {
	h, c := newDualHost(t), newContainer(t, "c")
	h.add(t, c, "eth0", h.conf(nil))
	path := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(c.netns, path); err != nil {
		t.Fatal(err)
	}
	for _, again := range []container{{"c", path}, {"another", c.netns}} {
		h.refuses(t, again, "ADD", h.conf(nil), types.ErrInvalidEnvironmentVariables, "DEL comes before the next ADD")
		if got := c.interfaces(t); !slices.Contains(got, "eth0") {
			t.Fatalf("interfaces after a refused ADD = %q", got)
		}
	}
	h.must(t, c, "eth0", "DEL", h.conf(nil))
	h.wantNothingLeft(t)
}

// A runtime may name a namespace that is another's by now, as /proc/PID/ns/net with a number that is used again.
func TestDelInAnotherNamespace(t *testing.T) {
	h, c, other := newDualHost(t), newContainer(t, "c"), newContainer(t, "other")
	h.add(t, c, "eth0", h.conf(nil))
	h.add(t, other, "eth0", h.conf(nil))
	h.must(t, container{"c", other.netns}, "eth0", "DEL", h.conf(nil))
	if got := other.interfaces(t); !slices.Contains(got, "eth0") {
		t.Errorf("interfaces of the other container = %q", got)
	}
	h.must(t, other, "eth0", "DEL", h.conf(nil))
}
