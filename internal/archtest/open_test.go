package archtest

import (
	"go/ast"
	"go/token"
	"maps"
	"slices"
	"testing"
)

const openWhy = "a named pipe, a device, a link or a file of gigabytes may lie where a file is expected: " +
	"read with internal/regularfile, which neither waits nor follows links unless told to, and write with internal/atomicfile"

// opens finds where files are opened by name.
func opens(f *file) []ast.Node {
	return slices.Concat(
		f.selections("os", "Open", "OpenFile", "ReadFile", "WriteFile", "Create", "CreateTemp"),
		f.selections("syscall", "Open"), f.selections("golang.org/x/sys/unix", "Open", "Openat", "Openat2"),
		f.selections("crypto/tls", "LoadX509KeyPair"), f.selections("debug/buildinfo", "ReadFile"))
}

// openers lists the files and packages that open by themselves, and why they may.
func openers() map[string]string {
	return map[string]string{
		"internal/regularfile": "it is how files are read",
		"internal/atomicfile":  "it is how files are written",

		"internal/bench":                        "it works in directories of its own making, and is no part of the daemon",
		"internal/lab":                          "it works in directories of its own making, and is no part of the daemon",
		"internal/netns":                        "namespaces of this process, and a pin that is made with O_EXCL",
		"internal/docker/replace.go":            "a draft that is made with O_EXCL, and its directory",
		"internal/doctor/facts/proc_linux.go":   "procfs belongs to the kernel",
		"internal/identity/hardware.go":         "sysfs belongs to the kernel",
		"ip/kernel/actor_linux.go":              "procfs belongs to the kernel",
		"ip/kernel/fastpath/conntrack_linux.go": "procfs belongs to the kernel",
		"ip/kernel/sysctl_linux.go":             "procfs belongs to the kernel",
		"ip/kernel/xtables/socket_linux.go":     "procfs belongs to the kernel",
		"cmd/tulle/config.go":                   "the operator names the file in this very command, and it may be a pipe: config set @<(jq ...)",
		"cmd/tulle/bench_control.go":            "the operator names the file to write in this very command",
		"cmd/tulle/bench_path.go":               "the operator names the files to write in this very command",
	}
}

func TestFilesAreOpenedSafely(t *testing.T) {
	tr := loadTree(t)
	unused := openers()
	for _, f := range tr.files {
		if f.test {
			continue
		}
		for _, n := range opens(f) {
			allowed := slices.DeleteFunc(slices.Collect(maps.Keys(openers())), func(place string) bool { return !within(f.path, place) })
			if len(allowed) == 0 {
				t.Errorf("%s: %s", tr.at(n), openWhy)
			}
			for _, place := range allowed {
				delete(unused, place)
			}
		}
	}
	for place, why := range unused {
		t.Errorf("%s opens no files, and need not be allowed to (%s)", place, why)
	}
}

func TestOpensAreFound(t *testing.T) {
	for source, want := range map[string]int{
		`import "os"; func f() { os.Open(""); os.ReadFile("") }`:               2,
		`import "os"; var read = os.ReadFile`:                                  1,
		`import "crypto/tls"; func f() { tls.LoadX509KeyPair("", "") }`:        1,
		`import "golang.org/x/sys/unix"; func f() { unix.Open("", 0, 0) }`:     1,
		`import "os"; func f() { os.Stat(""); os.Remove(""); os.ReadDir("") }`: 0,
	} {
		if found := opens(example(t, token.NewFileSet(), `package p; `+source)); len(found) != want {
			t.Errorf("found %d, want %d: %s", len(found), want, source)
		}
	}
}
