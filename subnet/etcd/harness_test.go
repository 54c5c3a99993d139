//go:build linux

package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"tulle/internal/etcdmember/etcdmembertest"
	"tulle/subnet"
	"tulle/subnet/etcd"
	"tulle/subnet/subnettest"
)

// prefixes numbers the tests that share an etcd.
type prefixes struct{ last atomic.Int64 }

func (p *prefixes) next() string { return fmt.Sprintf("/test/%d/network", p.last.Add(1)) }

// harness is a prefix of a real etcd.
type harness struct {
	t      *testing.T
	config etcd.Config
	raw    *clientv3.Client
}

func newHarness(t *testing.T, config etcd.Config) *harness {
	t.Helper()
	config.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	raw, err := clientv3.New(clientv3.Config{Endpoints: config.Endpoints, Logger: zap.NewNop(), DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	return &harness{t: t, config: config, raw: raw}
}

func (h *harness) Open() subnet.Store { return h.open() }

func (h *harness) open() *etcd.Store {
	h.t.Helper()
	s, err := etcd.Open(h.config)
	if err != nil {
		h.t.Error(err)
	}
	return s
}

func (h *harness) OpenAfar() subnettest.Far {
	h.t.Helper()
	wire := newLink(h.t, h.config.Endpoints[0], nil)
	config := h.config
	config.Endpoints = []string{"http://" + wire.address()}
	born := time.Now()
	var slept atomic.Int64
	config.Uptime = func() time.Duration { return time.Since(born) + time.Duration(slept.Load()) }
	s, err := etcd.Open(config)
	if err != nil {
		h.t.Error(err)
	}
	return subnettest.Far{Store: s, Cut: wire.cut, Mend: wire.mend, Sleep: func(d time.Duration) { slept.Add(int64(d)) }}
}

func (h *harness) key(key string) string { return h.config.Prefix + "/" + key }

// ctx bounds raw access; a test that waits longer is stuck.
func (h *harness) ctx() context.Context {
	ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Second)
	h.t.Cleanup(cancel)
	return ctx
}

func (h *harness) Put(key, value string, ttl time.Duration) {
	h.t.Helper()
	var options []clientv3.OpOption
	if ttl > 0 {
		lease, err := h.raw.Grant(h.ctx(), int64(ttl/time.Second))
		if err != nil {
			h.t.Fatal(err)
		}
		options = append(options, clientv3.WithLease(lease.ID))
	}
	if _, err := h.raw.Put(h.ctx(), h.key(key), value, options...); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) Delete(key string) {
	h.t.Helper()
	if _, err := h.raw.Delete(h.ctx(), h.key(key)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) Wipe() {
	h.t.Helper()
	if _, err := h.raw.Delete(h.ctx(), h.config.Prefix+"/", clientv3.WithPrefix()); err != nil {
		h.t.Fatal(err)
	}
}

// Compact may find that a test beside it was faster: all share one history.
func (h *harness) Compact() {
	h.t.Helper()
	r, err := h.raw.Get(h.ctx(), h.key("config"))
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := h.raw.Compact(h.ctx(), r.Header.Revision); err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		h.t.Fatal(err)
	}
}

func (h *harness) Get(key string) (value string, expires, ok bool) {
	h.t.Helper()
	r, err := h.raw.Get(h.ctx(), h.key(key))
	if err != nil {
		h.t.Fatal(err)
	}
	if len(r.Kvs) == 0 {
		return "", false, false
	}
	return string(r.Kvs[0].Value), r.Kvs[0].Lease != 0, true
}

func (h *harness) Keys() []string {
	h.t.Helper()
	r, err := h.raw.Get(h.ctx(), h.config.Prefix+"/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		h.t.Fatal(err)
	}
	var keys []string
	for _, kv := range r.Kvs {
		keys = append(keys, strings.TrimPrefix(string(kv.Key), h.config.Prefix+"/"))
	}
	return keys
}

func TestStore(t *testing.T) {
	endpoints := etcdmembertest.Start(t).Endpoints()
	var names prefixes
	subnettest.RunInKeys(t, func(t *testing.T, test func(*testing.T, subnettest.KeyHarness)) {
		t.Parallel()
		test(t, newHarness(t, etcd.Config{Endpoints: endpoints, Prefix: names.next(), HoldbackTime: 2 * time.Second, QuestionWait: 3 * time.Second}))
	})
}

const mayRead, mayWrite = clientv3.PermissionType(clientv3.PermRead), clientv3.PermissionType(clientv3.PermReadWrite)

// right is to what keys a user has which right.
type right struct {
	from, end string
	kind      clientv3.PermissionType
}

// requireUsers makes the users root, who may do all, and tulle with these rights, and has etcd ask for them from now on.
func (h *harness) requireUsers(password string, rights ...right) {
	h.t.Helper()
	do := func(_ any, err error) {
		h.t.Helper()
		if err != nil {
			h.t.Fatal(err)
		}
	}
	do(h.raw.UserAdd(h.ctx(), "root", "root-secret"))
	do(h.raw.UserGrantRole(h.ctx(), "root", "root"))
	do(h.raw.RoleAdd(h.ctx(), "tulle"))
	for _, r := range rights {
		do(h.raw.RoleGrantPermission(h.ctx(), "tulle", r.from, r.end, r.kind))
	}
	do(h.raw.UserAdd(h.ctx(), "tulle", password))
	do(h.raw.UserGrantRole(h.ctx(), "tulle", "tulle"))
	do(h.raw.AuthEnable(h.ctx()))
}

// below is a right to all keys with a prefix.
func below(prefix string, kind clientv3.PermissionType) right {
	return right{prefix, clientv3.GetPrefixRangeEnd(prefix), kind}
}
