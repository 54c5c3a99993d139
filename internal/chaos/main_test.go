//go:build linux

package chaos

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// programsEnv names a directory with tulle and tulled. TestMain builds them
// unless it is set.
const programsEnv = "TULLE_PROGRAMS"

func TestMain(m *testing.M) {
	if os.Getenv(programsEnv) != "" {
		m.Run()
		return
	}
	dir, err := buildPrograms()
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	os.Setenv(programsEnv, dir)
	m.Run()
}

func buildPrograms() (string, error) {
	dir, err := os.MkdirTemp("", "tulle-programs-")
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-buildvcs=false", "-o", dir, "tulle/cmd/tulle", "tulle/cmd/tulled")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("build tulle and tulled: %w\n%s", err, output), os.RemoveAll(dir))
	}
	return dir, nil
}
