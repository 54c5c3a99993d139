//go:build linux && vm

// Package vmtest runs labs on another kernel than that of the machine: in a virtual machine whose init is the test itself.
package vmtest

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tulle/internal/lab/labtest"
)

// kernelEnv names a directory into which hack/vm-kernel has unpacked a kernel.
const kernelEnv = "TULLE_VM_KERNEL"

// passed is what the machine says last if its tests have passed.
const passed = "all tests in the virtual machine have passed"

// runEnv tells the machine which tests to run, as -test.run does. The kernel hands on to init what it does not know.
const runEnv = "TULLE_VM_RUN"

// guestTimeout is for all of the tests in the machine.
const guestTimeout = "10m"

// pattern is what this program was told to run, as far as it is of the machine.
func pattern() string {
	if p := flag.Lookup("test.run").Value.String(); strings.HasPrefix(p, "TestVM/") {
		return p
	}
	return ""
}

// Places in the machine.
const (
	programsDir = "/programs"
	modulesDir  = "/modules" // in the order in which they are loaded
	ipipDir     = "/ipip"    // those that a test loads
	filtersDir  = "/filters" // likewise
	initPath    = "/init"
)

// TestVM boots a machine whose init is this program, and there runs the tests of the guest.
func TestVM(t *testing.T) {
	if os.Getpid() == 1 {
		guest(t)
		return
	}
	image := filepath.Join(t.TempDir(), "initramfs")
	kernel := makeImage(t, image)
	// Software emulation is slow, and the same everywhere.
	cmd := exec.CommandContext(t.Context(), "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "1024",
		"-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
		"-kernel", kernel, "-initrd", image, "-append", "console=ttyS0 panic=-1 quiet mitigations=off "+runEnv+"="+pattern())
	cmd.Stderr = os.Stderr
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	good := false
	for lines := bufio.NewScanner(output); lines.Scan(); {
		line := strings.TrimRight(lines.Text(), "\r")
		good = good || line == passed
		t.Log(line)
	}
	if err := cmd.Wait(); err != nil || !good {
		t.Errorf("the machine ended (%v) without saying that %s", err, passed)
	}
}

// makeImage writes an initramfs with this program, those of Tulle, and the modules that a lab needs. It returns the path of the kernel.
func makeImage(t *testing.T, path string) (kernel string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(os.Getenv(kernelEnv), "boot", "vmlinuz-*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s=%q holds the kernels %q (%v), want one: run make test-vm", kernelEnv, os.Getenv(kernelEnv), found, err)
	}
	programs := t.TempDir()
	if err := labtest.Build(".", programs, "tulle/cmd/tulle", "tulle/cmd/tulled"); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	modules := modulesOf(t, os.Getenv(kernelEnv))
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	a := archive{w: bufio.NewWriter(f)}
	for _, dir := range []string{"/dev", "/proc", "/sys", "/tmp", "/run", programsDir} {
		a.dir(dir)
	}
	a.console()
	a.copy(initPath, self)
	for _, name := range []string{"tulle", "tulled"} {
		a.copy(filepath.Join(programsDir, name), filepath.Join(programs, name))
	}
	for dir, files := range modules {
		a.dir(dir)
		for i, file := range files {
			a.copy(fmt.Sprintf("%s/%03d-%s", dir, i, filepath.Base(file)), file)
		}
	}
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return found[0]
}
