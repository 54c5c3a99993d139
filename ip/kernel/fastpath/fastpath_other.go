//go:build !linux

package fastpath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"tulle/ip"
)

// Config is what a FastPath works with.
type Config struct {
	Dir  string
	Life time.Duration
	Log  *slog.Logger
}

// FastPath cannot be opened on this operating system.
type FastPath struct{}

// Open returns an error that satisfies errors.Is(err, errors.ErrUnsupported).
func Open(Config) (*FastPath, error) {
	return nil, fmt.Errorf("open fast path of %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// Close does nothing.
func (*FastPath) Close() error { return nil }

// Run waits for ctx to end.
func (*FastPath) Run(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// Want does nothing.
func (*FastPath) Want(ip.FastPath) {}

// State is off.
func (*FastPath) State() ip.FastPathState { return ip.FastPathState{} }

// Programs are none.
func (*FastPath) Programs() map[uint32]bool { return nil }

// Flows returns errors.ErrUnsupported.
func (*FastPath) Flows() ([]ip.FastFlow, error) { return nil, errors.ErrUnsupported }

// Flush returns errors.ErrUnsupported.
func (*FastPath) Flush() error { return errors.ErrUnsupported }

// Pause returns errors.ErrUnsupported.
func (*FastPath) Pause(time.Duration) error { return errors.ErrUnsupported }

// Remove does nothing: there is nothing.
func Remove(string) error { return nil }

// Left returns false.
func Left(string) (bool, error) { return false, nil }
