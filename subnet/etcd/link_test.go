//go:build linux

package etcd_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// link is the network between stores and an etcd: a relay that can be cut, and can speak TLS for it.
type link struct {
	t        *testing.T
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu    sync.Mutex
	down  bool
	conns map[net.Conn]struct{}
}

// newLink relays to an etcd. With settings it is the TLS server.
func newLink(t *testing.T, endpoint string, settings *tls.Config) *link {
	t.Helper()
	target, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if settings != nil {
		listener = tls.NewListener(listener, settings)
	}
	l := &link{t: t, listener: listener, target: target.Host, conns: map[net.Conn]struct{}{}}
	l.wg.Go(l.serve)
	t.Cleanup(func() {
		listener.Close()
		l.cut()
		l.wg.Wait()
	})
	return l
}

func (l *link) address() string { return l.listener.Addr().String() }

// cut closes all connections and lets none through until mend.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	for c := range l.conns {
		c.Close()
	}
}

func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}

// add reports whether the link carries c.
func (l *link) add(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		c.Close()
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *link) remove(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	c.Close()
}

func (l *link) serve() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		if !l.add(near) {
			continue
		}
		l.wg.Go(func() { l.relay(near) })
	}
}

func (l *link) relay(near net.Conn) {
	defer l.remove(near)
	far, err := net.Dial("tcp", l.target)
	if err != nil || !l.add(far) {
		return
	}
	defer l.remove(far)
	l.wg.Go(func() {
		io.Copy(near, far)
		near.Close()
	})
	io.Copy(far, near)
}
