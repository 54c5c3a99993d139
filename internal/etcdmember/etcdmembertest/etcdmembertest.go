//go:build linux

// Package etcdmembertest gives tests an etcd of their own.
package etcdmembertest

import (
	"context"
	"os"
	"testing"
	"time"

	"tulle/internal/etcdmember"
)

// startTimeout is far above the half second that a start takes on an idle
// machine: tests share theirs.
const startTimeout = 30 * time.Second

// Start runs a member on a free loopback port until the end of the test. Make
// clients after it, so that their cleanup comes first.
func Start(t testing.TB) *etcdmember.Member {
	t.Helper()
	member := Restart(t, etcdmember.Config{DataDir: ScratchDir(t)})
	t.Cleanup(member.Close)
	return member
}

// Restart runs a member on the data of config. The caller closes it. To give a
// restarted member its former address, pass its Endpoints as ListenClientURLs.
func Restart(t testing.TB, config etcdmember.Config) *etcdmember.Member {
	t.Helper()
	if len(config.ListenClientURLs) == 0 {
		config.ListenClientURLs = []string{"http://127.0.0.1:0"}
	}
	config.UnsafeNoFsync = true
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	member, err := etcdmember.Start(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	return member
}

// ScratchDir returns a data directory that is removed at the end of the test.
func ScratchDir(t testing.TB) string {
	t.Helper()
	dir, err := etcdmember.ScratchDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
