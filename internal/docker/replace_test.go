//go:build linux

package docker

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// An access control list with one user beside the owner, as the kernel writes it (acl(5), linux/posix_acl_xattr.h).
const accessList = "\x02\x00\x00\x00" + // version
	"\x01\x00\x06\x00\xff\xff\xff\xff" + // the owner: rw
	"\x02\x00\x06\x00\xe8\x03\x00\x00" + // user 1000: rw
	"\x04\x00\x00\x00\xff\xff\xff\xff" + // the group: none
	"\x10\x00\x06\x00\xff\xff\xff\xff" + // mask: rw
	"\x20\x00\x00\x00\xff\xff\xff\xff" // others: none

// TestConfigureKeepsAttributes looks at all of a file but its content, of the former file that is kept beside it too: it
// may be secret.
func TestConfigureKeepsAttributes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.WriteFile(path, []byte("{}"), 0o640); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"user.note": "ours", "user.empty": "", "system.posix_acl_access": accessList}
	if os.Geteuid() == 0 {
		want["security.selinux"] = "system_u:object_r:container_config_t:s0"
		if err := os.Chown(path, 1234, 2345); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range want {
		if err := unix.Setxattr(path, name, []byte(value), 0); errors.Is(err, unix.ENOTSUP) && os.Getenv("CI") == "" {
			t.Skipf("needs a file system with extended attributes in %s: %v", filepath.Dir(path), err)
		} else if err != nil {
			t.Fatalf("set %s: %v", name, err)
		}
	}
	look := func(path string) map[string]string {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		stat := info.Sys().(*syscall.Stat_t)
		got := map[string]string{"mode": info.Mode().String(), "owner": fmt.Sprintf("%d:%d", stat.Uid, stat.Gid)}
		for name := range want {
			b := make([]byte, 256)
			n, err := unix.Getxattr(path, name, b)
			if err != nil {
				t.Errorf("%s: %s: %v", filepath.Base(path), name, err)
			}
			got[name] = string(b[:max(n, 0)])
		}
		return got
	}
	before := look(path)
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	same := func(when, path string) {
		t.Helper()
		if diff := cmp.Diff(before, look(path)); diff != "" {
			t.Errorf("%s, %s: -before +now:\n%s", when, filepath.Base(path), diff)
		}
	}
	if _, err := f.configureFor(leaseOf("10.5.1.0/24"), Version{20, 10}, false); err != nil {
		t.Fatal(err)
	}
	same("configured", path)
	same("configured", f.Backup())
	if _, _, err := f.Unconfigure(nil); err != nil {
		t.Fatal(err)
	}
	same("unconfigured", path)
}

// A link that leads nowhere is not for Tulle to replace, nor what it leads to for Tulle to make.
func TestConfigureDanglingLink(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "daemon.json")
	if err := os.Symlink("missing/real.json", path); err != nil {
		t.Fatal(err)
	}
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if configured, err := f.Configured(); configured || err != nil {
		t.Errorf("configured = %t, error %v, want that of no file", configured, err)
	}
	for name, do := range map[string]func() error{
		"configure": func() error {
			_, err := f.configureFor(leaseOf("10.5.1.0/24"), Version{20, 10}, false)
			return err
		},
		"unconfigure": func() error {
			_, _, err := f.Unconfigure(nil)
			return err
		},
	} {
		if err := do(); err == nil || !strings.Contains(err.Error(), "a link to missing/real.json, which does not exist") {
			t.Errorf("%s: error %v, want one that says where the link leads", name, err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 || entries[0].Type() != os.ModeSymlink {
		t.Errorf("the directory holds %v (%v), want the link alone", entries, err)
	}
}

// A file that the kernel will not have replaced is what it was, also in that it was never configured.
func TestConfigureImmutable(t *testing.T) {
	f := fileWith(t, "{}")
	makeImmutable(t, f.path)
	_, err := f.configureFor(leaseOf("10.5.1.0/24"), Version{20, 10}, false)
	says(t, err, "chattr -i", "--env-file FILE")
	if diff := cmp.Diff(map[string]string{"daemon.json": "{}"}, allFiles(t, filepath.Dir(f.path))); diff != "" {
		t.Errorf("files, -want +got:\n%s", diff)
	}
}

// On the way out there are no options that dockerd could take from elsewhere.
func TestUnconfigureImmutable(t *testing.T) {
	f := fileWith(t, "{}")
	if _, err := f.configureFor(leaseOf("10.5.1.0/24"), Version{20, 10}, false); err != nil {
		t.Fatal(err)
	}
	before := allFiles(t, filepath.Dir(f.path))
	makeImmutable(t, f.path)
	for name, docker0 := range map[string][]netip.Prefix{"restore": nil, "leave": {netip.MustParsePrefix("10.5.1.1/24")}} {
		_, _, err := f.Unconfigure(docker0)
		says(t, err, "chattr -i")
		if strings.Contains(fmt.Sprint(err), "--env-file") {
			t.Errorf("%s: error %v, want none that advises to configure", name, err)
		}
	}
	if diff := cmp.Diff(before, allFiles(t, filepath.Dir(f.path))); diff != "" {
		t.Errorf("files, -before +now:\n%s", diff)
	}
}

// makeImmutable has the kernel refuse to replace the file at path until the test ends.
func makeImmutable(t *testing.T, path string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	const immutable = 0x10 // FS_IMMUTABLE_FL
	flags, err := unix.IoctlGetInt(int(file.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(file.Fd()), unix.FS_IOC_SETFLAGS, flags|immutable)
	}
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("needs CAP_LINUX_IMMUTABLE and a file system that knows immutable files: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.IoctlSetPointerInt(int(file.Fd()), unix.FS_IOC_SETFLAGS, flags) })
}

// A replaced file has one name: another would keep the former content, and nobody would be told.
func TestHardLink(t *testing.T) {
	f := fileWith(t, "{}")
	dir, other := filepath.Dir(f.path), filepath.Join(filepath.Dir(f.path), "other")
	link := func() {
		t.Helper()
		if err := os.Link(f.path, other); err != nil {
			t.Fatal(err)
		}
	}
	link()
	_, err := f.configureFor(leaseOf("10.5.1.0/24"), Version{20, 10}, false)
	says(t, err, "write "+f.path+": it has 2 names", "-samefile "+f.path, "--env-file FILE")
	if diff := cmp.Diff(map[string]string{"daemon.json": "{}", "other": "{}"}, allFiles(t, dir)); diff != "" {
		t.Errorf("configure: files, -want +got:\n%s", diff)
	}
	if _, _, err := f.Unconfigure(nil); err != nil {
		t.Errorf("nothing to undo: error %v", err)
	}

	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	if _, err := f.configureFor(leaseOf("10.5.1.0/24"), Version{20, 10}, false); err != nil {
		t.Fatal(err)
	}
	link()
	before := allFiles(t, dir)
	_, _, err = f.Unconfigure(nil)
	says(t, err, "write "+f.path+": it has 2 names")
	if strings.Contains(fmt.Sprint(err), "--env-file") {
		t.Errorf("error %v, want none that advises to configure", err)
	}
	if diff := cmp.Diff(before, allFiles(t, dir)); diff != "" {
		t.Errorf("unconfigure: files, -want +got:\n%s", diff)
	}
}

// What is not accepted is not written, and is shown as it would have been.
func TestConfigureNotAccepted(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(path, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	refusal := errors.New("not this")
	f := File{path: path}.Accepting(func(path string) error {
		if text, err := os.ReadFile(path); err != nil || !strings.Contains(string(text), "10.5.1.1/24") {
			t.Errorf("shown is %q (%v), want the new content", text, err)
		}
		return refusal
	})
	if changes, err := f.configureFor(leaseOf("10.5.1.0/24"), Version{20, 10}, false); !errors.Is(err, refusal) || changes != nil {
		t.Errorf("changes %v, error %v, want none and the refusal", changes, err)
	}
	if diff := cmp.Diff(map[string]string{"daemon.json": "{}"}, allFiles(t, dir)); diff != "" {
		t.Errorf("files, -want +got:\n%s", diff)
	}
}

// allFiles is files with the hidden ones.
func allFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(text)
	}
	return all
}

// Docker 23 and newer reads past a byte order mark, which stays; older ones do not start with it.
func TestConfigureByteOrderMark(t *testing.T) {
	path := filepath.Join(t.TempDir(), "daemon.json")
	f := File{path: path}
	const text = "\ufeff{\n  \"debug\": true\n}"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := f.Readable(Version{20, 10}); err == nil || !strings.Contains(err.Error(), "Docker 20.10 cannot read") {
		t.Errorf("error %v, want one that names Docker 20.10", err)
	}
	if err := f.Readable(Version{23, 0}); err != nil {
		t.Error(err)
	}
	if _, err := f.configureFor(leaseOf("10.5.1.0/24"), Version{23, 0}, false); err != nil {
		t.Fatal(err)
	}
	const want = "\ufeff{\n  \"debug\": true,\n  \"bip\": \"10.5.1.1/24\",\n  \"mtu\": 1450,\n  \"ip-masq\": false\n}"
	if got, err := os.ReadFile(path); string(got) != want {
		t.Errorf("daemon.json is %q (%v), want %q", got, err, want)
	}
	if _, _, err := f.Unconfigure(nil); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); string(got) != text {
		t.Errorf("unconfigured, daemon.json is %q (%v), want %q", got, err, text)
	}
	if err := os.WriteFile(path, []byte("\xff\xfe{\x00}\x00"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := f.configureFor(leaseOf("10.5.1.0/24"), Version{23, 0}, false); err == nil || !strings.Contains(err.Error(), "UTF-16, which Docker 23 and newer reads") {
		t.Errorf("error %v, want one that says who reads UTF-16", err)
	}
}
