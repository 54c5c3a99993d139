//go:build linux

package traffic

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ClockTick is USER_HZ, the unit of times in /proc/stat and /proc/PID/stat (proc_stat(5)): 100 on every architecture that Linux has now.
const ClockTick = 10 * time.Millisecond

// ProcessClock is the CPU time of this process: that of soft interrupts which run in it is in it, unless [ApartSoftirqs].
func ProcessClock() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	return time.Duration(t.Nano()), nil
}

// MachineClock is the CPU time of all that runs on this machine.
func MachineClock() (time.Duration, error) { return statClock("cpu", 1, 2, 3, 6, 7) }

// SoftirqClock returns what reads the time that a core spends with interrupts outside of processes: in ksoftirqd, and, if they are accounted for apart
// from the processes that they interrupt, in all of them.
func SoftirqClock(cpu int) (func() (time.Duration, error), error) {
	apart, err := ApartSoftirqs()
	if err != nil {
		return nil, err
	}
	path, err := ksoftirqd(cpu)
	if err != nil {
		return nil, err
	}
	return func() (time.Duration, error) {
		spent, err := firstNumber(path)
		if err != nil || !apart {
			return spent, err
		}
		more, err := statClock("cpu"+strconv.Itoa(cpu), 6, 7)
		return spent + more, err
	}, nil
}

// statClock adds columns of a line of /proc/stat: user, nice, system, idle, iowait, irq and softirq are 1 to 7.
func statClock(line string, columns ...int) (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	for l := range strings.Lines(string(text)) {
		fields := strings.Fields(l)
		if len(fields) == 0 || fields[0] != line {
			continue
		}
		var sum time.Duration
		for _, c := range columns {
			if c >= len(fields) {
				return 0, fmt.Errorf("read CPU time: /proc/stat has no column %d", c)
			}
			ticks, err := strconv.ParseInt(fields[c], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read CPU time: %w", err)
			}
			sum += time.Duration(ticks) * ClockTick
		}
		return sum, nil
	}
	return 0, fmt.Errorf("read CPU time: /proc/stat has no %s", line)
}

// ksoftirqd finds where the kernel tells the time of a core's thread for soft interrupts, in nanoseconds.
func ksoftirqd(cpu int) (string, error) {
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return "", err
	}
	for _, path := range names {
		name, err := os.ReadFile(path)
		if err == nil && string(bytes.TrimSpace(name)) == "ksoftirqd/"+strconv.Itoa(cpu) { // else it has ended
			return filepath.Join(filepath.Dir(path), "schedstat"), nil
		}
	}
	return "", fmt.Errorf("no process is named ksoftirqd/%d: measure outside of a container with processes of its own", cpu)
}

func firstNumber(path string) (time.Duration, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	first, _, _ := strings.Cut(string(text), " ")
	n, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read CPU time of %s: %w", path, err)
	}
	return time.Duration(n), nil
}

const (
	// sample is for how long a thread sends to itself, and samples how often.
	sample, samples = 20 * time.Millisecond, 5
	// missing is the part of that time which it then cannot account for, if interrupts are accounted for apart: between a third and a half.
	missing = 0.2
)

// ApartSoftirqs reports whether the kernel leaves soft interrupts out of the CPU time of the processes in which they run (IRQ_TIME_ACCOUNTING). A thread that
// is always busy, some of that with receiving what it sends to itself, is then told to have neither run nor waited for all of the time, whenever one looks: a
// machine that is taken away for a while, which looks the same, is not taken away always.
func ApartSoftirqs() (bool, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	local := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
	fd, err := newSocket(local, unix.SOCK_DGRAM)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	to, err := bind(fd, local, unix.SOCK_DGRAM)
	if err != nil {
		return false, err
	}
	if err := unix.Connect(fd, sockaddr(to)); err != nil {
		return false, fmt.Errorf("connect to %s: %w", to, err)
	}
	for range samples {
		part, err := accountedPart(fd)
		if err != nil {
			return false, fmt.Errorf("send to %s: %w", to, err)
		}
		if part > 1-missing {
			return false, nil
		}
	}
	return true, nil
}

// accountedPart is the part of a sample's time that the thread is told to have run or waited.
func accountedPart(fd int) (float64, error) {
	before, err := accounted()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	var packet [smallSize]byte
	for time.Since(began) < sample {
		if _, err := write(fd, packet[:]); err != nil {
			return 0, err
		}
		if _, err := read(fd, packet[:]); err != nil {
			return 0, err
		}
	}
	took := time.Since(began)
	after, err := accounted()
	return float64(after-before) / float64(took), err
}

// accounted is for how long the calling thread has run or waited for a core.
func accounted() (time.Duration, error) {
	text, err := os.ReadFile("/proc/thread-self/schedstat")
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	var ran, waited int64
	if n, err := fmt.Sscan(string(text), &ran, &waited); n < 2 {
		return 0, errors.Join(fmt.Errorf("read CPU time of a thread: %q", text), err)
	}
	return time.Duration(ran + waited), nil
}
