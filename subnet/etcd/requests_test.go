//go:build linux

package etcd_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/internal/etcdmember/etcdmembertest"
	"tulle/subnet"
	"tulle/subnet/etcd"
)

// A start reads all leases once, page by page. All else that it asks of etcd does not depend on their number.
func TestRequestsOfAStart(t *testing.T) {
	const page = 100
	member := etcdmembertest.Start(t)
	for _, leases := range []int{10, 1200} {
		t.Run(fmt.Sprint(leases), func(t *testing.T) {
			h := newHarness(t, etcd.Config{Endpoints: member.Endpoints(), Prefix: fmt.Sprintf("/%d", leases), PageSize: page})
			h.Put("config", `{"Network":"10.0.0.0/12"}`, 0)
			h.lease(leases)
			pages := func(keys int) float64 { return float64((keys + page - 1) / page) }

			// Range: the leases, what has changed since, and who had what before. Txn: the lease, and a look at it.
			h.expectRequests("cold", map[string]float64{"Range": pages(leases+1) + 2, "Txn": 2, "LeaseGrant": 1, "Watch": 1})
			h.expectRequests("warm", map[string]float64{"Range": pages(leases+2) + 1, "Txn": 1, "LeaseKeepAlive": 1, "Watch": 1})
		})
	}
}

// lease puts n leases of other hosts.
func (h *harness) lease(n int) {
	h.t.Helper()
	for first := 0; first < n; first += 100 {
		var puts []clientv3.Op
		for i := first; i < min(n, first+100); i++ {
			puts = append(puts, clientv3.OpPut(h.key(fmt.Sprintf("subnets/10.%d.%d.0-24", i>>8, i&255)), fmt.Sprintf(`{"PublicIP":"100.64.%d.%d"}`, i>>8, i&255)))
		}
		if _, err := h.raw.Txn(h.ctx()).Then(puts...).Commit(); err != nil {
			h.t.Fatal(err)
		}
	}
}

// A host at rest asks etcd for nothing, also if nobody has written anything since it came.
func TestRequestsAtRest(t *testing.T) {
	h := newHarness(t, etcd.Config{Endpoints: etcdmembertest.Start(t).Endpoints(), Prefix: "/net", ProbeInterval: 400 * time.Millisecond})
	h.Put("config", `{"Network":"10.0.0.0/12"}`, 0)
	stop := h.start()
	defer stop()
	h.awaitRest()
}

// quietEnough is for how long no request more is made by a host at rest. It spans its pulse.
const quietEnough = 3 * time.Second

// expectRequests starts a host, and compares what it asks of etcd until it rests.
func (h *harness) expectRequests(start string, want map[string]float64) {
	h.t.Helper()
	before := h.requests()
	stop := h.start()
	defer stop()
	h.awaitRest()
	got := h.requests()
	maps.DeleteFunc(got, func(method string, n float64) bool { got[method] = n - before[method]; return n == before[method] })
	if !maps.Equal(got, want) {
		h.t.Errorf("%s start makes requests %v, want %v", start, got, want)
	}
}

// start has a host hold a lease, as the daemon does.
func (h *harness) start() (stop func()) {
	h.t.Helper()
	s := h.open()
	var wg sync.WaitGroup
	known := make(chan struct{}, 1)
	wg.Go(func() {
		_ = s.Watch(h.t.Context(), func(subnet.Set) { // it ends with the store
			select {
			case known <- struct{}{}:
			default:
			}
		})
	})
	stop = func() {
		if err := s.Close(); err != nil {
			h.t.Error(err)
		}
		wg.Wait()
	}
	select {
	case <-known:
	case <-h.ctx().Done():
		stop()
		h.t.Fatal("nothing delivered")
	}
	claim := claimOf(1)
	claim.Answer = func(context.Context, []byte) []byte { return nil }
	h.acquire(s, claim)
	return stop
}

// awaitRest waits until no requests are made any more.
func (h *harness) awaitRest() {
	h.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	ctx := h.ctx()
	last, quiet := h.requests(), time.Now()
	for time.Since(quiet) < quietEnough {
		select {
		case <-tick.C:
		case <-ctx.Done():
			h.t.Fatalf("requests are made again and again: %v so far", last)
		}
		if now := h.requests(); !maps.Equal(now, last) {
			last, quiet = now, time.Now()
		}
	}
}

var started = regexp.MustCompile(`(?m)^grpc_server_started_total\{.*grpc_method="(\w+)".*\} (\S+)$`)

// requests counts what etcd was asked, by method.
func (h *harness) requests() map[string]float64 {
	h.t.Helper()
	r, err := http.Get(h.config.Endpoints[0] + "/metrics")
	if err != nil {
		h.t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	counts := map[string]float64{}
	for _, m := range started.FindAllStringSubmatch(string(text), -1) {
		n, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			h.t.Fatal(err)
		}
		counts[m[1]] += n
	}
	return counts
}
