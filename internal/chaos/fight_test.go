//go:build linux

package chaos

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
)

// fight starts a program that works against tulled.
func (r *row) fight(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("want a node and a command, got %q", args)
	}
	ns, err := r.w.lab.Namespace(args[0])
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(r.w.t.Context(), args[1], args[2:]...)
	// A group of its own: what it starts ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := ns.Do(cmd.Start); err != nil {
		return fmt.Errorf("run %s in %s: %w", args[1], args[0], err)
	}
	r.opponents = append(r.opponents, cmd)
	return nil
}

// peace ends what fights. A program that ended by itself did not fight for as long as it was to.
func (r *row) peace() (err error) {
	for _, cmd := range r.opponents {
		err = errors.Join(err, cmd.Cancel())
		if waited := cmd.Wait(); cmd.ProcessState == nil || cmd.ProcessState.Exited() {
			err = errors.Join(err, fmt.Errorf("%s ended by itself: %w", strings.Join(cmd.Args, " "), waited))
		}
	}
	r.opponents = nil
	return err
}
