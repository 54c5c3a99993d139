//go:build linux

package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"tulle/ip"
)

// bpfDir is where the daemons pin the fast path's programs.
func bpfDir(dir string) string { return filepath.Join(dir, "bpf") }

// fastPathModes are the values of tulled's --fast-path.
func fastPathModes() []string { return []string{"auto", "on", "off"} }

func (c Config) checkFastPath() error {
	if !slices.Contains(fastPathModes(), c.FastPath) {
		return fmt.Errorf("fast path is %q, must be auto, on or off", c.FastPath)
	}
	return nil
}

// fastPathArgs are flags of the daemon.
func (l *Lab) fastPathArgs() []string {
	return []string{"--fast-path", l.Config.FastPath, "--bpf-dir", bpfDir(l.Config.Dir)}
}

// mountBPF gives a lab with the fast path a bpffs of its own. Where that is refused nothing is pinned, as tulled says.
func (l *Lab) mountBPF() error {
	if l.Config.FastPath == "off" {
		return nil
	}
	dir := bpfDir(l.Config.Dir)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make directory for pins: %w", err)
	}
	_ = unix.Mount("bpf", dir, "bpf", 0, "mode=0700")
	return nil
}

// unmountBPF takes the bpffs of a lab away, and with it all that is pinned there. It is not an error if there is none.
func unmountBPF(dir string) error {
	dir = bpfDir(dir)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Type != unix.BPF_FS_MAGIC {
		return nil
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}

// FastPath asks tulled how the fast path stands. A tulled without one says why.
func (h *Host) FastPath(ctx context.Context) (ip.FastPathState, error) {
	var st struct{ FastPath ip.FastPathState }
	err := h.Status(ctx, &st)
	return st.FastPath, err
}

// awaitFastPath waits until the fast path leads to the containers of every host that has it. It is an accelerator: without it, all is as it should be.
func (l *Lab) awaitFastPath(ctx context.Context) error {
	for _, host := range l.Hosts {
		_ = poll(ctx, fastPathTimeout, func() bool {
			st, err := host.FastPath(ctx)
			return err == nil && (!st.On || st.Ports >= len(host.Containers) || st.Partly != "" || st.Failed != "")
		})
	}
	return ctx.Err()
}
