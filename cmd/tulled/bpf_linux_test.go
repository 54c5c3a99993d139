package main

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// filterVariable has the test start itself anew under a filter of system calls that does what it says to who calls bpf(2).
const filterVariable = "TULLED_TEST_BPF_FILTER"

func TestMain(m *testing.M) {
	if tryBPF(os.Args) {
		return
	}
	os.Exit(m.Run())
}

func TestBPFUnderFilters(t *testing.T) {
	switch how := os.Getenv(filterVariable); how {
	case "":
	case "set":
		if err := bpfForbidden(); err != nil {
			t.Log(err)
		} else {
			t.Log("allowed")
		}
		return
	default:
		filterBPF(t, map[string]uint32{"kill": unix.SECCOMP_RET_KILL_PROCESS, "trap": unix.SECCOMP_RET_TRAP, "refuse": unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM), "allow": unix.SECCOMP_RET_ALLOW}[how])
	}
	for how, want := range map[string]string{"kill": "SystemCallFilter=@system-service bpf", "trap": "SystemCallFilter=@system-service bpf", "refuse": "allowed", "allow": "allowed"} {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestBPFUnderFilters$", "-test.v")
		cmd.Env = append(os.Environ(), filterVariable+"="+how)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, %s, want %q", how, err, out, want)
		}
	}
	if err := bpfForbidden(); err != nil && !underFilter(t) {
		t.Errorf("without a filter: %v", err)
	}
}

func underFilter(t *testing.T) bool {
	t.Helper()
	mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	return err == nil && mode != 0
}

// filterBPF has calls of bpf(2) answered as said from now on, and starts the test anew.
func filterBPF(t *testing.T, answer uint32) {
	t.Helper()
	runtime.LockOSThread()
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number of the call (seccomp(2), struct seccomp_data)
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_BPF},
		{Code: unix.BPF_RET | unix.BPF_K, K: answer},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&filter)), 0, 0); err != nil {
		t.Fatal(err)
	}
	t.Fatal(unix.Exec("/proc/self/exe", os.Args, []string{filterVariable + "=set"}))
}
