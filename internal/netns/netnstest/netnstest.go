//go:build linux

// Package netnstest gives tests network namespaces of their own.
package netnstest

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"tulle/internal/netns"
)

// New returns a fresh namespace that is closed at the end of the test. The test
// is skipped where namespaces are not permitted, but fails there if the
// environment variable CI is set. `unshare -rn go test` suffices.
func New(t testing.TB) *netns.Namespace {
	t.Helper()
	ns, err := netns.New()
	if errors.Is(err, fs.ErrPermission) && os.Getenv("CI") == "" {
		t.Skipf("needs CAP_SYS_ADMIN (root, or `unshare -rn`): %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	return ns
}
