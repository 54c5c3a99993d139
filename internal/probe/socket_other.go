//go:build !linux

package probe

import (
	"errors"
	"fmt"
	"runtime"

	"tulle/ip"
)

// forbidFragments returns an error that satisfies errors.Is(err, errors.ErrUnsupported).
func forbidFragments(int, ip.Family) error {
	return fmt.Errorf("forbid fragments on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
