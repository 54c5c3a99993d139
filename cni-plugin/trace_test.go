//go:build linux

package cniplugin_test

import (
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// traceLimit bounds a run under trace.
const traceLimit = 30 * time.Second

// traced is a program under ptrace(2), without the programs that it starts.
type traced struct {
	pid   int // of its first thread, and of its process group
	steps []string
	begun map[int]string // by thread, the step that it is in
}

// killedAt runs a program, and kills it at its nth step: a system call that changes something counts once when it begins, and has
// no effect then, and once when it is done. It returns the steps up to there, and how the program ended. The calling goroutine is
// locked to its thread, for only that may trace.
func killedAt(cmd *exec.Cmd, n int) ([]string, syscall.WaitStatus, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, 0, err
	}
	p := traced{pid: cmd.Process.Pid, begun: map[int]string{}}
	kill := time.AfterFunc(traceLimit, func() { _ = syscall.Kill(p.pid, syscall.SIGKILL) })
	defer kill.Stop()
	status, err := p.follow(n)
	if err != nil {
		err = errors.Join(err, cmd.Process.Kill())
	}
	return p.steps, status, errors.Join(err, cmd.Process.Release())
}

// follow returns how the program ends.
func (p *traced) follow(n int) (syscall.WaitStatus, error) {
	var status syscall.WaitStatus
	for tracing := false; ; {
		// The programs that it starts are in its group as well, but are no children of this thread.
		thread, err := syscall.Wait4(-p.pid, &status, unix.WALL, nil)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return 0, fmt.Errorf("wait for threads: %w", err)
		case thread == p.pid && !status.Stopped():
			return status, nil
		case !status.Stopped():
			continue
		case !tracing:
			// Threads are traced like the first one. The programs that it starts come by vfork, and are not.
			tracing = true
			err = unix.PtraceSetOptions(p.pid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_EXITKILL)
		}
		if err == nil {
			err = p.resume(thread, status.StopSignal(), n)
		}
		if err != nil && err != syscall.ESRCH {
			return 0, fmt.Errorf("trace thread: %w", err)
		}
	}
}

// resume lets a stopped thread go on, to its death if that is the nth step.
func (p *traced) resume(thread int, signal syscall.Signal, n int) error {
	const syscallStop = syscall.SIGTRAP | 0x80 // PTRACE_O_TRACESYSGOOD
	switch signal {
	case syscallStop:
		signal = 0
		step, err := p.step(thread)
		if err != nil {
			return err
		}
		if step != "" {
			if p.steps = append(p.steps, step); len(p.steps) == n {
				return syscall.Kill(p.pid, syscall.SIGKILL)
			}
		}
	case syscall.SIGTRAP, syscall.SIGSTOP: // of ptrace, for new programs and threads
		signal = 0
	}
	return unix.PtraceSyscall(thread, int(signal))
}

// step tells what a thread that stopped at a system call begins or has done; empty if that changes nothing.
func (p *traced) step(thread int) (string, error) {
	// The beginning of struct ptrace_syscall_info of linux/ptrace.h.
	var info struct {
		op   uint8
		_    [3]uint8
		_    uint32
		_, _ uint64
		nr   uint64
		args [6]uint64
		_, _ uint64
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(thread), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	switch {
	case errno != 0:
		return "", errno
	case info.op == unix.PTRACE_SYSCALL_INFO_ENTRY:
		p.begun[thread] = changing(thread, info.nr, info.args)
		return p.begun[thread], nil
	}
	if done := p.begun[thread]; done != "" {
		return done + " done", nil
	}
	return "", nil
}

// changing names a system call if it changes what others, or a later run, see.
func changing(thread int, nr uint64, args [6]uint64) string {
	switch {
	case nr == unix.SYS_OPENAT && args[2]&(unix.O_CREAT|unix.O_WRONLY|unix.O_RDWR) != 0:
		return "open"
	case nr == unix.SYS_WRITE && lasting(thread, args[0]):
		return "write"
	case nr == unix.SYS_FSYNC:
		return "fsync"
	case nr == unix.SYS_FCHMOD:
		return "chmod"
	case nr == unix.SYS_RENAMEAT || nr == unix.SYS_RENAMEAT2:
		return "rename"
	case nr == unix.SYS_UNLINKAT:
		return "unlink"
	case nr == unix.SYS_MKDIRAT:
		return "mkdir"
	case nr == unix.SYS_FLOCK:
		return "lock"
	case nr == unix.SYS_FCNTL && args[1] == unix.F_SETFD:
		return "inherit"
	case nr == unix.SYS_CLONE && args[0]&unix.CLONE_THREAD == 0:
		return "start"
	case nr == unix.SYS_SENDTO: // by netlink alone
		return "send"
	}
	return ""
}

// lasting reports whether what is written to the descriptor goes to a file or to another program.
func lasting(thread int, descriptor uint64) bool {
	var st unix.Stat_t
	err := unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", thread, descriptor), &st)
	kind := st.Mode & unix.S_IFMT
	return err == nil && (kind == unix.S_IFREG || kind == unix.S_IFIFO)
}
