//go:build linux

package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// stopTimeout is how long a process may take to obey SIGTERM.
const stopTimeout = 15 * time.Second

// process is a program that runs inside a node.
type process struct {
	name string
	cmd  *exec.Cmd
	// done is closed once the process has been waited for; err is set by then.
	done chan struct{}
	err  error
}

// start runs a program inside n with its output appended to the file log.
func (l *Lab) start(n *node, name, log, program string, args ...string) (*process, error) {
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", name, n, err)
	}
	output, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", name, n, err)
	}
	defer output.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = output, output
	// Settings of this machine, such as a proxy, are not those of its hosts.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	// A session of its own: a Ctrl-C on the terminal is for the lab to handle.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if l.launcher != nil {
		err = l.launcher.start(n.ns, cmd)
	} else {
		err = n.ns.Do(cmd.Start)
	}
	if err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", name, n, err)
	}
	p := &process{name: name + " on " + n.name, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// outcome tells how a process that has exited did so.
func (p *process) outcome() string {
	if p.err == nil {
		return "exit status 0"
	}
	return p.err.Error()
}

// signal sends a signal to a process, which must run; p may be nil.
func (p *process) signal(signal os.Signal) error {
	if p == nil || p.exited() {
		return fmt.Errorf("send %v: the process does not run", signal)
	}
	if err := p.cmd.Process.Signal(signal); err != nil {
		return fmt.Errorf("send %v to %s: %w", signal, p.name, err)
	}
	return nil
}

func (p *process) stop() error {
	p.cmd.Process.Signal(syscall.SIGTERM)
	timeout := time.NewTimer(stopTimeout)
	defer timeout.Stop()
	select {
	case <-p.done:
	case <-timeout.C:
		p.kill()
		return fmt.Errorf("stop %s: still running %v after SIGTERM", p.name, stopTimeout)
	}
	if p.err != nil {
		return fmt.Errorf("stop %s: %w", p.name, p.err)
	}
	return nil
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// where tells what each thread of a process that does not get on waits for in the kernel, and what processor time it has had, for an error message.
func (p *process) where() string {
	if p == nil || p.exited() {
		return ""
	}
	const most = 16
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", p.cmd.Process.Pid))
	if err != nil {
		return ""
	}
	var b strings.Builder
	for _, dir := range threads[:min(len(threads), most)] {
		read := func(name string) string {
			text, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				return err.Error()
			}
			return strings.TrimSpace(string(text))
		}
		_, stat, _ := strings.Cut(read("stat"), ") ") // the state comes after the name (proc_pid_stat(5))
		time, _, _ := strings.Cut(read("schedstat"), " ")
		fmt.Fprintf(&b, "\n    thread %s: state %.1s, %s ns of processor time, in %s", filepath.Base(dir), stat, time, strings.Join(strings.Fields(read("stack")), " "))
	}
	return b.String()
}

// logTail returns the end of a log, indented, for an error message.
func logTail(path string) string {
	const maxLines = 15
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(text) == 0 {
		return "    (its log is empty)"
	}
	if err != nil {
		return "    (its log: " + err.Error() + ")"
	}
	lines := bytes.Split(bytes.TrimRight(text, "\n"), []byte("\n"))
	lines = lines[max(0, len(lines)-maxLines):]
	return "    " + string(bytes.Join(lines, []byte("\n    ")))
}
