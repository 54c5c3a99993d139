package docker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
