//go:build linux

package lab_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/ip"
)

// Whatever others put where tulled keeps its files, tulled starts or says why not, ends when told to, and leaves alone what
// links lead to.
func TestFilesInTheWay(t *testing.T) {
	const (
		ready   = ""
		replace = "remove it"
	)
	l := upLab(t, lab.Config{Hosts: 1, Families: []ip.Family{ip.IPv4}})
	host := l.Hosts[0]
	secret := filepath.Join(t.TempDir(), "secret")
	writeSecret := func() {
		if err := errors.Join(os.WriteFile(secret, []byte("secret"), 0o600), os.Chmod(secret, 0o400)); err != nil {
			t.Fatal(err)
		}
	}
	kinds := map[string]func(path string) error{
		"pipe":      func(path string) error { return syscall.Mkfifo(path, 0o666) },
		"link":      func(path string) error { return os.Symlink(secret, path) },
		"device":    func(path string) error { return os.Symlink("/dev/zero", path) },
		"sparse":    func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 3<<30)) },
		"directory": func(path string) error { return os.MkdirAll(filepath.Join(path, "full"), 0o755) },
	}
	for _, file := range []struct{ path, outcome, directory string }{
		{"state/host.json", ready, ready}, // what earlier configurations left is not known then, and the log says so
		{"state/.host.json.new", ready, ready},
		{"state/view.json.gz", ready, ready}, // a start without the store would not be possible, and the log says so
		{"run/instance", replace, replace},   // who this machine is, is not guessed
		{"run/wanted.json", ready, replace},
		{"run/tulled.sock", ready, replace},
		{"subnet.env", ready, replace},
		{".subnet.env.new", ready, ready},
	} {
		for kind, put := range kinds {
			if testing.Short() && kind != "pipe" && kind != "directory" { // under the race detector, where all takes longer
				continue
			}
			t.Run(filepath.Base(file.path)+"/"+kind, func(t *testing.T) {
				stop(t, host)
				writeSecret()
				path := filepath.Join(host.Dir, file.path)
				// What is whole is not written again.
				for _, gone := range []string{path, filepath.Join(host.Dir, "state/host.json"), filepath.Join(host.Dir, "state/host.json.garbled"), host.SubnetFile()} {
					if err := os.RemoveAll(gone); err != nil {
						t.Fatal(err)
					}
				}
				if err := errors.Join(os.Truncate(host.Log(), 0), put(path)); err != nil {
					t.Fatal(err)
				}
				defer os.RemoveAll(path)
				want := file.outcome
				if kind == "directory" {
					want = file.directory
				}
				if err := host.StartDaemon(); err != nil {
					t.Fatal(err)
				}
				if got := outcome(t, host, path, want); got != want {
					t.Errorf("tulled says %q, want %q of %s", got, want, path)
				}
				if info, err := os.Stat(secret); err != nil || info.Mode() != 0o400 {
					t.Errorf("what a link led to: %v, %v, want it to keep its mode 400", info.Mode(), err)
				}
				if text, err := os.ReadFile(secret); err != nil || string(text) != "secret" {
					t.Errorf("what a link led to: %q, %v, want it unchanged", text, err)
				}
				if info, err := os.Lstat(path); file.path == "subnet.env" && kind != "directory" && (err != nil || info.Mode() != 0o644) {
					t.Errorf("subnet file %v, %v, want a file with mode 644", info.Mode(), err)
				}
			})
		}
	}
}

// outcome returns "" if tulled gets ready, and otherwise what it or its log says, if need be cut to the part that is wanted. Then
// tulled is stopped.
func outcome(t *testing.T, host *lab.Host, path, want string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		pid := host.DaemonPID()
		isReady, reason := host.Ready(ctx)
		log, err := os.ReadFile(host.Log())
		if err != nil {
			t.Fatal(err)
		}
		said := reason + string(log)
		refuses := !isReady && want != "" && strings.Contains(said, path) && strings.Contains(said, want)
		if asWanted := refuses || isReady && want == ""; !asWanted && pid != 0 && ctx.Err() == nil {
			<-time.After(20 * time.Millisecond)
			continue
		}
		stop(t, host)
		switch {
		case isReady:
			return ""
		case refuses:
			return want
		}
		return said
	}
}

// stop stops tulled, which may have ended by itself.
func stop(t *testing.T, host *lab.Host) {
	t.Helper()
	if err := host.StopDaemon(); err != nil && strings.Contains(err.Error(), "after SIGTERM") {
		t.Error(err)
	}
}
