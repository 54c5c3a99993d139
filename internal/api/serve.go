package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/net/netutil"

	"tulle/internal/atomicfile"
)

// ListenSocket makes the daemon's socket below runDir, open to root alone. A socket that a killed daemon left behind is
// replaced; one that answers belongs to a daemon that runs, and is refused.
func ListenSocket(ctx context.Context, runDir string) (net.Listener, error) {
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	path := filepath.Join(runDir, SocketName)
	var dialer net.Dialer
	switch conn, err := dialer.DialContext(ctx, "unix", path); {
	case err == nil:
		conn.Close()
		return nil, fmt.Errorf("another tulled answers on %s: stop it, or give this one its own --run-dir, --state-dir and --subnet-file", path)
	case !Absent(err):
		return nil, fmt.Errorf("look for another tulled: %w", err)
	}
	switch err := os.Remove(path); {
	case err == nil || errors.Is(err, fs.ErrNotExist):
	case atomicfile.Unwritable(err):
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	default:
		return nil, fmt.Errorf("make way for the socket: %w: remove it", err)
	}
	l, err := (&net.ListenConfig{Control: restrict}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// restrict gives a socket its mode before it has a name, so that at no time others can connect to it (unix(7)).
func restrict(_, _ string, c syscall.RawConn) error {
	var chmodErr error
	if err := c.Control(func(fd uintptr) { chmodErr = syscall.Fchmod(int(fd), 0o600) }); err != nil {
		return err
	}
	return chmodErr
}

// Absent reports whether err, of a connection to the socket, shows that no daemon is there, not even a busy one.
func Absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// maxConns is for how many connections a listener has descriptors. More wait: none is kept for long without a request.
const maxConns = 64

// Serve answers requests on l until ctx ends. What the server has to say goes to log.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { stopped <- srv.Close() })
	err := srv.Serve(netutil.LimitListener(l, maxConns))
	if !stop() {
		return errors.Join(ctx.Err(), <-stopped)
	}
	return fmt.Errorf("serve on %s: %w", l.Addr(), err)
}
