package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tulle/internal/agent"
	"tulle/internal/fabric"
)

// prober keeps what is asked of it.
type prober struct {
	peers  agent.PeerReports
	pinged agent.Pinged
	fails  error
	asked  []string
}

func (p *prober) Peers() agent.PeerReports { return p.peers }

func (p *prober) Ping(_ context.Context, peer string, count int) (agent.Pinged, error) {
	p.asked = append(p.asked, fmt.Sprint(peer, " ", count))
	return p.pinged, p.fails
}

func TestPeersAndPing(t *testing.T) {
	dir, p := t.TempDir(), &prober{}
	l, err := ListenSocket(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, Full(daemon{}, p, nil, nil), slog.New(slog.DiscardHandler)) }()
	defer func() {
		cancel()
		<-done
	}()
	c, same := NewClient(dir), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{})
	at := netip.MustParseAddrPort("[fc00:5:0:2::]:8473")
	p.peers = agent.PeerReports{Asked: true, Peers: []agent.PeerReport{{
		PeerStatus: fabric.PeerStatus{Node: "h2", Subnets: []netip.Prefix{netip.MustParsePrefix("10.5.2.0/24")}, Public: []netip.Addr{netip.MustParseAddr("172.30.0.2")}, Via: "vxlan"},
		Lease:      "10.5.2.0-24", Verdicts: []agent.Verdict{{Family: "ipv6", Way: "fabric", Address: at, State: "narrow", Since: time.Unix(1, 0).UTC(), P50: 1, P99: 2, Asked: 3, Lost: 4, Size: 5, Full: 6, Reason: "r"}},
	}}}
	if got, err := c.Peers(t.Context()); err != nil || !cmp.Equal(p.peers, got, same) {
		t.Errorf("%v, peers (-want +got):\n%s", err, cmp.Diff(p.peers, got, same))
	}
	p.pinged = agent.Pinged{Node: "h2", Lease: "10.5.2.0-24", Answers: []agent.PingAnswer{{Family: "ipv6", Way: "fabric", Address: at, Asked: 2, RTTs: []time.Duration{7}, Size: 8, Full: 9, Reason: "r"}}}
	if got, err := c.Ping(t.Context(), `h2"`, 3); err != nil || !cmp.Equal(p.pinged, got, same) || p.asked[0] != `h2" 3` {
		t.Errorf("%v, asked %q, answers (-want +got):\n%s", err, p.asked, cmp.Diff(p.pinged, got, same))
	}
	for _, fails := range []error{agent.ErrProbesOff, fmt.Errorf("%w: see tulle peers", agent.ErrUnknownPeer), errors.New("no socket")} {
		p.fails = fails
		if _, err := c.Ping(t.Context(), "h2", 1); err == nil || !strings.Contains(err.Error(), fails.Error()) {
			t.Errorf("%v, want %v", err, fails)
		}
	}
	for fails, code := range map[error]int{agent.ErrProbesOff: http.StatusServiceUnavailable, agent.ErrUnknownPeer: http.StatusBadRequest} {
		w := httptest.NewRecorder()
		p.fails = fails
		if Full(daemon{}, p, nil, nil).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/ping", strings.NewReader(`{"peer":"h2"}`))); w.Code != code {
			t.Errorf("%v is answered with %d, want %d", fails, w.Code, code)
		}
	}
	p.asked, p.fails = nil, nil
	for _, body := range []string{``, `x`, `[]`, `{}`, `{"peer":""}`, `{"peer":"h2","count":-1}`, `{"peer":"h2","count":21}`, `{"peer":"h2","more":1}`, `{"peer":"` + strings.Repeat("x", maxPing) + `"}`} {
		w := httptest.NewRecorder()
		Full(daemon{}, p, nil, nil).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/ping", strings.NewReader(body)))
		if w.Code != http.StatusBadRequest || w.Body.Len() < 10 {
			t.Errorf("%.40q is answered with %d %q", body, w.Code, w.Body)
		}
	}
	if p.asked != nil {
		t.Errorf("asked %q", p.asked)
	}
	w := httptest.NewRecorder()
	if Full(daemon{}, p, nil, nil).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/ping", strings.NewReader(`{"peer":"h2"}`))); w.Code != http.StatusOK || p.asked[0] != "h2 1" {
		t.Errorf("%d, asked %q", w.Code, p.asked)
	}
}
