//go:build linux

package cniplugin_test

import (
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/internal/netns"
	"tulle/ip"
)

// requireFast sends 64 MB from a container of the first host to one of the second, and requires that nearly all of it takes the fast path, if there is one.
func requireFast(t *testing.T, l *lab.Lab, from, to *netns.Namespace, addr netip.Addr) {
	t.Helper()
	const size = 64 << 20
	sender, receiver := fastPath(t, l.Hosts[0]), fastPath(t, l.Hosts[1])
	var listener net.Listener
	if err := to.Do(func() (err error) {
		listener, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", netip.AddrPortFrom(addr, 0).String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	deadline := time.Now().Add(time.Minute)
	want, sent := sha256.New(), make(chan error, 1)
	go func() {
		sent <- from.Do(func() error {
			conn, err := (&net.Dialer{Deadline: deadline}).DialContext(t.Context(), "tcp", listener.Addr().String())
			if err != nil {
				return err
			}
			err = conn.SetDeadline(deadline)
			if err == nil {
				_, err = io.Copy(io.MultiWriter(conn, want), io.LimitReader(rand.NewChaCha8([32]byte{}), size))
			}
			return errors.Join(err, conn.Close())
		})
	}()
	if err := listener.(*net.TCPListener).SetDeadline(deadline); err != nil {
		t.Fatal(err)
	}
	got := sha256.New()
	conn, err := listener.Accept()
	if err == nil {
		defer conn.Close()
		err = conn.SetDeadline(deadline)
	}
	if err == nil {
		_, err = io.Copy(got, conn)
	}
	if err := errors.Join(err, <-sent); err != nil {
		t.Fatal(err)
	}
	if string(got.Sum(nil)) != string(want.Sum(nil)) {
		t.Error("other bytes arrive than are sent")
	}
	for _, side := range []struct {
		host    *lab.Host
		on      bool
		was, is ip.FastTraffic
	}{
		{l.Hosts[0], sender.On, sender.Out, fastPath(t, l.Hosts[0]).Out},
		{l.Hosts[1], receiver.On, receiver.In, fastPath(t, l.Hosts[1]).In},
	} {
		fast, slow := side.is.FastBytes-side.was.FastBytes, side.is.SlowBytes-side.was.SlowBytes
		if !side.on {
			continue
		}
		share := float64(fast) / float64(fast+slow)
		t.Logf("on %s %.2f %% of %d MB are fast", side.host, 100*share, (fast+slow)>>20)
		if !(share > 0.95) {
			t.Errorf("on %s %d bytes are fast and %d slow, want more than 95 %%: %+v", side.host, fast, slow, fastPath(t, side.host))
		}
	}
}

func fastPath(t *testing.T, h *lab.Host) ip.FastPathState {
	t.Helper()
	st, err := h.FastPath(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st
}
