//go:build linux

package fastpath_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"tulle/internal/netns"
	"tulle/ip"
	"tulle/ip/kernel/fastpath"
)

// process is an engine in a process of its own.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
}

// startProcess runs an engine on the host in a process of its own, and returns once it is on.
func (h *host) startProcess(environment ...string) *process {
	t := h.t
	t.Helper()
	want, err := json.Marshal(wanted{h.fastPath(), h.fastPath().Peers.Sorted()})
	must(t, err)
	namespace, err := syscall.Dup(h.FD())
	must(t, err)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = slices.Concat(os.Environ(), environment, []string{engineEnv + "=" + h.dir})
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(namespace), "namespace")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	input, err := cmd.StdinPipe()
	must(t, err)
	output, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	cmd.ExtraFiles[0].Close()
	p := &process{t: t, cmd: cmd}
	t.Cleanup(p.kill)
	_, err = input.Write(append(want, '\n'))
	must(t, err)
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil || line != "on\n" {
		t.Fatalf("an engine in a process of its own says %q (%v), want that it is on", line, err)
	}
	return p
}

// kill ends the process as kill -9 does.
func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}

// wanted is what a process is told.
type wanted struct {
	ip.FastPath
	Peers []ip.FastPeer
}

// runEngine is the life of such a process: descriptor 3 is the network namespace, what is wanted comes from standard input.
func runEngine(dir string) error {
	ns, err := netns.Open("/proc/self/fd/3")
	if err != nil {
		return err
	}
	open := fastpath.Open
	if slices.Contains(os.Environ(), filtersEnv) {
		open = fastpath.OpenFilters
	}
	var f *fastpath.FastPath
	if err := ns.Do(func() (err error) {
		f, err = open(fastpath.Config{Dir: dir, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))})
		return err
	}); err != nil {
		return err
	}
	var want wanted
	if err := json.NewDecoder(os.Stdin).Decode(&want); err != nil {
		return err
	}
	want.FastPath.Peers = ip.FastPeersOf(want.Peers...)
	f.Want(want.FastPath)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	go func() {
		if eventually(healTimeout, func() bool { return f.State().On }) {
			fmt.Println("on")
		} else {
			fmt.Println(show(f.State()))
		}
	}()
	return f.Run(ctx)
}
