//go:build linux

package lab_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"tulle/internal/lab"
	"tulle/internal/netns/netnstest"
)

// Of a lab whose maker is gone, Remove leaves neither mounts nor files, and finishes what it could not.
func TestRemove(t *testing.T) {
	name := fmt.Sprintf("test-%d", os.Getpid())
	l, err := lab.New(t.Context(), lab.Config{Name: name, Detach: true, Hosts: 1, FastPath: "auto"})
	netnstest.Require(t, err)
	t.Cleanup(func() {
		if _, err := lab.Remove(name); err != nil {
			t.Error(err)
		}
	})
	dir := l.Config.Dir
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	pins := filepath.Join(dir, "bpf")
	if err := unix.Statfs(pins, &st); err != nil {
		t.Fatal(err)
	}
	if st.Type != unix.BPF_FS_MAGIC {
		t.Logf("%s is no bpffs: %#x", pins, st.Type)
	}
	for _, want := range []bool{true, false} {
		if found, err := lab.Remove(name); found != want || err != nil {
			t.Errorf("found %t (%v), want %t", found, err, want)
		}
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", dir, err)
		}
	}
}
