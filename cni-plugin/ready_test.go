//go:build linux

package cniplugin

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serveDaemon answers like a tulled with this status, in a run directory of its own.
func serveDaemon(t *testing.T, ready bool, status string) (runDir string) {
	t.Helper()
	runDir = t.TempDir()
	l, err := net.Listen("unix", filepath.Join(runDir, socketName))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintln(w, "some text")
	})
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, status) })
	server := &http.Server{Handler: mux}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return runDir
}

func TestReady(t *testing.T) {
	none := t.TempDir()
	env := dualEnv()
	file := filepath.Join(none, "subnet.env")
	if _, err := env.WriteFile(file); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(none, "bad.env")
	if err := os.WriteFile(bad, []byte("FLANNEL_MTU"), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(none, "missing.env")
	for name, tt := range map[string]struct {
		runDir, file string
		want         string // part of the reason; empty: ready
	}{
		"ready":                    {serveDaemon(t, true, ""), file, ""},
		"no daemon, but a file":    {none, file, ""},
		"store away, but a file":   {serveDaemon(t, false, `{"reason":"etcd http://192.0.2.1:2379: refused","troubles":{"count":{"store.unreachable":1}}}`), file, ""},
		"a peer's route refused":   {serveDaemon(t, false, `{"reason":"apply to kernel: x","networks":[{"lease":{"held":true}}]}`), file, ""},
		"a route, tulled is older": {serveDaemon(t, false, `{"reason":"apply to kernel: x","lease":{"held":true}}`), file, ""},
		"lost, tulled is older":    {serveDaemon(t, false, `{"reason":"lease taken by h7","lease":{"held":false}}`), file, "tulled is not ready: lease taken by h7"},
		"lease lost":               {serveDaemon(t, false, `{"reason":"lease taken by h7","networks":[{"lease":{"held":false}}]}`), file, "tulled is not ready: lease taken by h7"},
		"no network":               {serveDaemon(t, false, `{"reason":"no network configuration"}`), file, "tulled is not ready: no network configuration"},
		"store away, no file":      {serveDaemon(t, false, `{"reason":"etcd http://192.0.2.1:2379: refused","troubles":{"count":{"store.unreachable":1}}}`), missing, "tulled is not ready: etcd http://192.0.2.1:2379: refused"},
		"no daemon, no file":       {none, missing, "no tulled answers on " + filepath.Join(none, socketName) + ", and none has written " + missing},
		"no daemon, bad file":      {none, bad, `"FLANNEL_MTU" is not KEY=VALUE`},
		"ready, with another file": {serveDaemon(t, true, ""), missing, "tulled is ready, but its subnet file is not " + missing},
		"answer is not JSON":       {serveDaemon(t, false, "<html>"), file, ""},
	} {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			_, err := ready(t.Context(), conf{RunDir: tt.runDir, SubnetFile: tt.file}, 0)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want it to say %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "no such file") {
				t.Errorf("error %v says what no operator can use", err)
			}
			if took := time.Since(begun); took > 2*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// A daemon that hangs must not hang the runtime.
func TestReadyWithSilentDaemon(t *testing.T) {
	runDir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(runDir, socketName))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	begun := time.Now()
	_, err = ready(t.Context(), conf{RunDir: runDir, SubnetFile: filepath.Join(runDir, "none")}, patience)
	if took := time.Since(begun); err == nil || took > 2*time.Second {
		t.Errorf("ready = %v after %v, want an error within 2 seconds", err, took)
	}
}
