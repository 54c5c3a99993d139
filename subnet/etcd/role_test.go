//go:build linux

package etcd_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/internal/etcdmember/etcdmembertest"
	"tulle/subnet/etcd"
)

// With the role that is enough for flannel a host is told once which keys it lacks, and has its lease as soon as they are granted.
func TestRoleOfFlannel(t *testing.T) {
	member := etcdmembertest.Start(t)
	h := newHarness(t, etcd.Config{Endpoints: member.Endpoints(), Prefix: "/net"})
	h.Put("config", networkConfig, 0)
	h.requireUsers("secret", right{from: "/net/config", kind: mayRead}, below("/net/subnets/", mayWrite))
	root, err := clientv3.New(clientv3.Config{Endpoints: member.Endpoints(), Username: "root", Password: "root-secret", DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()

	var log lockedBuffer
	h.config.Username, h.config.Password, h.config.Logger = "tulle", "secret", slog.New(slog.NewTextHandler(&log, nil))
	s := h.opened()
	follow(t, s)
	lacks := func(keys string) {
		t.Helper()
		want := []string{`user "tulle" may not use all of ` + keys, "grant readwrite on keys with the prefix /net/", "/net/claims/"}
		for range 3 {
			if _, err := s.Acquire(t.Context(), claimOf(1)); err == nil || !contains(err.Error(), want...) {
				t.Errorf("Acquire = %v, want %q", err, want)
			}
			if err := s.Trouble(); err == nil || !contains(err.Error(), want...) {
				t.Errorf("Trouble = %v, want %q", err, want)
			}
		}
	}
	allow := func(kind clientv3.PermissionType) {
		t.Helper()
		if _, err := root.RoleGrantPermission(t.Context(), "tulle", "/net/", clientv3.GetPrefixRangeEnd("/net/"), kind); err != nil {
			t.Fatal(err)
		}
	}
	lacks("/net/")
	allow(mayRead)
	lacks("/net/claims/owner/, /net/claims/past/, /net/subnets/")
	if text := log.String(); strings.Contains(text, "etcd does not serve") || strings.Contains(text, "etcd serves again") || strings.Count(text, "etcd refuses a request") != 2 {
		t.Errorf("want two refusals in the log:\n%s", text)
	}
	allow(mayWrite)
	claim := claimOf(1)
	claim.Answer = func(_ context.Context, question []byte) []byte { return question }
	held := h.acquire(s, claim)
	if answer, err := s.Ask(t.Context(), claim.Attrs.Node, []byte("hello")); err != nil || string(answer) != "hello" {
		t.Errorf("asked with the permission: %q, %v", answer, err)
	}
	if err := s.Trouble(); err != nil {
		t.Errorf("with the permission: %v", err)
	}
	if err := held.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
