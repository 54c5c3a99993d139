//go:build linux

package etcdmember_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"tulle/internal/etcdmember"
	"tulle/internal/etcdmember/etcdmembertest"
)

func TestStartServes(t *testing.T) {
	member := etcdmembertest.Start(t)
	endpoints := member.Endpoints()
	if len(endpoints) != 1 || strings.HasSuffix(endpoints[0], ":0") {
		t.Fatalf("endpoints = %q, want one with the port that was bound", endpoints)
	}
	response, err := http.Get(endpoints[0] + "/health")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("GET /health = %s, want 200", response.Status)
	}
}

func TestRestartKeepsDataAndAddress(t *testing.T) {
	config := etcdmember.Config{DataDir: etcdmembertest.ScratchDir(t), ListenClientURLs: []string{freeURL(t)}}
	first := etcdmembertest.Restart(t, config)
	post(t, first.Endpoints()[0]+"/v3/kv/put", `{"key":"aw==","value":"dg=="}`)
	first.Close()

	config.ListenClientURLs = first.Endpoints()
	second := etcdmembertest.Restart(t, config)
	defer second.Close()
	if got := post(t, second.Endpoints()[0]+"/v3/kv/range", `{"key":"aw=="}`); !strings.Contains(got, `"value":"dg=="`) {
		t.Errorf("range after restart = %s, want the value put before it", got)
	}
}

func TestRunStopsPromptlyWithAnOpenWatch(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ready := make(chan []string, 1)
	done := make(chan error, 1)
	go func() {
		done <- etcdmember.Run(ctx, etcdmember.Config{
			DataDir:          etcdmembertest.ScratchDir(t),
			ListenClientURLs: []string{freeURL(t)},
			UnsafeNoFsync:    true,
		}, func(endpoints []string) { ready <- endpoints })
	}()
	var endpoint string
	select {
	case endpoints := <-ready:
		endpoint = endpoints[0]
	case err := <-done:
		t.Fatalf("Run ended before it was ready: %v", err)
	}
	watch, err := http.Post(endpoint+"/v3/watch", "application/json", strings.NewReader(`{"create_request":{"key":"aw=="}}`))
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Body.Close()

	start := time.Now()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v, want nil once its context ends", err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("Run took %v to stop, want less than 3s", took)
	}
}

func TestStartRejectsURLWithoutScheme(t *testing.T) {
	_, err := etcdmember.Start(t.Context(), etcdmember.Config{DataDir: t.TempDir(), ListenClientURLs: []string{"127.0.0.1:2379"}})
	if err == nil || !strings.Contains(err.Error(), "listen client URL") {
		t.Errorf("Start = %v, want an error that names the listen client URL", err)
	}
}

func post(t *testing.T, url, body string) string {
	t.Helper()
	response, err := http.Post(url, "application/json", bytes.NewBufferString(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// freeURL gives up its port before etcd binds it; the gateway under test needs
// to be told its port in advance.
func freeURL(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return "http://" + listener.Addr().String()
}
