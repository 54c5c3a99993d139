//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"tulle/internal/netns"
)

// insideEnv marks a process that RunUnprivileged has started.
const insideEnv = "TULLE_LAB_USER_NAMESPACE"

func permissionHint(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w (a lab needs root or CAP_SYS_ADMIN; `unshare -rnm` gives them)", err)
	}
	return err
}

// Permitted reports whether this process may build a lab.
func Permitted() bool {
	ns, err := netns.New()
	if err != nil {
		return !errors.Is(err, fs.ErrPermission)
	}
	ns.Close()
	return true
}

// RunUnprivileged runs this program once more, with args, as root of a user
// namespace of its own, and returns its exit code. There EnterUnprivileged
// comes first. The end of ctx is passed on as SIGTERM, so that it can clean up.
func RunUnprivileged(ctx context.Context, args []string) (int, error) {
	if os.Getenv(insideEnv) != "" {
		return 0, errors.New("a user namespace does not give the rights that a lab needs here: run it as root")
	}
	self, err := os.Executable()
	if err != nil {
		return 0, fmt.Errorf("find own executable: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGTERM,
	}
	// The signal comes with the death of the thread that forks.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); cmd.ProcessState == nil {
		return 0, fmt.Errorf("start in a user namespace (run as root where these are forbidden): %w", err)
	}
	return cmd.ProcessState.ExitCode(), nil
}

// EnterUnprivileged gives a process that RunUnprivileged has started a /run of
// its own. In any other process it does nothing.
func EnterUnprivileged() error {
	if os.Getenv(insideEnv) == "" {
		return nil
	}
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount a private /run: %w", err)
	}
	return nil
}
