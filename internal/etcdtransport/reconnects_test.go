//go:build linux

package etcdtransport

import (
	"log/slog"
	"net"
	"testing"
	"time"

	"tulle/internal/etcdmember/etcdmembertest"
)

// The first connection is no reconnect, also for who waits before it is there; the next one is.
func TestReconnects(t *testing.T) {
	endpoints := etcdmembertest.Start(t).Endpoints()
	c, err := Open(Config{Endpoints: endpoints, ProbeKey: "/probe", Logger: slog.New(slog.DiscardHandler), RequestTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	reconnected := make(chan struct{}, 1)
	go c.Reconnects(t.Context(), reconnected)
	for range 20 { // long enough for gRPC to say that it is connected
		if !c.serves(t.Context()) {
			t.Fatal("etcd does not answer")
		}
	}
	select {
	case <-reconnected:
		t.Error("the first connection is told of as one after a break")
	case <-time.After(200 * time.Millisecond):
	}
	c.dialer.closeAll()
	select {
	case <-reconnected:
	case <-time.After(10 * time.Second):
		t.Error("nothing is told of the second connection")
	}
}

// An etcd that has served on its first connection is not asked whether it does, however long a start makes no other request. It is where a connection went.
func TestProbe(t *testing.T) {
	c, err := Open(Config{
		Endpoints: etcdmembertest.Start(t).Endpoints(), ProbeKey: "/probe", Logger: slog.New(slog.DiscardHandler), RequestTimeout: 5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !c.serves(t.Context()) {
		t.Fatal("etcd does not answer")
	}
	first := c.health.lastServed()
	go c.Probe(t.Context())
	awaitAnother := func(most time.Duration) bool {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for end := time.After(most); ; {
			select {
			case <-end:
				return false
			case <-tick.C:
			}
			if c.health.lastServed() != first {
				return true
			}
		}
	}
	if awaitAnother(2 * probeSoon) {
		t.Error("etcd is asked whether it serves though it has, and no connection went")
	}
	c.dialer.closeAll()
	if !awaitAnother(20 * probeSoon) {
		t.Error("etcd is not asked though the connection went")
	}
}

func (h *health) lastServed() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.served
}

// closeAll ends all connections, as a break does.
func (d *dialer) closeAll() {
	d.mu.Lock()
	var all []net.Conn
	for c := range d.conns {
		all = append(all, c.Conn)
	}
	d.mu.Unlock()
	for _, c := range all {
		c.Close()
	}
}
