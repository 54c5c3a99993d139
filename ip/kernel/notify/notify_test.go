//go:build linux

package notify_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tulle/internal/netns"
	"tulle/internal/netns/netnstest"
	"tulle/ip/kernel/notify"
)

const timeout = 20 * time.Second

func listen(t *testing.T, ns *netns.Namespace) *notify.Socket {
	t.Helper()
	var s *notify.Socket
	err := ns.Do(func() (err error) {
		s, err = notify.Listen(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
		return err
	})
	netnstest.Require(t, err)
	t.Cleanup(s.Close)
	return s
}

func bridges(t *testing.T, ns *netns.Namespace, from, to int) {
	t.Helper()
	err := ns.Do(func() error {
		for i := from; i < to; i++ {
			if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprint("br", i)}}); err != nil {
				return err
			}
		}
		return nil
	})
	netnstest.Require(t, err)
}

// What comes together is handed on together, and what comes in a pause after it.
func TestRun(t *testing.T) {
	ns := netnstest.New(t)
	s := listen(t, ns)
	bridges(t, ns, 0, 10)
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	const pause = 100 * time.Millisecond
	var datagrams, most, batches int
	var ended []time.Time
	err := s.Run(ctx, pause, func(datagram []byte) error {
		if len(datagram) < unix.SizeofNlMsghdr {
			t.Errorf("a datagram of %d bytes", len(datagram))
		}
		datagrams++
		return nil
	}, func() {
		batches, most, datagrams = batches+1, max(most, datagrams), 0
		ended = append(ended, time.Now())
		if batches == 3 {
			cancel()
			return
		}
		bridges(t, ns, 10*batches, 10*batches+10)
	})
	if !errors.Is(err, context.Canceled) || batches != 3 || most < 10 {
		t.Fatalf("%v after %d times, at which at most %d came together; want 3 times and 10 or more", err, batches, most)
	}
	// The pauses end at multiples of 100 ms, however long what is between them takes.
	if between := ended[2].Sub(ended[1].Truncate(pause)); between < pause {
		t.Errorf("what came in a pause was handed on after %v, want no sooner than %v", between, pause)
	}
}

func TestRunTellsOfDropped(t *testing.T) {
	ns := netnstest.New(t)
	s := listen(t, ns)
	netnstest.Require(t, s.Shrink())
	bridges(t, ns, 0, 50)
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	dropped := errors.New("dropped")
	err := s.Run(ctx, 0, func(datagram []byte) error {
		if datagram == nil {
			return dropped
		}
		return nil
	}, func() {})
	if !errors.Is(err, dropped) {
		t.Errorf("Run returned %v, want that it told of notifications that were dropped", err)
	}
}

func TestListenRefuses(t *testing.T) {
	if _, err := notify.Listen(unix.NETLINK_ROUTE, 1<<20); err == nil {
		t.Error("there is no such group, and no error")
	}
}
