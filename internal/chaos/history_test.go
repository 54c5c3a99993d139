//go:build linux

package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"tulle/internal/lab"
	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

// newClient makes a client that dials from inside the lab.
func newClient(t *testing.T, etcd *lab.Etcd) *clientv3.Client {
	t.Helper()
	dial := func(ctx context.Context, address string) (net.Conn, error) { return etcd.Dial(ctx, "tcp", address) }
	client, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints(etcd), TLS: etcd.TLS(), DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(dial)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func endpoints(etcd *lab.Etcd) []string {
	var urls []string
	for _, member := range etcd.Members {
		urls = append(urls, member.URL())
	}
	return urls
}

// history is all that etcd did to the leases, revision by revision. It checks
// as it records: no two leases that are there at once overlap, and no lease
// passes from one host to another before it has ended.
type history struct {
	client *clientv3.Client
	prefix string
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu         sync.Mutex
	again      context.CancelFunc
	leases     map[string]subnet.Lease // now, by key
	revisions  int                     // seen
	violations []error
}

func newHistory(ctx context.Context, client *clientv3.Client, prefix string) *history {
	ctx, cancel := context.WithCancel(ctx)
	h := &history{client: client, prefix: prefix, cancel: cancel, again: cancel}
	h.wg.Go(func() {
		for ctx.Err() == nil {
			h.record(ctx)
		}
	})
	return h
}

func (h *history) close() {
	h.cancel()
	h.wg.Wait()
}

// restart begins anew, for an etcd that was put back to an older state.
func (h *history) restart() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.again()
}

// record reads all leases, and then every change until the watch ends.
func (h *history) record(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h.mu.Lock()
	h.again = cancel
	h.mu.Unlock()
	all, err := h.client.Get(ctx, h.prefix, clientv3.WithPrefix())
	if err != nil {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
		return
	}
	h.mu.Lock()
	h.leases = make(map[string]subnet.Lease)
	for _, kv := range all.Kvs {
		h.put(kv)
	}
	h.check(all.Header.Revision)
	h.mu.Unlock()
	for r := range h.client.Watch(ctx, h.prefix, clientv3.WithPrefix(), clientv3.WithRev(all.Header.Revision+1), clientv3.WithFragment()) {
		if r.Err() != nil {
			return
		}
		h.apply(r.Events)
	}
}

// apply takes the events of one or more revisions, in their order.
func (h *history) apply(events []*clientv3.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, event := range events {
		switch event.Type {
		case clientv3.EventTypePut:
			h.put(event.Kv)
		case clientv3.EventTypeDelete:
			delete(h.leases, string(event.Kv.Key))
		}
		if i+1 == len(events) || events[i+1].Kv.ModRevision != event.Kv.ModRevision {
			h.check(event.Kv.ModRevision)
		}
	}
}

// put passes over what is no lease.
func (h *history) put(kv *mvccpb.KeyValue) {
	key := string(kv.Key)
	lease, err := flannel.DecodeLease(strings.TrimPrefix(key, h.prefix), kv.Value)
	if err != nil {
		return
	}
	if before, ok := h.leases[key]; ok && before.Attrs.Node != lease.Attrs.Node {
		h.violate(fmt.Errorf("revision %d: lease %s passes from %s to %s before it has ended", kv.ModRevision, subnet.KeyOf(lease.Subnets), before.Attrs.Node, lease.Attrs.Node))
	}
	h.leases[key] = lease
}

func (h *history) check(revision int64) {
	h.revisions++
	for a, one := range h.leases {
		for b, other := range h.leases {
			if a < b && overlap(one.Subnets, other.Subnets) {
				h.violate(fmt.Errorf("revision %d: leases %s of %s and %s of %s overlap", revision,
					subnet.KeyOf(one.Subnets), one.Attrs.Node, subnet.KeyOf(other.Subnets), other.Attrs.Node))
			}
		}
	}
}

func (h *history) violate(err error) { h.violations = append(h.violations, err) }

// verdict is what was violated since the last call.
func (h *history) verdict() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	err := errors.Join(h.violations...)
	h.violations = nil
	return err
}

// present are the leases that are there now, by key.
func (h *history) present() map[string]subnet.Lease {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.leases)
}

// owner is the node that holds the IPv4 subnet, "nobody" if none does.
func (h *history) owner(subnets subnet.Subnets) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, lease := range h.leases {
		if lease.Subnets.Of(ip.IPv4) == subnets.Of(ip.IPv4) {
			return lease.Attrs.Node
		}
	}
	return "nobody"
}

func overlap(a, b subnet.Subnets) bool {
	for _, family := range ip.Families() {
		p, q := a.Of(family), b.Of(family)
		if p.IsValid() && q.IsValid() && p.Overlaps(q) {
			return true
		}
	}
	return false
}
