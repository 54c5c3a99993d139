//go:build linux

package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// An id is not guessed: what lies in its place is named, and never waited for.
func TestIDFilesInTheWay(t *testing.T) {
	for kind, put := range map[string]func(path string) error{
		"named pipe":    func(path string) error { return syscall.Mkfifo(path, 0o666) },
		"symbolic link": func(path string) error { return os.Symlink("/dev/zero", path) },
		"directory":     func(path string) error { return os.Mkdir(path, 0o700) },
		"3221225472 bytes": func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 3<<30))
		},
	} {
		dir := t.TempDir()
		for _, name := range []string{"node-id", instanceFile} {
			if err := put(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		_, _, nodeErr := NodeID("", filepath.Join(dir, "none"), dir)
		_, instanceErr := Instance(dir)
		for name, err := range map[string]error{"node-id": nodeErr, instanceFile: instanceErr} {
			if text := fmt.Sprint(err); !strings.Contains(text, filepath.Join(dir, name)) || !strings.Contains(text, kind) || !strings.Contains(text, "remove it") {
				t.Errorf("%s for %s: error %v, want what it is and the remedy", kind, name, err)
			}
		}
	}
}

func TestViewThatUnpacksWithoutEnd(t *testing.T) {
	packed := zip(t, strings.Repeat(" ", 1<<20))
	if _, err := unpack([]byte(packed), 1<<20-1); err == nil || !strings.Contains(err.Error(), "more than 1048575 bytes when unpacked") {
		t.Errorf("error %v, want that it is too large", err)
	}
	if _, err := unpack([]byte(packed), 1<<20); !errors.Is(err, errUnsealed) {
		t.Errorf("error %v, want it read to its end", err)
	}
}
