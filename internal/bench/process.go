//go:build linux

package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tulle/internal/bench/traffic"
)

// usage is what a process has used so far.
type usage struct {
	cpu      time.Duration // user and system, all threads
	wakeups  uint64        // voluntary context switches of the threads that live: how often one of them slept
	children uint64        // page faults of children waited for: 0 if none was ever started
}

func usageOf(pid int) (usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, fmt.Errorf("read usage of process: %w", err)
	}
	// The name, in parentheses, may hold anything; the fields after it are counted from 3.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	field := func(n int) uint64 {
		v, parseErr := strconv.ParseUint(fields[n-3], 10, 64)
		if parseErr != nil && err == nil {
			err = fmt.Errorf("read usage of process: field %d: %w", n, parseErr)
		}
		return v
	}
	u := usage{cpu: time.Duration(field(14)+field(15)) * traffic.ClockTick, children: field(11) + field(13)}
	if err != nil {
		return usage{}, err
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		return usage{}, err
	}
	for _, path := range threads {
		n, err := statusField(path, "voluntary_ctxt_switches")
		if err == nil { // else the thread has ended
			u.wakeups += n
		}
	}
	return u, nil
}

// memoryOf returns the resident memory of a process in bytes, now and at most.
func memoryOf(pid int) (now, most uint64, err error) {
	path := fmt.Sprintf("/proc/%d/status", pid)
	if now, err = statusField(path, "VmRSS"); err != nil {
		return 0, 0, err
	}
	if most, err = statusField(path, "VmHWM"); err != nil {
		return 0, 0, err
	}
	return now << 10, most << 10, nil
}

// statusField reads a number out of a file such as /proc/PID/status.
func statusField(path, name string) (uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			return strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}
