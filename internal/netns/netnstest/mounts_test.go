//go:build linux

package netnstest

import (
	"debug/elf"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// insideEnv marks the process that runs in a chroot.
const insideEnv = "TULLE_TEST_CHROOT"

// In a plain chroot a test that needs mounts of its own ends with a sentence that says what to do; with CI set it fails. Elsewhere it runs.
func TestRequireOwnMounts(t *testing.T) {
	if os.Getenv(insideEnv) != "" {
		RequireOwnMounts(t)
		return
	}
	Require(t, New(t).Do(func() error { return nil }))
	root := t.TempDir()
	install(t, root, "/proc/self/exe", "/test")
	for _, path := range libraries(t) {
		install(t, root, path, path)
	}
	for ci, result := range map[string]string{"": "SKIP", "true": "FAIL"} {
		cmd := exec.Command("/test", "-test.v", "-test.run=^TestRequireOwnMounts$")
		cmd.SysProcAttr, cmd.Dir = &syscall.SysProcAttr{Chroot: root}, "/"
		cmd.Env = []string{insideEnv + "=1", "CI=" + ci, "TMPDIR=/"}
		out, err := cmd.CombinedOutput()
		if text := string(out); (err != nil) != (result == "FAIL") || !strings.Contains(text, "--- "+result) || !strings.Contains(text, errNoMountPoint.Error()) {
			t.Errorf("in a chroot, with CI=%q: %v\n%s\nwant %s and %q", ci, err, text, result, errNoMountPoint)
		}
	}
}

// install copies a file into a root.
func install(t *testing.T, root, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, to)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
}

// libraries lists what this process needs besides its file: nothing, unless it was linked with C, as under the race detector.
func libraries(t *testing.T) (paths []string) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for field := range strings.FieldsSeq(string(maps)) {
		if strings.HasPrefix(field, "/") && strings.Contains(filepath.Base(field), ".so") && !slices.Contains(paths, field) {
			paths = append(paths, field)
		}
	}
	self, err := elf.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	for _, part := range self.Progs {
		if part.Type == elf.PT_INTERP { // the loader, by a name that need not be that of its file
			name, err := io.ReadAll(part.Open())
			if err != nil {
				t.Fatal(err)
			}
			paths = append(paths, strings.TrimRight(string(name), "\x00"))
		}
	}
	return paths
}
