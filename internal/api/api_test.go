package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tulle/internal/agent"
	"tulle/internal/fabric"
	"tulle/internal/hostfiles"
	"tulle/ip"
)

// daemon is one whose state is fixed.
type daemon struct {
	status agent.Status
	alive  error
	wanted hostfiles.Wanted
}

func (d daemon) Status() agent.Status { return d.status }

func (d daemon) Summary() agent.Status                            { return d.status }
func (d daemon) Wanted(context.Context) (hostfiles.Wanted, error) { return d.wanted, d.alive }

func (d daemon) Alive() error { return d.alive }

func (d daemon) Peers() agent.PeerReports { return agent.PeerReports{Peers: []agent.PeerReport{}} }

func (d daemon) Ping(context.Context, string, int) (agent.Pinged, error) {
	return agent.Pinged{}, agent.ErrProbesOff
}

func TestHealth(t *testing.T) {
	stuck := errors.New("the reconcile loop has been stuck for 31s")
	for _, tt := range []struct {
		name    string
		daemon  daemon
		path    string
		code    int
		content string
	}{
		{"alive and ready", daemon{status: agent.Status{Ready: true}}, "/healthz", 200, "alive"},
		{"alive and not ready", daemon{status: agent.Status{Reason: "acquiring a lease"}}, "/healthz", 200, "alive"},
		{"stuck", daemon{status: agent.Status{Ready: true}, alive: stuck}, "/healthz", 503, stuck.Error()},
		{"ready", daemon{status: agent.Status{Ready: true}}, "/readyz", 200, "ready"},
		{"not ready", daemon{status: agent.Status{Reason: "acquiring a lease"}}, "/readyz", 503, "acquiring a lease"},
		{"stuck while ready", daemon{status: agent.Status{Ready: true}, alive: stuck}, "/readyz", 503, stuck.Error()},
		{"the fast path is for the socket alone", daemon{}, "/v1/fast-path/flows", 404, "404 page not found"},
		{"peers are for the socket alone", daemon{}, "/v1/peers", 404, "404 page not found"},
		{"the status is for the socket alone", daemon{}, "/v1/status", 404, "404 page not found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			Health(tt.daemon).ServeHTTP(w, httptest.NewRequest(http.MethodGet, tt.path, nil))
			if got := strings.TrimSpace(w.Body.String()); w.Code != tt.code || got != tt.content {
				t.Errorf("%d %q, want %d %q", w.Code, got, tt.code, tt.content)
			}
		})
	}
	w := httptest.NewRecorder()
	Full(daemon{}, daemon{}, nil, nil).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/status", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST is answered with %d", w.Code)
	}
}

// serve runs the API of d below dir until the test ends.
func serve(t *testing.T, dir string, d Daemon) {
	t.Helper()
	l, err := ListenSocket(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, Full(d, daemon{}, nil, nil), slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: %v, want the context's error", err)
		}
	})
}

func TestSocket(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	path := filepath.Join(dir, SocketName)
	want := agent.Status{Node: "h1", Reason: "acquiring a lease", Networks: []fabric.Status{{Peers: []fabric.PeerStatus{{Node: "h2", Via: "vxlan"}}}}}
	client := NewClient(dir)
	if _, err := client.Status(t.Context()); !Absent(err) || !strings.Contains(err.Error(), "--run-dir") {
		t.Errorf("without a daemon: %v, want an error that names --run-dir", err)
	}

	serve(t, dir, daemon{status: want})
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("the socket has mode %o, want 600", mode)
	}
	got, err := client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(agent.Status{}, fabric.Status{})); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	if ready, text, err := client.Readiness(t.Context()); err != nil || ready || text != "acquiring a lease" {
		t.Errorf("Readiness = %t, %q, %v, want the reason", ready, text, err)
	}

	if _, err := ListenSocket(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "another tulled answers") {
		t.Errorf("a second daemon: %v, want it refused", err)
	}
	if _, err := client.Status(t.Context()); err != nil {
		t.Errorf("the first daemon is gone after the second was refused: %v", err)
	}
}

func TestWantedIsThatOfTheDaemonElseOfTheFile(t *testing.T) {
	dir := t.TempDir()
	client := NewClient(dir)
	if _, err := client.Wanted(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("with neither: %v, want the error of the file", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "wanted.json"), []byte(`{"Scope":{"Links":["old"]}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	link := func() string {
		got, err := client.Wanted(t.Context())
		if err != nil || len(got.Scope.Links) != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
		return got.Scope.Links[0]
	}
	if got := link(); got != "old" {
		t.Errorf("without a daemon: of %s, want that of the file", got)
	}
	d := &daemon{wanted: hostfiles.Wanted{Scope: ip.Scope{Links: []string{"new"}}}}
	serve(t, dir, d)
	if got := link(); got != "new" {
		t.Errorf("with a daemon: of %s, want its own", got)
	}
	d.alive = errors.New("it wants nothing yet")
	if got := link(); got != "old" {
		t.Errorf("with a daemon that wants nothing yet: of %s, want that of the file", got)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	dir := t.TempDir()
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, SocketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false) // as kill -9 leaves it
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	serve(t, dir, daemon{status: agent.Status{Ready: true}})
	if ready, _, err := NewClient(dir).Readiness(t.Context()); err != nil || !ready {
		t.Error(err)
	}
}

// counted tells of each connection that is accepted.
type counted struct {
	net.Listener
	accepted chan struct{}
}

func (c counted) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.accepted <- struct{}{}
	}
	return conn, err
}

// Whoever may connect can hold only so many descriptors of tulled, and what the server complains of is in its log.
func TestServeIsBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan struct{}, 2*maxConns)
	log := &lockedLog{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	broken := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("broken on purpose") })
	go func() { done <- Serve(ctx, counted{l, accepted}, broken, slog.New(slog.NewTextHandler(log, nil))) }()
	var conns []net.Conn
	for range maxConns + 10 {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	for range maxConns {
		<-accepted
	}
	select {
	case <-accepted:
		t.Errorf("more than %d connections are accepted", maxConns)
	case <-time.After(100 * time.Millisecond):
	}
	if _, err := io.WriteString(conns[0], "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-accepted // the server has ended the connection over which it broke
	cancel()
	<-done
	if text := log.String(); !strings.Contains(text, "level=WARN") || !strings.Contains(text, "broken on purpose") {
		t.Errorf("log %q, want the complaint", text)
	}
}

// lockedLog is written to by several goroutines.
type lockedLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Who asks is told whether there is no daemon, or one that hangs.
func TestNoAnswer(t *testing.T) {
	absent, hung := NewClient(t.TempDir()), NewClient(t.TempDir())
	l, err := net.Listen("unix", hung.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	hung.http.Timeout = 20 * time.Millisecond
	for client, want := range map[*Client]string{absent: "start it", hung: "systemctl restart tulled"} {
		if _, err := client.Status(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
