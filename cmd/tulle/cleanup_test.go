//go:build linux

package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tulle/internal/agent"
	"tulle/internal/api"
	"tulle/internal/hostfiles"
)

type running struct{}

func (running) Status() agent.Status { return agent.Status{Ready: true} }

func (running) Wanted(context.Context) (hostfiles.Wanted, error) { return hostfiles.Wanted{}, nil }

func (running) Summary() agent.Status { return agent.Status{Ready: true} }
func (running) Alive() error          { return nil }

func TestCleanupIsRefusedWhileTulledRuns(t *testing.T) {
	for name, start := range map[string]func(ctx context.Context, dir string) error{
		"answering": func(ctx context.Context, dir string) error {
			l, err := api.ListenSocket(ctx, dir)
			if err == nil {
				go func() { _ = api.Serve(ctx, l, api.Full(running{}, nil, nil, nil), slog.New(slog.DiscardHandler)) }() // ends with the test's context
			}
			return err
		},
		"talking nonsense": func(ctx context.Context, dir string) error {
			l, err := (&net.ListenConfig{}).Listen(ctx, "unix", filepath.Join(dir, api.SocketName))
			if err == nil {
				context.AfterFunc(ctx, func() { l.Close() })
				go func() {
					for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
						conn.Close()
					}
				}()
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := start(t.Context(), dir); err != nil {
				t.Fatal(err)
			}
			// Should it not be refused, there is still nothing to remove below an empty state directory but Tulle's rules.
			plan, _, err := cleanup(t.Context(), cleanupPaths{runDir: dir, stateDir: dir, subnetFile: filepath.Join(dir, "subnet.env")}, true)
			if err == nil || !strings.Contains(err.Error(), "stop it first") {
				t.Errorf("plan %v, error %v, want a refusal", plan, err)
			}
		})
	}
}

// Cleanup removes tulled's files, and nothing that is no file: /dev/null given as the subnet file stays the machine's.
func TestCleanupRemovesFilesOnly(t *testing.T) {
	for name, tt := range map[string]struct {
		put  func(path string) error
		mode string // if it is kept
	}{
		"nothing": {func(string) error { return nil }, ""},
		"file":    {func(path string) error { return os.WriteFile(path, nil, 0o600) }, ""},
		"link":    {func(path string) error { return os.Symlink("/dev/null", path) }, ""},
		"socket": {func(path string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err == nil {
				l.SetUnlinkOnClose(false)
				err = l.Close()
			}
			return err
		}, ""},
		"directory": {func(path string) error { return os.Mkdir(path, 0o700) }, "drwx------"},
		"pipe":      {func(path string) error { return syscall.Mkfifo(path, 0o600) }, "prw-------"},
		"device":    {func(path string) error { return syscall.Mknod(path, syscall.S_IFCHR|0o600, 1<<8|3) }, "Dcrw-------"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "subnet.env")
			if err := tt.put(path); errors.Is(err, syscall.EPERM) && os.Getenv("CI") == "" {
				t.Skipf("needs root outside of any user namespace: %v", err)
			} else if err != nil {
				t.Fatal(err)
			}
			err := removeFile(path)
			_, gone := os.Lstat(path)
			if tt.mode == "" && (err != nil || !errors.Is(gone, fs.ErrNotExist)) {
				t.Errorf("error %v, then the file's is %v; want it removed", err, gone)
			}
			if want := path + " is no file of tulled's, by its mode " + tt.mode + ": name tulled's"; tt.mode != "" && (err == nil || !strings.HasPrefix(err.Error(), want) || gone != nil) {
				t.Errorf("error %v, then the file's is %v; want it kept, and an error %q", err, gone, want)
			}
		})
	}
}

// It finds that before it changes anything.
func TestCleanupLooksFirst(t *testing.T) {
	dir := t.TempDir()
	plan, _, err := cleanup(t.Context(), cleanupPaths{runDir: dir, stateDir: dir, subnetFile: "/dev/null"}, true)
	if err == nil || !strings.HasPrefix(err.Error(), "/dev/null is no file of tulled's") {
		t.Errorf("plan %v, error %v; want a refusal", plan, err)
	}
}
