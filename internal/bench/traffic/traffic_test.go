//go:build linux

package traffic_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tulle/internal/bench/traffic"
)

// newEnd serves an end over a pipe until the test is over.
func newEnd(t *testing.T, end *traffic.End) *traffic.Remote {
	t.Helper()
	near, far := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- end.Serve(far, far) }()
	remote := traffic.NewRemote(near)
	t.Cleanup(func() {
		if err := errors.Join(remote.Close(), <-served); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
	})
	return remote
}

func do(t *testing.T, r *traffic.Remote, o traffic.Order) traffic.Answer {
	t.Helper()
	a, err := r.Do(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestKinds(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		local := netip.AddrPortFrom(netip.MustParseAddr(host), 0)
		from, to := newEnd(t, &traffic.End{Clock: traffic.ProcessClock}), newEnd(t, &traffic.End{Clock: traffic.ProcessClock})
		for _, o := range []traffic.Order{
			{Kind: traffic.TCPRoundTrip}, {Kind: traffic.UDPRoundTrip}, {Kind: traffic.UDPOneWay}, {Kind: traffic.TCPConnect},
			{Kind: traffic.TCPBulk, Streams: 1}, {Kind: traffic.TCPBulk, Streams: 4},
		} {
			o.Action, o.Addr = traffic.Listen, local
			o.Addr = do(t, to, o).Addr
			o.Action = traffic.Open
			do(t, from, o)
			before := do(t, from, traffic.Order{Action: traffic.CPU}).CPU
			for range 2 { // what is open can be used again
				ran := do(t, from, traffic.Order{Action: traffic.Run, For: 20 * time.Millisecond})
				if ran.Count == 0 || ran.Took < 20*time.Millisecond {
					t.Errorf("%s at %s: %d in %v, want some in 20 ms", o.Kind, host, ran.Count, ran.Took)
				}
			}
			do(t, from, traffic.Order{Action: traffic.Close})
			if count := do(t, to, traffic.Order{Action: traffic.Count}).Count; count == 0 {
				t.Errorf("%s at %s: nothing has arrived", o.Kind, host)
			}
			if spent := do(t, from, traffic.Order{Action: traffic.CPU}).CPU - before; spent <= 0 {
				t.Errorf("%s at %s: CPU time is %v", o.Kind, host, spent)
			}
			do(t, to, traffic.Order{Action: traffic.Close})
		}
	}
}

func TestRefusedOrders(t *testing.T) {
	server := newEnd(t, &traffic.End{Clock: traffic.MachineClock, At: netip.MustParseAddrPort("127.0.0.1:0")})
	if a := do(t, server, traffic.Order{Action: traffic.Listen, Kind: traffic.TCPBulk, Addr: netip.MustParseAddrPort("192.0.2.1:9")}); a.Addr.Addr() != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("listens at %s, want its own address", a.Addr)
	}
	do(t, server, traffic.Order{Action: traffic.CPU})
	for _, tt := range []struct {
		order traffic.Order
		says  string
	}{
		{traffic.Order{Action: traffic.Open, Kind: traffic.UDPOneWay, Addr: netip.MustParseAddrPort("127.0.0.1:9")}, "only listens"},
		{traffic.Order{Action: traffic.Run}, "nothing is open"},
		{traffic.Order{Action: traffic.Listen, Kind: "smoke"}, `"smoke"`},
		{traffic.Order{Action: "dance"}, `"dance"`},
		{traffic.Order{Action: traffic.Count}, "nothing listens"},
	} {
		if _, err := server.Do(t.Context(), tt.order); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%+v: %v, want an error that says %s", tt.order, err, tt.says)
		}
	}
}

// An end that is busy does not keep whoever gave the order.
func TestOrdersEndWithTheirContext(t *testing.T) {
	to, from := newEnd(t, &traffic.End{}), newEnd(t, &traffic.End{})
	at := do(t, to, traffic.Order{Action: traffic.Listen, Kind: traffic.TCPRoundTrip, Addr: netip.MustParseAddrPort("127.0.0.1:0")}).Addr
	do(t, from, traffic.Order{Action: traffic.Open, Kind: traffic.TCPRoundTrip, Addr: at})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := from.Do(ctx, traffic.Order{Action: traffic.Run, For: 200 * time.Millisecond}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an order of 200 ms: %v after 10 ms, want that the time is up", err)
	}
}

func TestClocks(t *testing.T) {
	core, err := traffic.LastCore()
	if err != nil {
		t.Fatal(err)
	}
	softirqs, err := traffic.SoftirqClock(core)
	if err != nil {
		t.Fatal(err)
	}
	for name, clock := range map[string]func() (time.Duration, error){"process": traffic.ProcessClock, "machine": traffic.MachineClock, "soft interrupts": softirqs} {
		before, err := clock()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if after, err := clock(); err != nil || after < before {
			t.Errorf("%s: %v and then %v, %v", name, before, after, err)
		}
	}
}
