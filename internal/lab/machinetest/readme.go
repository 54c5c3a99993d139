//go:build linux

package machinetest

import (
	_ "embed"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// systemctl does what systemd would do for the commands of the README: there is none on a lab's hosts.
//
//go:embed systemctl.sh
var systemctl string

// WithSystemctl makes m a host on which systemd seems to run, and nothing of a lab's.
func (m *Machine) WithSystemctl(t *testing.T) {
	t.Helper()
	m.Env = nil
	m.Run(t, "sh", "-c", "ln -s "+m.Log()+" /run/tulled.log && rm /run/flannel /run/tulle && mkdir -p /run/systemd/system && echo "+strings.Repeat(m.Name[1:], 32)+" >/etc/machine-id")
	m.Program(t, "systemctl", systemctl)
}

// ReadmeCommands returns the indented blocks in a section of the README.
func ReadmeCommands(t *testing.T, section string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), section+"\n")
	rest, _, _ = strings.Cut(rest, "\n## ")
	var blocks []string
	for paragraph := range strings.SplitSeq(rest, "\n\n") {
		if !strings.HasPrefix(paragraph, "    ") {
			continue
		}
		var block strings.Builder
		for line := range strings.SplitSeq(paragraph, "\n") {
			block.WriteString(strings.TrimLeft(line, " ") + "\n")
		}
		blocks = append(blocks, block.String())
	}
	return blocks
}

// Paste runs commands in the repository, as a person would in a shell.
func (m *Machine) Paste(t *testing.T, lines string) {
	t.Helper()
	// To a file: what stays in the background would keep a pipe open.
	out, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := m.Command(t.Context(), "sh", "-e", "-c", fmt.Sprintf("cd '%s'\n%s", repository(t), lines))
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	text, _ := os.ReadFile(out.Name())
	if err != nil {
		t.Fatalf("on %s: %v\n%s\n%s", m, err, lines, text)
	}
	t.Logf("on %s:\n%s%s", m, lines, text)
}

// AddrIn returns the IPv4 address in what `ip addr show` says.
func AddrIn(t *testing.T, said string) netip.Addr {
	t.Helper()
	_, rest, _ := strings.Cut(said, "inet ")
	prefix, err := netip.ParsePrefix(strings.Fields(rest + " none")[0])
	if err != nil {
		t.Fatalf("address in %q: %v", said, err)
	}
	return prefix.Addr()
}

// repository is the directory with go.mod, above that of the test.
func repository(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
}
