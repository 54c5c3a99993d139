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
)

// A plugin that leaves a process behind, which keeps its pipes, and one that writes without end hold nobody up.
func TestPluginsThatKeepTheirPipes(t *testing.T) {
	const answer = `echo '{"supportedVersions": ["1.0.0"]}'`
	for name, tt := range map[string]struct {
		script string
		stop   bool // the command, once the plugin runs
		says   string
	}{
		"answers":  {answer, false, "1.0.0"},
		"silent":   {"wait", true, ": terminated: put the CNI project's plugin there"},
		"unending": {"exec yes", false, ": it answers with more than 65536 bytes: put the CNI project's plugin there"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fifo, program := newFIFO(t), filepath.Join(t.TempDir(), "plugin")
			// The first line that it says tells the process that it leaves behind.
			script := "#!/bin/sh\nsleep 1000 &\necho $! >" + fifo + "\n" + tt.script + "\n"
			if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			said := make(chan string, 1)
			go func() {
				versions, err := askVersions(ctx, program)
				if err != nil {
					said <- err.Error()
					return
				}
				said <- strings.Join(versions, " ")
			}()
			text, err := os.ReadFile(fifo)
			if err != nil {
				t.Fatal(err)
			}
			child, err := strconv.Atoi(strings.TrimSpace(string(text)))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = syscall.Kill(child, syscall.SIGKILL) }()
			if tt.stop {
				cancel(errors.New("terminated"))
			}
			select {
			case says := <-said:
				if !strings.HasSuffix(says, tt.says) {
					t.Errorf("says %q, want %q", says, tt.says)
				}
			case <-time.After(patience / 2): // askTimeout would end it later
				t.Error("it is waited for in vain")
			}
		})
	}
}
