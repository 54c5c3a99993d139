//go:build linux

package atomicfile

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// check fails unless path is a file with the content and mode, alone in its directory.
func check(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil || string(data) != content {
		t.Errorf("content %q, error %v, want %q", data, err, content)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != mode {
		t.Errorf("mode %v, error %v, want %v", info.Mode(), err, mode)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("directory holds %v, error %v, want the file alone", entries, err)
	}
}

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "file")
	if err := Write(path, []byte("one"), 0o644); err != nil {
		t.Fatal(err)
	}
	check(t, path, "one", 0o644)
	if err := Write(path, []byte("2"), 0o600); err != nil {
		t.Fatal(err)
	}
	check(t, path, "2", 0o600)
}

func TestWhatACrashLeavesIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, name := range []string{".file.new", ".file.new123"} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), name), []byte("half of something long"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := Write(path, []byte("whole"), 0o600); err != nil {
		t.Fatal(err)
	}
	check(t, path, "whole", 0o600)
}

func TestUnfinished(t *testing.T) {
	for name, want := range map[string]string{
		".file.new": "file", ".file.new42": "file", ".a.new.new7": "a.new", "..x.new1": ".x",
		"file": "", ".file": "", ".file.newest": "", "file.new1": "", ".new1": "",
	} {
		if got, ok := Unfinished(name); got != want || ok != (want != "") {
			t.Errorf("%s: unfinished %q, %t, want %q", name, got, ok, want)
		}
	}
}

// Whatever others put into the directory, the file alone is written, and they get nothing written elsewhere.
func TestWhatIsInTheWayIsReplaced(t *testing.T) {
	for name, put := range map[string]func(path string, secret string) error{
		"pipe":    func(path, _ string) error { return syscall.Mkfifo(path, 0o666) },
		"link":    func(path, secret string) error { return os.Symlink(secret, path) },
		"device":  func(path, _ string) error { return os.Symlink("/dev/full", path) },
		"nowhere": func(path, _ string) error { return os.Symlink("/nowhere/at/all", path) },
	} {
		t.Run(name, func(t *testing.T) {
			secret := filepath.Join(t.TempDir(), "secret")
			if err := os.WriteFile(secret, []byte("secret"), 0o400); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			for _, name := range []string{"file", ".file.new", ".file.new1"} {
				if err := put(filepath.Join(dir, name), secret); err != nil {
					t.Fatal(err)
				}
			}
			if err := Write(filepath.Join(dir, "file"), []byte("content"), 0o644); err != nil {
				t.Fatal(err)
			}
			check(t, filepath.Join(dir, "file"), "content", 0o644)
			check(t, secret, "secret", 0o400)
		})
	}
}

func TestDirectoryMayBeALink(t *testing.T) {
	dir, link := t.TempDir(), filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if err := Write(filepath.Join(link, "file"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	check(t, filepath.Join(dir, "file"), "content", 0o644)
}

func TestFailureKeepsTheOld(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(path, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, []byte("x"), 0o600); err == nil || !strings.Contains(err.Error(), "write "+path+": it is a directory: remove it") {
		t.Errorf("error %v, want one that names the path and the remedy", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("directory holds %v, error %v, want no leftovers", entries, err)
	}
}

// Whoever writes to /dev/null as root wants nothing written, and no other /dev/null.
func TestADeviceStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "null")
	if err := syscall.Mknod(path, syscall.S_IFCHR|0o666, 1<<8|3); err != nil { // /dev/null (Linux, Documentation/admin-guide/devices.txt)
		if os.Getenv("CI") == "" {
			t.Skipf("needs root outside of any user namespace, to make a device: %v", err)
		}
		t.Fatal(err)
	}
	if err := Write(path, []byte("x"), 0o600); err == nil || err.Error() != "write "+path+": it is a device: give the path of a file" {
		t.Errorf("error %v, want one that names the path and the remedy", err)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != fs.ModeDevice|fs.ModeCharDevice {
		t.Errorf("at the path is %v, %v; want the device", info.Mode(), err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("directory holds %v, error %v, want no leftovers", entries, err)
	}
}
