//go:build linux

package etcdtransport_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"tulle/internal/etcdmember/etcdmembertest"
	"tulle/internal/etcdtransport"
)

// guarded starts an etcd where the user "reader" may read the key /open, and all else is refused.
func guarded(t *testing.T) etcdtransport.Config {
	t.Helper()
	endpoints := etcdmembertest.Start(t).Endpoints()
	root, err := clientv3.New(clientv3.Config{Endpoints: endpoints, Logger: zap.NewNop(), DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	do := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(root.UserAdd(ctx, "root", "root-secret"))
	do(root.UserGrantRole(ctx, "root", "root"))
	do(root.RoleAdd(ctx, "reader"))
	do(root.RoleGrantPermission(ctx, "reader", "/open", "", clientv3.PermissionType(clientv3.PermRead)))
	do(root.UserAdd(ctx, "reader", "secret"))
	do(root.UserGrantRole(ctx, "reader", "reader"))
	do(root.AuthEnable(ctx))
	return etcdtransport.Config{
		Endpoints: endpoints, Prefix: "/", ProbeKey: "/open",
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), RequestTimeout: 10 * time.Second,
	}
}

func opened(t *testing.T, config etcdtransport.Config) *etcdtransport.Client {
	t.Helper()
	c, err := etcdtransport.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		closed := make(chan error, 1)
		go func() { closed <- c.Close() }()
		select {
		case err := <-closed:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Close waits for a stream that does not end")
		}
	})
	return c
}

// lastOf is the error that a watch ends with.
func lastOf(ctx context.Context, watch clientv3.WatchChan) error {
	for {
		select {
		case r, ok := <-watch:
			if !ok {
				return errors.New("the watch ends without a reason")
			}
			if err := r.Err(); err != nil {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("the watch does not end: %w", ctx.Err())
		}
	}
}

// A stream on which a watch is refused ends, with a reason that can be told from others, and the next one is as any.
func TestRefusedWatchEndsItsStream(t *testing.T) {
	config := guarded(t)
	config.Username, config.Password = "reader", "secret"
	c := opened(t, config)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 2 {
		stream := c.JoinStream(ctx)
		allowed := stream.Watch("/open")
		refused := stream.Watch("/closed")
		for name, watch := range map[string]clientv3.WatchChan{"refused": refused, "allowed": allowed} {
			if err := lastOf(ctx, watch); !errors.Is(err, rpctypes.ErrPermissionDenied) {
				t.Errorf("%s watch ends with %v, want %v", name, err, rpctypes.ErrPermissionDenied)
			}
		}
		stream.Leave()
	}
}

// Watches that share a stream and are refused one right after the other all end. The etcd client alone keeps some of them for ever, on one stream of some hundred.
func TestRefusedWatchesEnd(t *testing.T) {
	const streams, shared = 2000, 3
	c := opened(t, guarded(t)) // as nobody: a login for each stream would take long
	for n := 0; n < streams && !t.Failed(); n++ {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		stream := c.JoinStream(ctx)
		var wg sync.WaitGroup
		for range shared {
			wg.Go(func() {
				if err := lastOf(ctx, stream.Watch("/closed")); errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("stream %d: %v", n, err)
				}
			})
		}
		wg.Wait()
		stream.Leave()
		cancel()
	}
}
