//go:build linux

package lab_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/ip"
)

const (
	// transferLarge is of a transfer that is to be fast over every backend, in bytes; transferMedium of one where something else is looked at.
	transferLarge, transferMedium = 1 << 30, 256 << 20
	// transferSmall is of one whose packets are all looked at.
	transferSmall = 16 << 20

	// transferTimeout is how long it may take.
	transferTimeout = time.Minute

	// fastTime is how long the fast path may take to be as it should be: it looks once a second.
	fastTime = 2 * time.Second
)

// upFastLab runs a network whose hosts have the fast path.
func upFastLab(t *testing.T, config lab.Config) *lab.Lab {
	t.Helper()
	config.FastPath = "on"
	l := upLab(t, config)
	needsFastPath(t, l.Hosts[0])
	for _, host := range l.Hosts {
		requireFast(t, host)
	}
	return l
}

// needsFastPath skips the test where a host cannot have one. In CI each can.
func needsFastPath(t *testing.T, host *lab.Host) {
	t.Helper()
	if st := labtest.FastPath(t, host); !st.On && os.Getenv("CI") == "" {
		t.Skipf("needs a fast path: %s", st.Reason)
	}
}

// requireFast ends the test unless the host has a fast path to all of its containers, and nothing is wrong with it.
func requireFast(t *testing.T, host *lab.Host) {
	t.Helper()
	var st ip.FastPathState
	if !eventually(fastTime, func() bool {
		st = labtest.FastPath(t, host)
		return st.On && st.Ports == len(host.Containers) && st.Failed == "" && st.Partly == "" && st.Unkept == ""
	}) {
		t.Fatalf("fast path of %s: %+v, want it on for %d containers", host, st, len(host.Containers))
	}
}

// connectTCP makes a connection between two containers.
func connectTCP(ctx context.Context, from, to *lab.Container, f ip.Family) (client, server *net.TCPConn, err error) {
	var listener net.Listener
	if err := to.Do(func() (err error) {
		listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", netip.AddrPortFrom(to.Addr.Of(f), 0).String())
		return err
	}); err != nil {
		return nil, nil, err
	}
	defer listener.Close()
	deadline := time.Now().Add(transferTimeout)
	if err := listener.(*net.TCPListener).SetDeadline(deadline); err != nil {
		return nil, nil, err
	}
	var here net.Conn
	if err := from.Do(func() (err error) {
		here, err = (&net.Dialer{Deadline: deadline}).DialContext(ctx, "tcp", listener.Addr().String())
		return err
	}); err != nil {
		return nil, nil, err
	}
	there, err := listener.Accept()
	if err == nil {
		err = errors.Join(here.SetDeadline(deadline), there.SetDeadline(deadline))
	}
	if err != nil {
		return nil, nil, errors.Join(err, here.Close())
	}
	return here.(*net.TCPConn), there.(*net.TCPConn), nil
}

// transfer sends bytes of which no two blocks are the same, and compares what arrives.
func transfer(ctx context.Context, from, to *lab.Container, f ip.Family, length int) (size int64, err error) {
	client, server, err := connectTCP(ctx, from, to, f)
	if err != nil {
		return 0, fmt.Errorf("connect %s to %s: %w", from, to, err)
	}
	defer client.Close()
	defer server.Close()
	want, got := sha256.New(), sha256.New()
	sent := make(chan error, 1)
	go func() {
		block := make([]byte, 1<<20)
		_, _ = rand.NewChaCha8([32]byte{}).Read(block) // it never fails
		to := io.MultiWriter(client, want)
		for n := 0; n < length; n += len(block) {
			binary.NativeEndian.PutUint64(block, uint64(n))
			if _, err := to.Write(block); err != nil {
				sent <- err
				return
			}
		}
		sent <- client.CloseWrite()
	}()
	size, err = io.CopyBuffer(got, struct{ io.Reader }{server}, make([]byte, 1<<18))
	if err := errors.Join(err, <-sent); err != nil {
		return size, fmt.Errorf("transfer from %s to %s after %d bytes: %w", from, to, size, err)
	}
	if string(want.Sum(nil)) != string(got.Sum(nil)) {
		return size, fmt.Errorf("transfer from %s to %s: other bytes arrive than are sent", from, to)
	}
	return size, nil
}

// requireFastTransfer transfers, and requires that nearly all of it is fast on those of the two hosts that have a fast path.
func requireFastTransfer(t *testing.T, from, to *lab.Container, f ip.Family, length int) {
	t.Helper()
	counted := labtest.BeginFastTransfer(t, from.Host, to.Host)
	began := time.Now()
	size, err := transfer(t.Context(), from, to, f, length)
	if err != nil {
		t.Error(err)
		return
	}
	counted.Require(t, fmt.Sprintf("%s from %s to %s in %v", f, from, to, time.Since(began).Round(time.Millisecond)), int64(size))
}

// fastStreams are one stream in each direction and family, between the first containers of two hosts.
func fastStreams(t *testing.T, l *lab.Lab, a, b *lab.Host) []runningStream {
	t.Helper()
	var streams []runningStream
	for _, f := range l.Config.Families {
		streams = append(streams, startStream(t, a, b, f, 1000), startStream(t, b, a, f, 1000))
	}
	return streams
}

// requireFastStreams waits until nearly all packets that the hosts send and receive are fast, of as many as come by in a look.
func requireFastStreams(t *testing.T, within time.Duration, hosts ...*lab.Host) {
	t.Helper()
	const look = 100 // packets
	for _, host := range hosts {
		was := labtest.FastPath(t, host)
		var is ip.FastPathState
		if !eventually(within, func() bool {
			is = labtest.FastPath(t, host)
			out, outSlow := is.Out.FastPackets-was.Out.FastPackets, is.Out.SlowPackets-was.Out.SlowPackets
			in, inSlow := is.In.FastPackets-was.In.FastPackets, is.In.SlowPackets-was.In.SlowPackets
			if min(out+outSlow, in+inSlow) < look {
				return false
			}
			was = is
			return out >= 9*outSlow && in >= 9*inSlow
		}) {
			t.Errorf("%v later %s has not sent and received %d packets that are fast: %+v, was %+v", within, host, look, is, was)
		}
	}
}
