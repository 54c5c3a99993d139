//go:build linux

package docker

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// silent returns a socket whose requests get the text, and then nothing.
func silent(t *testing.T, answer string) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "docker.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = conn.Write([]byte(answer))
			}
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-ended
	})
	return socket
}

// A dockerd that hangs is not one that is stopped, and costs one request's time.
func TestEngineThatDoesNotAnswer(t *testing.T) {
	for name, answer := range map[string]string{"nothing": "", "half": "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"} {
		t.Run(name, func(t *testing.T) {
			socket := silent(t, answer)
			e := newEngine(socket)
			if e.http.Timeout != 10*time.Second {
				t.Errorf("a request may take %v, want 10s", e.http.Timeout)
			}
			e.http.Timeout = 50 * time.Millisecond
			err := e.call(t.Context(), http.MethodGet, "/version", nil, nil)
			says(t, err, "docker does not answer on "+socket+" within 50ms", "journalctl -u docker", "systemctl restart docker")
			if errors.Is(err, ErrNotRunning) {
				t.Errorf("error %v tells of a Docker that does not run", err)
			}
		})
	}
}

// A dockerd that takes no more connections runs too.
func TestEngineThatDoesNotAccept(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "docker.sock")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: socket}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	waiting, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	_, err = Connect(t.Context(), socket)
	says(t, err, "docker takes no more connections on "+socket, "systemctl restart docker")
	if errors.Is(err, ErrNotRunning) {
		t.Errorf("error %v tells of a Docker that does not run", err)
	}
}

func TestEngineThatIsNotThere(t *testing.T) {
	stale := filepath.Join(t.TempDir(), "docker.sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	listener.Close()
	for _, socket := range []string{stale, filepath.Join(t.TempDir(), "none.sock")} {
		if _, err := Connect(t.Context(), socket); !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: error %v, want one of a Docker that does not run", socket, err)
		}
	}
}

// Who gives up does not blame Docker.
func TestEngineGivenUp(t *testing.T) {
	socket := silent(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Connect(ctx, socket); !errors.Is(err, context.Canceled) || errors.Is(err, ErrNotRunning) {
		t.Errorf("error %v, want that it was cancelled", err)
	}
}
