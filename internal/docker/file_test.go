//go:build linux

package docker

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// fileWith is a configuration file with the text, in a directory of its own.
func fileWith(t *testing.T, text string) File {
	t.Helper()
	f := File{path: filepath.Join(t.TempDir(), "daemon.json")}
	if err := os.WriteFile(f.path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return f
}

// says fails unless err has all of the parts.
func says(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %v, want one that says %q", err, part)
		}
	}
}

func TestOpenFileLinkLoop(t *testing.T) {
	path := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.Symlink("daemon.json", path); err != nil {
		t.Fatal(err)
	}
	_, err := OpenFile(path)
	says(t, err, path, "make it lead to a file, or remove it")
}

// A record says what was set, and the copy what was there before: without the copy an operator has to know the former.
func TestRecordWithoutCopy(t *testing.T) {
	f := fileWith(t, `{"mtu":1450}`)
	if _, err := f.configureFor(leaseOf("10.5.1.0/24"), Version{20, 10}, false); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(f.Backup()); err != nil {
		t.Fatal(err)
	}
	before := allFiles(t, filepath.Dir(f.path))
	remedy := []string{f.Backup(), "set bip, ip-masq in " + f.path + " right by hand, delete " + f.recordPath()}
	masqueraded := leaseOf("10.5.1.0/24")
	masqueraded.IPMasq = false
	_, err := f.configureFor(masqueraded, Version{20, 10}, false)
	says(t, err, remedy...)
	_, _, err = f.Unconfigure(nil)
	says(t, err, remedy...)
	if diff := cmp.Diff(before, allFiles(t, filepath.Dir(f.path))); diff != "" {
		t.Errorf("files, -before +now:\n%s", diff)
	}
}

// A copy that no record speaks of is somebody's: it is neither overwritten now nor removed by Unconfigure later.
func TestConfigureKeepsCopyOfOthers(t *testing.T) {
	for name, daemonJSON := range map[string]string{"beside a file": `{"debug":true}`, "without a file": ""} {
		t.Run(name, func(t *testing.T) {
			f := fileWith(t, daemonJSON)
			want := map[string]string{"daemon.json": daemonJSON, "daemon.json.before-tulle": "precious"}
			if daemonJSON == "" {
				delete(want, "daemon.json")
				if err := os.Remove(f.path); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(f.Backup(), []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := f.configureFor(leaseOf("10.5.1.0/24"), Version{20, 10}, true)
			says(t, err, f.Backup(), f.recordPath(), "move it away")
			if diff := cmp.Diff(want, allFiles(t, filepath.Dir(f.path))); diff != "" {
				t.Errorf("files, -want +got:\n%s", diff)
			}
		})
	}
}

// A run that ended between the copy and the record has left the copy, of a file that is as it was.
func TestConfigureAfterOneThatWasInterrupted(t *testing.T) {
	f := fileWith(t, `{"debug":true}`)
	if err := os.WriteFile(f.Backup(), []byte(`{"debug":true}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := f.configureFor(leaseOf("10.5.1.0/24"), Version{20, 10}, false); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Unconfigure(nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"daemon.json": `{"debug":true}`}, allFiles(t, filepath.Dir(f.path))); diff != "" {
		t.Errorf("files, -want +got:\n%s", diff)
	}
}

// What is in the way stays, an empty directory too.
func TestConfigureKeepsDirectoryInTheWay(t *testing.T) {
	for _, name := range []string{"daemon.json.before-tulle", "daemon.json.tulle"} {
		t.Run(name, func(t *testing.T) {
			f := fileWith(t, `{}`)
			dir := filepath.Join(filepath.Dir(f.path), name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			_, err := f.configureFor(leaseOf("10.5.1.0/24"), Version{20, 10}, false)
			says(t, err, dir)
			if entries, err := os.ReadDir(filepath.Dir(f.path)); err != nil || len(entries) != 2 {
				t.Errorf("left are %v (%v), want daemon.json and the directory", entries, err)
			}
			if text, err := os.ReadFile(f.path); string(text) != `{}` {
				t.Errorf("daemon.json is %q (%v), want what it was", text, err)
			}
		})
	}
}

// When the disk fails once the file has its new content, what undoes that stays.
func TestConfigureNotSettled(t *testing.T) {
	f := fileWith(t, `{}`)
	dir := filepath.Dir(f.path)
	spoilt := f.Accepting(func(string) error { return spoilSync(dir) })
	_, err := spoilt.configureFor(leaseOf("10.5.1.0/24"), Version{20, 10}, false)
	says(t, err, "write "+f.path, "it has its new content")
	after := allFiles(t, dir)
	if !strings.Contains(after["daemon.json"], "10.5.1.1/24") || after["daemon.json.before-tulle"] != `{}` || after["daemon.json.tulle"] == "" || len(after) != 3 {
		t.Errorf("files are %q, want the new content, the copy and the record", after)
	}
	if _, _, err := f.Unconfigure(nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"daemon.json": `{}`}, allFiles(t, dir)); diff != "" {
		t.Errorf("unconfigured, files, -want +got:\n%s", diff)
	}
}

// spoilSync puts a device that fsync(2) refuses in the place of every directory that this process holds open by the path.
func spoilSync(dir string) error {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range open {
		var fd int
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err != nil || target != dir {
			continue
		}
		if _, err := fmt.Sscan(e.Name(), &fd); err != nil {
			return err
		}
		if err := unix.Dup3(int(null.Fd()), fd, unix.O_CLOEXEC); err != nil {
			return err
		}
	}
	return nil
}

// What a run that was killed has left goes with the next, and nothing of others with it.
func TestDraftsOfKilledRunsGo(t *testing.T) {
	lease := leaseOf("10.5.1.0/24")
	for name, run := range map[string]func(f File) error{
		"configure":            func(f File) error { _, err := f.configureFor(lease, Version{20, 10}, false); return err },
		"unconfigure":          func(f File) error { _, _, err := f.Unconfigure(nil); return err },
		"unconfigure, leaving": func(f File) error { _, _, err := f.Unconfigure([]netip.Prefix{lease.Subnets.V4}); return err },
	} {
		t.Run(name, func(t *testing.T) {
			f := fileWith(t, `{}`)
			if _, err := f.configureFor(lease, Version{20, 10}, false); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Dir(f.path)
			others := []string{".daemon.json.tulle-", ".daemon.json.tulle-1x", ".other.json.tulle-1", "daemon.json.tulle-1"}
			drafts := []string{".daemon.json.tulle-123", ".daemon.json.tulle-4", ".daemon.json.before-tulle.tulle-56"}
			for _, name := range append(drafts, others...) {
				if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := run(f); err != nil {
				t.Fatal(err)
			}
			left := allFiles(t, dir)
			for _, name := range drafts {
				if _, ok := left[name]; ok {
					t.Errorf("%s is left", name)
				}
			}
			for _, name := range others {
				if left[name] != "half" {
					t.Errorf("%s is %q, want what it was", name, left[name])
				}
			}
		})
	}
}
