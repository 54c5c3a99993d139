//go:build linux

package netns

import (
	"fmt"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Launcher starts processes inside namespaces so that they die with this
// process, however it ends. Linux ties PR_SET_PDEATHSIG to the thread that
// forked, so a Launcher keeps one thread for its whole life.
type Launcher struct {
	requests chan launch
	done     chan struct{}
}

type launch struct {
	ns     *Namespace
	cmd    *exec.Cmd
	result chan error
}

// NewLauncher returns a launcher; Close ends it and kills what it started.
func NewLauncher() *Launcher {
	l := &Launcher{requests: make(chan launch), done: make(chan struct{})}
	ready := make(chan struct{})
	go l.lockThread(ready)
	<-ready
	return l
}

// Start starts cmd inside ns with SIGKILL as its parent death signal.
func (l *Launcher) Start(ns *Namespace, cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	request := launch{ns: ns, cmd: cmd, result: make(chan error, 1)}
	l.requests <- request
	return <-request.result
}

// Close destroys the thread. Start must not be called afterwards.
func (l *Launcher) Close() {
	close(l.requests)
	<-l.done
}

// lockThread serves on a thread other than the process's first one, which the
// runtime parks instead of destroying it.
func (l *Launcher) lockThread(ready chan struct{}) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		go l.lockThread(ready)
		<-ready
		runtime.UnlockOSThread()
		return
	}
	close(ready)
	l.serve()
}

// serve leaves its thread locked: it has been in other namespaces, and its
// death is the signal to the processes it started.
func (l *Launcher) serve() {
	defer close(l.done)
	for request := range l.requests {
		if err := unix.Setns(request.ns.FD(), unix.CLONE_NEWNET); err != nil {
			request.result <- fmt.Errorf("enter network namespace: %w", err)
			continue
		}
		request.result <- request.cmd.Start()
	}
}
