//go:build linux

package netnstest

import (
	"os"
	"os/exec"
	"path/filepath"
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
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "test"), self, 0o755); err != nil {
		t.Fatal(err)
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
