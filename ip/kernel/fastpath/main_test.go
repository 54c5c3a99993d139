//go:build linux

package fastpath_test

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	// ownPins is where a bpf file system is mounted in mounts that the tests have for themselves, and pinsEnv says where else one is.
	ownPins = "/sys/fs/bpf"
	pinsEnv = "TULLE_TEST_PINS"

	// mountsEnv marks a process that has mounts of its own.
	mountsEnv = "TULLE_TEST_MOUNTS"

	// engineEnv has the directory of pins for a process that is no test, but runs an engine.
	engineEnv = "TULLE_TEST_ENGINE"

	// filtersEnv has that engine do without tcx.
	filtersEnv = "TULLE_TEST_FILTERS=1"
)

func TestMain(m *testing.M) {
	if os.Getenv(engineEnv) != "" {
		if err := runEngine(os.Getenv(engineEnv)); err != nil {
			panic(err)
		}
		return
	}
	if os.Getenv(mountsEnv) == "" {
		why := ownMounts()
		// In a chroot, say, whose root is no mount point. This thread may be in mounts of its own by now, those of the tests are not.
		elsewhere(func() {
			dir, err := os.MkdirTemp("", "tulle-bpf-")
			if err == nil {
				err = unix.Mount("bpf", dir, "bpf", 0, "")
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, "no bpf file system, so that nothing is pinned:", why, err)
				return
			}
			os.Setenv(pinsEnv, dir)
		})
		defer elsewhere(func() {
			if dir := os.Getenv(pinsEnv); dir != "" {
				_ = unix.Unmount(dir, unix.MNT_DETACH)
				_ = os.Remove(dir)
			}
		})
	}
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	m.Run()
}

// elsewhere runs a function on another thread than the calling one, if that is locked.
func elsewhere(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	<-done
}

func pins() string { return cmp.Or(os.Getenv(pinsEnv), ownPins) }

// ownMounts begins the program anew, with a bpf file system of its own. It returns why it cannot.
func ownMounts() error {
	runtime.LockOSThread() // on failure it stays locked, in mounts of its own
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mounts: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("bpf", ownPins, "bpf", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", ownPins, err)
	}
	return unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), mountsEnv+"=1"))
}

// testLog is a logger whose lines appear if the test fails.
func testLog(t *testing.T, host int) *slog.Logger {
	lines := &logLines{}
	t.Cleanup(func() {
		if lines.mu.Lock(); t.Failed() && lines.text.Len() > 0 {
			t.Logf("log of the engine on host %d:\n%s", host, &lines.text)
		}
		lines.mu.Unlock()
	})
	return slog.New(slog.NewTextHandler(lines, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type logLines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logLines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}
