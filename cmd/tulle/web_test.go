//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"tulle/internal/etcdmember/etcdmembertest"
)

// The page comes from a real etcd, without a tulled, and the program ends when it is told to.
func TestWeb(t *testing.T) {
	store := []string{"--etcd-endpoints", strings.Join(etcdmembertest.Start(t).Endpoints(), ",")}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, stderr bytes.Buffer
	if code := run(ctx, append([]string{"config", "set", `{"Network": "10.5.0.0/16"}`}, store...), &out, &stderr); code != exitOK {
		t.Fatal(stderr.String())
	}
	read, written := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, append([]string{"web", "--listen", "127.0.0.1:0", "--run-dir", t.TempDir()}, store...), written, &stderr)
		written.Close()
	}()
	said, err := bufio.NewReader(read).ReadString('\n')
	if err != nil {
		t.Fatalf("%v: exit code %d: %s", err, <-ended, &stderr)
	}
	url := strings.TrimSpace(strings.TrimPrefix(said, "the page is at "))
	get := func(host string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
	// Until the store's first word, a page says that it waits.
	for code, page := get(""); !strings.Contains(page, "10.5.0.0/16"); code, page = get("") {
		if code != http.StatusOK || !strings.Contains(page, `"waiting":true`) || t.Context().Err() != nil {
			t.Fatalf("%s is %d %s", url, code, page)
		}
	}
	if _, page := get("localhost:80"); !strings.Contains(page, "no tulled answers") {
		t.Errorf("nothing is said of this host: %s", page)
	}
	if code, page := get("evil.example"); code != http.StatusMisdirectedRequest {
		t.Errorf("a page under another name is %d %s", code, page)
	}
	cancel()
	if code := <-ended; code != exitOK || stderr.Len() > 0 {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
}

func TestExposed(t *testing.T) {
	for addr, want := range map[string]bool{"127.0.0.1:8474": false, "[::1]:8474": false, "127.9.9.9:1": false, "[::]:8474": true, "0.0.0.0:8474": true, "192.0.2.1:8474": true, "[fe80::1%eth0]:1": true} {
		if got := exposed(addr); got != want {
			t.Errorf("%s is exposed: %t, want %t", addr, got, want)
		}
	}
}
