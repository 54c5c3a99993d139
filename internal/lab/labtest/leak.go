//go:build linux

package labtest

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// leakTimeout is how long what has been told to end may take to.
const leakTimeout = 10 * time.Second

// resources are what tests must give back.
type resources struct {
	goroutines  int
	descriptors []string // what they refer to, sorted
}

func inUse() resources {
	r := resources{goroutines: runtime.NumGoroutine()}
	paths, _ := filepath.Glob("/proc/self/fd/*") // the pattern is well formed
	for _, path := range paths {
		// The runtime polls by anonymous inodes of its own.
		if target, err := os.Readlink(path); err == nil && !strings.HasPrefix(target, "anon_inode:") {
			r.descriptors = append(r.descriptors, target)
		}
	}
	slices.Sort(r.descriptors)
	return r
}

// leaked waits until no more is in use than before, and says what is after all.
func leaked(before resources) error {
	var now resources
	for deadline := time.Now().Add(leakTimeout); time.Now().Before(deadline); <-time.After(50 * time.Millisecond) {
		now = inUse()
		if now.goroutines <= before.goroutines && len(now.descriptors) <= len(before.descriptors) {
			return nil
		}
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return fmt.Errorf("%d goroutines and %d descriptors after the tests, %d and %d before them\ndescriptors: %q\n%s",
		now.goroutines, len(now.descriptors), before.goroutines, len(before.descriptors), now.descriptors, stacks)
}
