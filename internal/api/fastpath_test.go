package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/ip"
)

// path is a fast path that keeps what is asked of it.
type path struct {
	flows   []ip.FastFlow
	fails   error
	flushes int
	pauses  []time.Duration
}

func (p *path) Flows() ([]ip.FastFlow, error) { return p.flows, p.fails }

func (p *path) Flush() error {
	p.flushes++
	return p.fails
}

func (p *path) Pause(d time.Duration) error {
	p.pauses = append(p.pauses, d)
	return p.fails
}

// serveWith is serve with a fast path.
func serveWith(t *testing.T, f FastPath) *Client {
	t.Helper()
	dir := t.TempDir()
	l, err := ListenSocket(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, Full(daemon{}, daemon{}, f, nil), slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return NewClient(dir)
}

func TestFastPath(t *testing.T) {
	p := &path{}
	c := serveWith(t, p)
	if flows, err := c.Flows(t.Context()); err != nil || len(flows) != 0 {
		t.Errorf("%v, %v, want no flows", flows, err)
	}
	p.flows = []ip.FastFlow{{
		In: true, Protocol: 6, Src: netip.MustParseAddrPort("10.5.2.2:80"), Dst: netip.MustParseAddrPort("[fc00::1]:1234"), Peer: netip.MustParseAddr("172.30.0.2"),
		Link: "vethA", Packets: 3, Bytes: 4, Age: 5 * time.Millisecond,
	}}
	flows, err := c.Flows(t.Context())
	if diff := cmp.Diff(p.flows, flows, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); err != nil || diff != "" {
		t.Errorf("%v, flows (-want +got):\n%s", err, diff)
	}
	for _, err := range []error{c.FlushFastPath(t.Context()), c.PauseFastPath(t.Context(), 5*time.Minute), c.PauseFastPath(t.Context(), 0)} {
		if err != nil {
			t.Error(err)
		}
	}
	if err := c.PauseFastPath(t.Context(), MaxPause+1); err == nil || !strings.Contains(err.Error(), "24h0m0s at most") {
		t.Errorf("too long a pause: %v", err)
	}
	if diff := cmp.Diff([]time.Duration{5 * time.Minute, 0}, p.pauses); diff != "" || p.flushes != 1 {
		t.Errorf("%d flushes, pauses (-want +got):\n%s", p.flushes, diff)
	}
	p.fails = errors.New("operation not permitted")
	for _, err := range []error{c.FlushFastPath(t.Context()), c.PauseFastPath(t.Context(), 0), func() error { _, err := c.Flows(t.Context()); return err }()} {
		if err == nil || !strings.Contains(err.Error(), "operation not permitted") {
			t.Errorf("%v, want what failed", err)
		}
	}
}

func TestNoFastPath(t *testing.T) {
	c := serveWith(t, nil)
	if err := c.FlushFastPath(t.Context()); err == nil || !strings.Contains(err.Error(), "tulle status says why") {
		t.Errorf("%v, want where to look", err)
	}
	for _, tt := range []struct {
		method, path string
		code         int
	}{
		{http.MethodGet, "/v1/fast-path/flush", http.StatusMethodNotAllowed},
		{http.MethodPost, "/v1/fast-path/flows", http.StatusMethodNotAllowed},
		{http.MethodPost, "/v1/fast-path/pause", http.StatusBadRequest},
		{http.MethodPost, "/v1/fast-path/pause?for=-5m", http.StatusBadRequest},
		{http.MethodPost, "/v1/fast-path/pause?for=x%0ay", http.StatusBadRequest},
	} {
		w := httptest.NewRecorder()
		Full(daemon{}, daemon{}, &path{}, nil).ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
		if w.Code != tt.code {
			t.Errorf("%s %s is answered with %d, want %d", tt.method, tt.path, w.Code, tt.code)
		}
	}
}
