//go:build linux

package identity

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
	instance, probeKey := filepath.Base(InstancePath(".")), filepath.Base(ProbeKeyPath("."))
	for kind, put := range map[string]func(path string) error{
		"named pipe":    func(path string) error { return syscall.Mkfifo(path, 0o666) },
		"symbolic link": func(path string) error { return os.Symlink("/dev/zero", path) },
		"directory":     func(path string) error { return os.Mkdir(path, 0o700) },
		"3221225472 bytes": func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 3<<30))
		},
	} {
		dir := t.TempDir()
		for _, name := range []string{"node-id", instance, probeKey} {
			if err := put(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		_, _, nodeErr := NodeID("", filepath.Join(dir, "none"), dir)
		_, _, instanceErr := Instance(dir)
		_, _, keyErr := ProbeKey(dir)
		for name, err := range map[string]error{"node-id": nodeErr, instance: instanceErr, probeKey: keyErr} {
			if text := fmt.Sprint(err); !strings.Contains(text, filepath.Join(dir, name)) || !strings.Contains(text, kind) || !strings.Contains(text, "remove it") {
				t.Errorf("%s for %s: error %v, want what it is and the remedy", kind, name, err)
			}
		}
	}
}
