//go:build linux

package labtest

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

const (
	raceFactor = 5 // how much longer things may take under the race detector
	maxStretch = 4 // the same for a machine that is busy with other things as well
)

// Limit is how long something may take here that may take d on a machine at rest. Where more processes want to run than there are cores,
// each waits for its turn, and so would what is measured. Under the race detector the daemons have races to show, not times.
func Limit(d time.Duration) time.Duration {
	stretch := min(max(1, load()/float64(runtime.NumCPU())), maxStretch)
	if Raced() {
		stretch *= raceFactor
	}
	return time.Duration(stretch * float64(d))
}

// Busy reports whether more processes want to run than there are cores, so that a host may get round to what it does at once some time later.
func Busy() bool { return load() > float64(runtime.NumCPU()) }

// load is how many processes have wanted to run in the last minute, on average (proc_loadavg(5)); 0 if the kernel does not tell.
func load() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	n, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return 0
	}
	return n
}
