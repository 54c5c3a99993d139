//go:build linux

package cniplugin_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/ip"
)

const (
	transferPort    = 5001
	transferTimeout = time.Minute
)

// openContainer opens a container for tests of traffic.
func openContainer(t *testing.T, h *lab.Host, c container, addrs ip.Dual[netip.Prefix]) *lab.Container {
	t.Helper()
	opened, err := h.OpenContainer(h.Name+"/"+c.id, c.netns, ip.Dual[netip.Addr]{V4: addrs.V4.Addr(), V6: addrs.V6.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	return opened
}

// awaitFast waits until the host's fast path is on for so many containers, without complaint.
func awaitFast(t *testing.T, h *lab.Host, ports int) {
	t.Helper()
	var st ip.FastPathState
	for deadline := time.Now().Add(labtest.Limit(2 * time.Second)); time.Now().Before(deadline); <-time.After(20 * time.Millisecond) {
		if st = labtest.FastPath(t, h); st.On && st.Ports == ports && st.Failed == "" && st.Partly == "" && st.Unkept == "" {
			return
		}
	}
	t.Errorf("fast path of %s: %+v, want it on for %d containers", h, st, ports)
}

// requireFast transfers from a container to one of another host, and requires that nearly all of it is fast on those of the two that have a fast path.
func requireFast(t *testing.T, from, to *lab.Container, f ip.Family, size int64) {
	t.Helper()
	counted := labtest.BeginFastTransfer(t, from.Host, to.Host)
	if seen := transfer(t, from, to, netip.AddrPortFrom(to.Addr.Of(f), transferPort), size); seen != from.Addr.Of(f) {
		t.Errorf("%s sees %s as %s, want %s", to, from, seen, from.Addr.Of(f))
	}
	counted.Require(t, fmt.Sprintf("%s from %s to %s", f, from, to), size)
}

// transfer sends bytes to a container by an address that leads to it, compares what arrives, and returns what address it comes from.
func transfer(t *testing.T, from namespace, to *lab.Container, by netip.AddrPort, size int64) netip.Addr {
	t.Helper()
	var listener net.Listener
	if err := to.Do(func() (err error) {
		addr := netip.AddrPortFrom(to.Addr.Of(ip.FamilyOf(by.Addr())), transferPort)
		listener, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", addr.String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	deadline := time.Now().Add(transferTimeout)
	want, got, sent := sha256.New(), sha256.New(), make(chan error, 1)
	go func() {
		conn, err := connect(from, by)
		if err == nil {
			err = conn.SetDeadline(deadline)
			if err == nil {
				_, err = io.Copy(io.MultiWriter(conn, want), io.LimitReader(rand.NewChaCha8([32]byte{}), size))
			}
			err = errors.Join(err, conn.Close())
		}
		if err != nil {
			listener.Close() // so that nobody waits for what does not come
		}
		sent <- err
	}()
	conn, err := listener.Accept()
	if err == nil {
		defer conn.Close()
		err = conn.SetDeadline(deadline)
	}
	if err == nil {
		_, err = io.Copy(got, conn)
	}
	if err := errors.Join(<-sent, err); err != nil {
		t.Fatalf("transfer from %s to %s by %s: %v", from, to, by, err)
	}
	if string(got.Sum(nil)) != string(want.Sum(nil)) {
		t.Errorf("transfer from %s to %s by %s: other bytes arrive than are sent", from, to, by)
	}
	return conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
}
