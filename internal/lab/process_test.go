//go:build linux

package lab

import (
	"os/exec"
	"strings"
	"testing"
)

// A process that does not get on is told of with what it waits for, one that has ended is not.
func TestWhere(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{name: "sleep", cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	text := p.where()
	p.kill()
	if !strings.Contains(text, "thread ") || !strings.Contains(text, "state ") || !strings.Contains(text, "processor time, in ") {
		t.Errorf("it says %q", text)
	}
	if text := p.where(); text != "" {
		t.Errorf("of a process that has ended it says %q", text)
	}
	if text := (*process)(nil).where(); text != "" {
		t.Errorf("of none it says %q", text)
	}
}
