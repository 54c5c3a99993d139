//go:build linux

package main

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"time"
)

// maxSaid bounds what is kept of what a command says, in bytes. The help of dockerd has 12 kB.
const maxSaid = 64 << 10

// command runs a program to its end and returns the beginning of what it says. It does not wait for what the program has
// started: that may hold the output open for as long as it likes.
func command(ctx context.Context, program string, args ...string) (said string, err error) {
	var heard beginning
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = &heard, &heard
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // the program itself has succeeded
	}
	return strings.TrimSpace(heard.text.String()), err
}

// beginning keeps the first maxSaid bytes of what is written to it, and lets its writer go on.
type beginning struct{ text strings.Builder }

func (b *beginning) Write(p []byte) (int, error) {
	b.text.Write(p[:min(len(p), maxSaid-b.text.Len())])
	return len(p), nil
}
