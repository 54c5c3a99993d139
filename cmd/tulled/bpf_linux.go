package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tryBPFArgument has this program call bpf(2) and do nothing else.
const tryBPFArgument = "--try-bpf"

// tryBPFLimit is how long that may take.
const tryBPFLimit = 5 * time.Second

// tryBPF calls bpf(2) with nothing to do (an attribute of no length is refused), if it is what this process was started for. A filter of system calls that
// does not allow it ends the process.
func tryBPF(args []string) (tried bool) {
	if len(args) != 2 || args[1] != tryBPFArgument {
		return false
	}
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) // the end that it may meet is no fault to look into
	_, _, _ = unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_CREATE, 0, 0)
	return true
}

// bpfForbidden returns an error if a call of bpf(2) would end this process: a filter of system calls (seccomp(2)), such as that of a service of systemd, kills who
// makes a call that it does not list, and nobody can tell but by trying. So another process tries, if there is a filter.
func bpfForbidden() error {
	if mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0); err != nil || mode == 0 {
		return nil
	}
	child, err := os.StartProcess("/proc/self/exe", []string{os.Args[0], tryBPFArgument}, &os.ProcAttr{Env: []string{}})
	if err != nil {
		return fmt.Errorf("find out whether bpf(2) is allowed: %w", err)
	}
	limit := time.AfterFunc(tryBPFLimit, func() { _ = child.Kill() })
	defer limit.Stop()
	state, err := child.Wait()
	if err != nil {
		return fmt.Errorf("find out whether bpf(2) is allowed: %w", err)
	}
	if state.Success() {
		return nil
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signal() == syscall.SIGKILL {
		return fmt.Errorf("find out whether bpf(2) is allowed: no answer after %v", tryBPFLimit)
	}
	return errors.New("the filter of system calls that tulled runs under ends processes that call bpf(2): with systemd, write SystemCallFilter=@system-service bpf into its unit, as dist/systemd/tulled.service has it")
}
