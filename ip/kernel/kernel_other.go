//go:build !linux

package kernel

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"tulle/ip"
)

// Kernel cannot be opened on this operating system.
type Kernel struct{}

var _ ip.Kernel = (*Kernel)(nil)

// Open returns an error that satisfies errors.Is(err, errors.ErrUnsupported).
func Open() (*Kernel, error) {
	return nil, fmt.Errorf("open kernel of %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// Close does nothing.
func (*Kernel) Close() error { return nil }

// Snapshot returns errors.ErrUnsupported.
func (*Kernel) Snapshot(context.Context, ip.Scope) (ip.Snapshot, error) {
	return ip.Snapshot{}, errors.ErrUnsupported
}

// Apply returns errors.ErrUnsupported.
func (*Kernel) Apply(context.Context, ip.Plan) error { return errors.ErrUnsupported }

// Lookup returns errors.ErrUnsupported.
func (*Kernel) Lookup(context.Context, []ip.Question) ([]ip.Answer, error) {
	return nil, errors.ErrUnsupported
}

// Watch returns errors.ErrUnsupported.
func (*Kernel) Watch(context.Context, func(ip.Actor)) error { return errors.ErrUnsupported }

// UseBPF does nothing.
func (*Kernel) UseBPF(func() map[uint32]bool) {}

// Calls returns 0.
func (*Kernel) Calls() uint64 { return 0 }
