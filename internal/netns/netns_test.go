//go:build linux

package netns_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"tulle/internal/netns"
	"tulle/internal/netns/netnstest"
)

func TestNewIsIsolatedAndHasLoopbackUp(t *testing.T) {
	ns := netnstest.New(t)
	var links []net.Interface
	if err := ns.Do(func() (err error) {
		links, err = net.Interfaces()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if len(links) != 1 || links[0].Name != "lo" || links[0].Flags&net.FlagUp == 0 {
		t.Errorf("links in a fresh namespace = %v, want lo alone, up", links)
	}
}

func TestDoReturnsToTheCallersNamespace(t *testing.T) {
	ns := netnstest.New(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := threadNamespace(t)
	want := errors.New("from fn")
	var inside string
	err := ns.Do(func() (err error) {
		inside, err = os.Readlink("/proc/thread-self/ns/net")
		return errors.Join(err, want)
	})
	if !errors.Is(err, want) {
		t.Errorf("Do error = %v, want %v", err, want)
	}
	if inside == before {
		t.Errorf("fn ran in the caller's namespace %s", inside)
	}
	if after := threadNamespace(t); after != before {
		t.Errorf("namespace after Do = %s, want %s", after, before)
	}
}

func TestDoReportsGoexit(t *testing.T) {
	ns := netnstest.New(t)
	if err := ns.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("Do of a goroutine that ended early = nil, want an error")
	}
}

func TestPin(t *testing.T) {
	ns := netnstest.New(t)
	path := filepath.Join(t.TempDir(), "pins", "h1")
	netnstest.Require(t, ns.Pin(path))
	t.Cleanup(func() { netns.Unpin(path) })
	pinned, err := netns.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer pinned.Close()
	if got, want := namespaceOf(t, pinned), namespaceOf(t, ns); got != want {
		t.Errorf("pinned namespace = %s, want %s", got, want)
	}
	for range 2 {
		if err := netns.Unpin(path); err != nil {
			t.Errorf("Unpin: %v", err)
		}
	}
}

func namespaceOf(t *testing.T, ns *netns.Namespace) string {
	t.Helper()
	var link string
	if err := ns.Do(func() (err error) {
		link, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return link
}

func threadNamespace(t *testing.T) string {
	t.Helper()
	link, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return link
}
