//go:build linux

package traffic_test

import (
	"os"
	"os/exec"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"tulle/internal/bench/traffic"
)

// pinnedEnv makes TestPin the process that is pinned: what it changes cannot be taken back everywhere.
const pinnedEnv = "TULLE_TEST_PINNED"

func TestPin(t *testing.T) {
	if os.Getenv(pinnedEnv) == "" {
		child := exec.Command(os.Args[0], "-test.run=^TestPin$", "-test.v")
		child.Env = append(os.Environ(), pinnedEnv+"=1")
		if out, err := child.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	cpu, err := traffic.LastCore()
	if err != nil {
		t.Fatal(err)
	}
	if err := traffic.Pin(cpu); err != nil {
		t.Fatal(err)
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil || len(threads) < 2 {
		t.Fatalf("%d threads, %v: want several, as any program in Go has", len(threads), err)
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			t.Fatal(err)
		}
		attr, err := unix.SchedGetAttr(id, 0)
		if err != nil {
			t.Fatal(err)
		}
		if attr.Policy != unix.SCHED_BATCH {
			t.Errorf("a thread has the policy %d, want %d: it interrupts the other end when it is woken", attr.Policy, unix.SCHED_BATCH)
		}
		var set unix.CPUSet
		if err := unix.SchedGetaffinity(id, &set); err != nil || set.Count() != 1 || !set.IsSet(cpu) {
			t.Errorf("a thread may use %d cores, %v: want the core %d alone", set.Count(), err, cpu)
		}
	}
}
