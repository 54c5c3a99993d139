//go:build linux

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tulle/internal/docker"
)

// chattyDockerd is a program that says no end, and leaves children behind that hold its output open.
const chattyDockerd = `#!/bin/sh
sleep 30 &
echo $! >> "$(dirname "$0")/children"
case "$*" in
--help) echo "      --validate   Validate daemon configuration and exit" ;;
*--validate*) head -c 5000000 /dev/zero | tr '\0' x; exit 1 ;;
esac
`

func TestValidateEnds(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "dockerd")
	if err := os.WriteFile(program, []byte(chattyDockerd), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		text, err := os.ReadFile(filepath.Join(dir, "children"))
		if err != nil {
			t.Error(err)
		}
		for child := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(child); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	})
	start := time.Now()
	err := validate(t.Context(), &docker.Daemon{Program: program}, "/nowhere/daemon.json")
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("took %v, want no wait for the program's children", took)
	}
	if err == nil || !strings.Contains(err.Error(), "dockerd would not start") {
		t.Fatalf("error %.100v, want that of the program", err)
	}
	if size := len(err.Error()); size > maxSaid+1000 {
		t.Errorf("the error has %d bytes, want about %d at the most", size, maxSaid)
	}
}

// A command that has ended well has done so, whatever its children do.
func TestCommandWithChildren(t *testing.T) {
	said, err := command(t.Context(), "sh", "-c", "sleep 30 & echo $!")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(said))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("the child: %v, want that it has outlived the command's end", err)
	}
}

// Who gives up while dockerd is asked has not been told that the new content is good.
func TestValidateGivenUp(t *testing.T) {
	program := filepath.Join(t.TempDir(), "dockerd")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho --validate\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := validate(ctx, &docker.Daemon{Program: program}, "/nowhere/daemon.json"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}
