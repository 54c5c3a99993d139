package main

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tulle/internal/agent"
	"tulle/internal/fabric"
)

// manager is systemd's end of the notification socket.
func manager(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// received returns the messages that are there; the sender has already sent them.
func received(t *testing.T, conn *net.UnixConn) []string {
	t.Helper()
	var messages []string
	buf := make([]byte, 1<<16)
	for {
		if err := conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil {
			return messages
		}
		messages = append(messages, string(buf[:n]))
	}
}

func TestNotifier(t *testing.T) {
	for name, socket := range map[string]string{
		"path":     filepath.Join(t.TempDir(), "notify"),
		"abstract": "@tulled-test-" + strconv.Itoa(os.Getpid()),
	} {
		t.Run(name, func(t *testing.T) {
			systemd := manager(t, socket)
			n := notifier{socket: socket, log: slog.New(slog.DiscardHandler)}
			ready := agent.Status{Ready: true, Networks: []fabric.Status{{Lease: &fabric.LeaseStatus{Subnets: []netip.Prefix{netip.MustParsePrefix("10.5.1.0/24")}}}}}
			waiting := agent.Status{Reason: "two\nlines"}
			n.beat()
			for _, st := range []agent.Status{waiting, waiting, ready, ready, waiting, ready} {
				n.status(st)
			}
			n.stopping()
			want := []string{
				"WATCHDOG=1",
				"STATUS=two; lines",
				"STATUS=subnet [10.5.1.0/24], 0 peers\nREADY=1",
				"STATUS=two; lines",
				"STATUS=subnet [10.5.1.0/24], 0 peers",
				"STOPPING=1",
			}
			if got := received(t, systemd); strings.Join(got, "|") != strings.Join(want, "|") {
				t.Errorf("messages %q, want %q", got, want)
			}
		})
	}
}

// A manager that does not read must not stop the daemon.
func TestNotifierDoesNotHang(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	manager(t, socket)
	n := notifier{socket: socket, log: slog.New(slog.DiscardHandler)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		started := time.Now()
		for range 10_000 { // until its queue is full
			if n.beat(); time.Since(started) > sendTimeout/2 {
				return
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(20 * sendTimeout):
		t.Fatal("hangs")
	}
}

func TestNotifierWithoutSystemd(t *testing.T) {
	n := notifier{log: slog.New(slog.DiscardHandler)}
	n.beat()
	n = notifier{socket: "/nonexistent/notify", log: slog.New(slog.DiscardHandler)}
	n.beat()
}
