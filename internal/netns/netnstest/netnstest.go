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

// Require ends the test if err is not nil. It skips the test if what is missing
// is CAP_SYS_ADMIN, which `unshare -rnm go test` gives, unless the environment
// variable CI is set.
func Require(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, fs.ErrPermission) && os.Getenv("CI") == "" {
		t.Skipf("needs CAP_SYS_ADMIN (root, or `unshare -rnm`): %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// New returns a fresh namespace that is closed at the end of the test.
func New(t testing.TB) *netns.Namespace {
	t.Helper()
	ns, err := netns.New()
	Require(t, err)
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	return ns
}
