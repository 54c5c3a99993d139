//go:build linux

package lab

import (
	"fmt"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"tulle/internal/netns"
)

// launcher starts processes inside namespaces so that they die with this
// process, however it ends. Linux ties PR_SET_PDEATHSIG to the thread that
// forked, so a launcher keeps one thread for its whole life.
type launcher struct {
	requests chan launch
	done     chan struct{}
}

type launch struct {
	ns     *netns.Namespace
	cmd    *exec.Cmd
	result chan error
}

// newLauncher returns a launcher; close ends it and kills what it started.
func newLauncher() *launcher {
	l := &launcher{requests: make(chan launch), done: make(chan struct{})}
	ready := make(chan struct{})
	go l.lockThread(ready)
	<-ready
	return l
}

// start starts cmd inside ns with SIGKILL as its parent death signal.
func (l *launcher) start(ns *netns.Namespace, cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	request := launch{ns: ns, cmd: cmd, result: make(chan error, 1)}
	l.requests <- request
	return <-request.result
}

// close destroys the thread. start must not be called afterwards.
func (l *launcher) close() {
	close(l.requests)
	<-l.done
}

// lockThread serves on a thread other than the process's first one, which the
// runtime parks instead of destroying it.
func (l *launcher) lockThread(ready chan struct{}) {
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
func (l *launcher) serve() {
	defer close(l.done)
	for request := range l.requests {
		if err := unix.Setns(request.ns.FD(), unix.CLONE_NEWNET); err != nil {
			request.result <- fmt.Errorf("enter network namespace: %w", err)
			continue
		}
		request.result <- request.cmd.Start()
	}
}
