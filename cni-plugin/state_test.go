//go:build linux

package cniplugin

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStates(t *testing.T) {
	s := states{filepath.Join(t.TempDir(), "flannel")}
	if err := s.make(); err != nil {
		t.Fatal(err)
	}
	first, second := attachment{"cbr0", "c1", "eth0"}, attachment{"cbr0", "c1", "net1.5"}
	for _, a := range []attachment{first, second} {
		if _, err := s.read(a); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("read of nothing = %v, want fs.ErrNotExist", err)
		}
		r := record{Netns: "/run/netns/x", NetnsID: "4:5", Args: "K=V", Delegate: json.RawMessage(`{"type":"` + a.ifname + `"}`)}
		if err := s.write(a, r); err != nil {
			t.Fatal(err)
		}
		got, err := s.read(a)
		if diff := cmp.Diff(r, got); err != nil || diff != "" {
			t.Errorf("read = %v, differs (-want +got):\n%s", err, diff)
		}
	}
	if info, err := os.Stat(s.dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory %v, %v; want mode 700", info, err)
	}
	if info, err := os.Stat(s.path(first)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("state %v, %v; want mode 600", info, err)
	}
	// A crash while the state was being written.
	if err := os.WriteFile(filepath.Join(s.dir, ".cbr0:c1:net1.5.new"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// And one while somebody worked on an attachment.
	third := attachment{"cbr0", "c2", "eth0"}
	if err := os.WriteFile(s.lockPath(third), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	known, err := s.known("cbr0")
	if want := (map[attachment]bool{first: true, second: true, third: true}); err != nil || !cmp.Equal(known, want, cmp.AllowUnexported(attachment{})) {
		t.Errorf("known = %v, %v; want %v", known, err, want)
	}
	if known, err := s.known("other"); err != nil || len(known) != 0 {
		t.Errorf("known to another network = %v, %v; want none", known, err)
	}
	if err := os.Remove(s.lockPath(third)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := errors.Join(s.remove(first, true), s.remove(second, true)); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	if left, err := os.ReadDir(s.dir); err != nil || len(left) != 0 {
		t.Errorf("left are %v, %v; want nothing", left, err)
	}
}

func TestReadCorruptState(t *testing.T) {
	s := states{t.TempDir()}
	a := attachment{"cbr0", "c1", "eth0"}
	for _, path := range []string{s.path(a), s.flannelPath(a.container)} {
		for _, text := range []string{"", "{", `{"delegate":{}}`, `{"netns":"x"}`, `{"type":7}`} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := s.read(a); err == nil || !strings.Contains(err.Error(), path+" is corrupt") {
				t.Errorf("%q: error %v, want it to say that %s is corrupt", text, err, path)
			}
		}
		if err := s.remove(a, true); err != nil {
			t.Error(err)
		}
		if _, err := s.read(a); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("read of a removed state = %v, want fs.ErrNotExist", err)
		}
	}
}

func TestFlannelsState(t *testing.T) {
	s := states{t.TempDir()}
	const text = `{"name":"cbr0","type":"bridge"}`
	path := s.flannelPath("c1")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := s.read(attachment{"cbr0", "c1", "eth0"})
	if err != nil || string(r.Delegate) != text {
		t.Errorf("read = %s, %v; want %s", r.Delegate, err, text)
	}
	other := attachment{"other", "c1", "eth0"}
	if _, err := s.read(other); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read of another network's = %v, want fs.ErrNotExist", err)
	}
	if err := errors.Join(s.remove(other, true), s.forget("other", nil), s.forget("cbr0", map[string]bool{"c1": true})); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("it is gone, though it is another network's or valid: %v", err)
	}
	if err := s.forget("cbr0", nil); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stat after it was forgotten = %v, want fs.ErrNotExist", err)
	}
}

// A file of host-local's that is none costs that address alone, and is named.
func TestHoldersInTheWay(t *testing.T) {
	c := conf{Name: "fabric", IPAM: object{"dataDir": json.RawMessage(`"` + t.TempDir() + `"`)}}
	dir := filepath.Join(textOr(c.IPAM, "dataDir", ""), c.Name)
	pipe := filepath.Join(dir, "10.5.0.2")
	for _, err := range []error{
		os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "10.5.0.3"), []byte("c1\r\neth0"), 0o600), syscall.Mkfifo(pipe, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	found, err := holders(c.IPAM, c.Name)
	if want := (map[attachment][]netip.Addr{{"fabric", "c1", "eth0"}: {netip.MustParseAddr("10.5.0.3")}}); !cmp.Equal(found, want, cmp.AllowUnexported(attachment{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })) {
		t.Errorf("holders = %v, want %v", found, want)
	}
	if err == nil || !strings.Contains(err.Error(), pipe) {
		t.Errorf("error %v, want one that names %s", err, pipe)
	}
}
