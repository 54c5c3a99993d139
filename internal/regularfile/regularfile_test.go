//go:build linux

package regularfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	for path, content := range map[string]string{secret: "secret", filepath.Join(dir, "regular"): "content", filepath.Join(dir, "empty"): ""} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		syscall.Mkfifo(at("pipe"), 0o600), os.Mkdir(at("directory"), 0o700), syscall.Mkfifo(at("target"), 0o600),
		os.Symlink(secret, at("link")), os.Symlink("/dev/zero", at("device")), os.Symlink(at("target"), at("link-to-pipe")),
		os.Symlink("nowhere", at("dangling")), os.WriteFile(at("sparse"), nil, 0o600), os.Truncate(at("sparse"), 3<<30),
		os.Symlink(dir, at("folder")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	const unfit = "no regular file: remove it"
	for name, tt := range map[string]struct{ read, target string }{ // the content, or a part of the error
		"regular":                        {"content", "content"},
		"empty":                          {"", ""},
		"folder/regular":                 {"content", "content"},
		"pipe":                           {"is a named pipe and " + unfit, "is a named pipe and " + unfit},
		"directory":                      {"is a directory and " + unfit, "is a directory and " + unfit},
		"link":                           {"is a symbolic link and " + unfit, "secret"},
		"device":                         {"is a symbolic link and " + unfit, "is a device and " + unfit},
		"link-to-pipe":                   {"is a symbolic link and " + unfit, "is a named pipe and " + unfit},
		"dangling":                       {"is a symbolic link and " + unfit, "no such file"},
		"sparse":                         {"has 3221225472 bytes, more than the 7 that", "has 3221225472 bytes, more than the 7 that"},
		"missing":                        {"no such file", "no such file"},
		"/proc/self/maps":                {"bytes, more than the 7 that", "bytes, more than the 7 that"},
		"/proc/self/comm":                {"bytes, more than the 7 that", "bytes, more than the 7 that"},
		"/proc/sys/vm/overcommit_memory": {"", ""},
	} {
		path := name
		if !filepath.IsAbs(name) {
			path = at(name)
		}
		for _, read := range []struct {
			do   func(string, int64) ([]byte, error)
			want string
		}{{Read, tt.read}, {ReadTarget, tt.target}} {
			got, err := read.do(path, 7)
			text := string(got)
			if err != nil {
				text = err.Error()
				if !strings.Contains(text, path) {
					t.Errorf("%s: error %q does not name the path", name, text)
				}
			}
			if !strings.Contains(text, read.want) || err == nil && name[0] != '/' && text != read.want {
				t.Errorf("%s: %q, want %q", name, text, read.want)
			}
			if unfitting := strings.Contains(read.want, unfit) || strings.Contains(read.want, "more than"); errors.Is(err, ErrUnfit) != unfitting {
				t.Errorf("%s: ErrUnfit is %t of %v, want %t", name, !unfitting, err, unfitting)
			}
			if errors.Is(err, fs.ErrNotExist) != strings.Contains(read.want, "no such file") {
				t.Errorf("%s: %v tells wrongly whether there is a file", name, err)
			}
		}
	}
}

func TestReadWithoutPermission(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	// Root reads everything, but not a thread with another user's rights on files (setfsuid(2)). The thread ends with the goroutine.
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		_ = syscall.Setfsuid(65534)
		_, err := Read(path, 7)
		done <- err
	}()
	if err := <-done; !errors.Is(err, fs.ErrPermission) || errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v, want that the permission for %s is missing", err, path)
	}
}

func TestMake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for range 2 {
		file, err := Make(path, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("made %v, %v, want a file with mode 600", info, err)
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Make(pipe, 0o600); !errors.Is(err, ErrUnfit) {
		t.Errorf("error %v, want ErrUnfit", err)
	}
}
