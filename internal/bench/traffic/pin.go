//go:build linux

package traffic

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// first is the highest priority of a process (setpriority(2)), so that others on the core disturb least.
const first = -20

// Pin puts this process on one core, before others there if it may. It has the policy SCHED_BATCH (sched(7)): where both ends share a core, one that
// is woken waits until the other sleeps. Else the scheduler has it interrupt the other for a while, and then not, by microseconds that no path is to
// answer for: one round trip takes two changes of process, the next one four.
func Pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	// Where sessions share a core by groups, priorities count within a group only. It takes root, and the feature.
	_ = os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(first)), 0)
	// A thread that comes meanwhile has what its parent has.
	for seen := map[int]bool{}; ; {
		entries, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("list threads: %w", err)
		}
		added := false
		for _, entry := range entries {
			thread, err := strconv.Atoi(entry.Name())
			if err != nil || seen[thread] {
				continue
			}
			seen[thread], added = true, true
			if err := pinThread(thread, &set); errors.Is(err, unix.ESRCH) {
				continue
			} else if err != nil {
				return fmt.Errorf("use core %d: %w", cpu, err)
			}
		}
		if !added {
			return nil
		}
	}
}

func pinThread(thread int, set *unix.CPUSet) error {
	if err := unix.SchedSetaffinity(thread, set); err != nil {
		return err
	}
	batch := unix.SchedAttr{Policy: unix.SCHED_BATCH, Nice: first}
	err := unix.SchedSetAttr(thread, &batch, 0)
	if errors.Is(err, unix.EPERM) { // the priority takes CAP_SYS_NICE
		batch.Nice = 0
		err = unix.SchedSetAttr(thread, &batch, 0)
	}
	return err
}

// LastCore is the last of the cores that this process may use: interrupts of devices mostly come to the first.
func LastCore() (int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, fmt.Errorf("list cores: %w", err)
	}
	last := 0
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			last = cpu
		}
	}
	return last, nil
}
