//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"tulle/internal/bench/traffic"
)

// TrafficCommand is the hidden command of the tool that is one end: its arguments below `tulle bench`.
const TrafficCommand = "traffic"

// endProcess is an end in a process of its own.
type endProcess struct {
	*traffic.Remote
	cmd *exec.Cmd
}

// startEnd starts one in the namespace that in runs functions in, on a core, or on any if cpu is negative.
func startEnd(in func(func() error) error, program string, cpu int) (*endProcess, error) {
	cmd := exec.Command(program, "bench", TrafficCommand, "--core", strconv.Itoa(cpu))
	cmd.Stderr = os.Stderr
	// In a session of its own it has a place of its own among the groups that share a core (sched(7), autogroup).
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := in(cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd, err)
	}
	return &endProcess{traffic.NewRemote(pipes{answers, out}), cmd}, nil
}

// pipes are those of a child.
type pipes struct {
	io.ReadCloser
	out io.WriteCloser
}

func (p pipes) Write(data []byte) (int, error) { return p.out.Write(data) }
func (p pipes) Close() error                   { return errors.Join(p.ReadCloser.Close(), p.out.Close()) }

// stop kills the process: it may be busy.
func (e *endProcess) stop() {
	_ = e.cmd.Process.Kill() // or it has ended
	_ = e.cmd.Wait()         // "signal: killed"
	_ = e.Close()
}

// ServeTraffic is an end for whoever started this process, until that closes its pipe.
func ServeTraffic(cpu int) error {
	end := &traffic.End{Clock: traffic.ProcessClock}
	if cpu < 0 {
		end.Clock = traffic.MachineClock
	} else if err := traffic.Pin(cpu); err != nil {
		return err
	}
	return end.Serve(os.Stdin, os.Stdout)
}

// ServePath is the far end of other hosts' measurements, until ctx ends: orders come to a port of TCP, traffic to the next one.
func ServePath(ctx context.Context, port uint16, progress func(string)) error {
	var listening net.ListenConfig
	l, err := listening.Listen(ctx, "tcp", net.JoinHostPort("", strconv.Itoa(int(port))))
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	progress("waiting for tulle bench path --to on port " + strconv.Itoa(int(port)))
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		// One at a time: two would measure each other.
		if err := serveOne(ctx, conn, port+1); err != nil {
			progress(err.Error())
		}
	}
}

func serveOne(ctx context.Context, conn net.Conn, port uint16) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return err
	}
	end := &traffic.End{Clock: traffic.MachineClock, At: netip.AddrPortFrom(local.Addr().Unmap(), port)}
	return end.Serve(conn, conn)
}
