//go:build linux

package bench

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Report is what was measured, and on what.
type Report struct {
	Command string    `json:"command"`
	Version string    `json:"version"` // of Tulle
	Time    string    `json:"time"`    // RFC 3339
	Machine Machine   `json:"machine"`
	Control []Control `json:"control,omitempty"`
	Fleet   []Fleet   `json:"fleet,omitempty"`
	Path    []Path    `json:"path,omitempty"`
	Missed  []string  `json:"missed"` // targets
}

// Machine is where it was measured.
type Machine struct {
	CPUs   int    `json:"cpus"`
	Model  string `json:"model"`
	Memory uint64 `json:"memory"` // bytes
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

// NewReport completes a report of measurements that were made now, by a program with these arguments.
func NewReport(args []string, version string, r Report) (Report, error) {
	var err error
	if r.Machine, err = thisMachine(); err != nil {
		return Report{}, err
	}
	r.Command, r.Version = strings.Join(append([]string{"tulle"}, args...), " "), version
	r.Time, r.Missed = time.Now().UTC().Format(time.RFC3339), []string{}
	for _, c := range r.Control {
		r.Missed = append(r.Missed, c.Missed()...)
	}
	for _, f := range r.Fleet {
		r.Missed = append(r.Missed, f.Missed()...)
	}
	for _, p := range r.Path {
		r.Missed = append(r.Missed, p.Missed()...)
	}
	return r, nil
}

func thisMachine() (Machine, error) {
	m := Machine{CPUs: runtime.NumCPU(), Go: runtime.Version()}
	var uname unix.Utsname
	if err := unix.Uname(&uname); err != nil {
		return m, fmt.Errorf("read version of kernel: %w", err)
	}
	m.Kernel = unix.ByteSliceToString(uname.Release[:])
	kilobytes, err := statusField("/proc/meminfo", "MemTotal")
	if err != nil {
		return m, err
	}
	m.Memory = kilobytes << 10
	m.Model, err = cpuModel()
	return m, err
}

// cpuModel is empty where the kernel does not name it.
func cpuModel() (string, error) {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value), nil
		}
	}
	return "", lines.Err()
}
