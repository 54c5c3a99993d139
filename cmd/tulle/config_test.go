package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long a command may take that has nothing to wait for.
const patience = 10 * time.Second

// check runs tulle config check, and returns false if it does not come to its end.
func check(ctx context.Context, arg string, stdin io.Reader) (code int, says string, ends bool) {
	done := make(chan struct{})
	var output bytes.Buffer
	go func() {
		defer close(done)
		cmd := newRootCommand()
		cmd.SetArgs([]string{"config", "check", arg})
		cmd.SetIn(stdin)
		cmd.SetOut(&output)
		cmd.SetErr(&output)
		if err := cmd.ExecuteContext(ctx); err != nil {
			code = exitFailed
			output.WriteString(err.Error())
		}
	}()
	select {
	case <-done:
		return code, output.String(), true
	case <-time.After(patience):
		return 0, "", false
	}
}

func newFIFO(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A pipe that nobody writes to can be left by SIGINT and SIGTERM, which end the context.
func TestConfigIsNotWaitedForInVain(t *testing.T) {
	t.Parallel()
	fifo, open := newFIFO(t), newFIFO(t)
	writer, err := os.OpenFile(open, os.O_RDWR, 0) // who says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	silent, silentWriter := io.Pipe()
	defer silentWriter.Close()
	for arg, source := range map[string]string{"@" + fifo: fifo, "@" + open: open, "-": "standard input"} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("terminated"))
		code, says, ends := check(ctx, arg, silent)
		if want := "read configuration: wait for " + source + ": terminated"; !ends || code != exitFailed || says != want {
			t.Errorf("%s: ends %t, exit code %d, says %q; want it to fail with %q", arg, ends, code, says, want)
		}
	}
	// So that no reader outlives the test.
	if w, err := os.OpenFile(fifo, os.O_RDWR, 0); err == nil {
		w.Close()
	}
}

// Text without end is not read to its end; pipes are read as files are.
func TestConfigIsBounded(t *testing.T) {
	t.Parallel()
	valid := `{"Network":"10.5.0.0/16"}`
	fifo := newFIFO(t)
	go func() { _ = os.WriteFile(fifo, []byte(valid), 0) }() // ends when it is read
	endless := "/dev/zero has more than 1048576 bytes, which no network configuration takes: name the right file"
	for _, tt := range []struct {
		arg   string
		stdin io.Reader
		code  int
		says  string
	}{
		{"@" + fifo, nil, exitOK, "valid\n"},
		{"-", strings.NewReader(valid), exitOK, "valid\n"},
		{"-", strings.NewReader(valid + strings.Repeat(" ", maxConfig-len(valid))), exitOK, "valid\n"},
		{"-", strings.NewReader(valid + strings.Repeat(" ", maxConfig-len(valid)+1)), exitFailed, "read configuration: " + strings.Replace(endless, "/dev/zero", "standard input", 1)},
		{"@/dev/zero", nil, exitFailed, "read configuration: " + endless},
	} {
		if code, says, ends := check(t.Context(), tt.arg, tt.stdin); !ends || code != tt.code || says != tt.says {
			t.Errorf("%s: ends %t, exit code %d, says %q; want code %d and %q", tt.arg, ends, code, says, tt.code, tt.says)
		}
	}
}
