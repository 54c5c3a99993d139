package archtest

import (
	"os"
	"os/exec"
	"slices"
	"testing"
)

// TestPortable builds what decides for systems that Tulle does not run on.
func TestPortable(t *testing.T) {
	tr := loadTree(t)
	var pure []string
	for _, f := range tr.files {
		if pkg := "./" + f.dir; !f.test && within(f.dir, "ip", "subnet", "backend") && !within(f.dir, "ip/kernel", "subnet/etcd") && !slices.Contains(pure, pkg) {
			pure = append(pure, pkg)
		}
	}
	for _, target := range []struct{ os, arch string }{{"darwin", "arm64"}, {"windows", "amd64"}} {
		t.Run(target.os, func(t *testing.T) {
			t.Parallel()
			build := exec.CommandContext(t.Context(), "go", append([]string{"build"}, pure...)...)
			build.Dir = tr.root
			build.Env = append(os.Environ(), "GOOS="+target.os, "GOARCH="+target.arch, "CGO_ENABLED=0")
			if out, err := build.CombinedOutput(); err != nil {
				t.Errorf("%s: %v: ip, subnet and backend are pure, and build on every OS\n%s", build, err, out)
			}
		})
	}
}
