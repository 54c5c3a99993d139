package etcdtransport

import (
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
)

func TestIsOwnAddress(t *testing.T) {
	var own []netip.Addr
	for _, text := range []string{"127.0.0.1", "192.0.2.1", "fe80::1", "2001:db8::1"} {
		own = append(own, netip.MustParseAddr(text))
	}
	for text, want := range map[string]bool{
		"192.0.2.1:1":          true,
		"[::ffff:192.0.2.1]:1": true,
		"192.0.2.2:1":          false,
		"[2001:db8::1]:1":      true,
		"[2001:db8::2]:1":      false,
		"[fe80::1%1]:1":        true,
		"127.0.0.9:1":          true,
		"[::1]:1":              true,
	} {
		local, err := net.ResolveTCPAddr("tcp", text)
		if err != nil {
			t.Fatal(err)
		}
		if got := isOwnAddress(local, own); got != want {
			t.Errorf("isOwnAddress(%s) = %t, want %t", text, got, want)
		}
	}
}

func TestHostAddresses(t *testing.T) {
	addrs, err := hostAddresses()
	if err != nil || !slices.Contains(addrs, netip.AddrFrom4([4]byte{127, 0, 0, 1})) {
		t.Errorf("addresses of this host: %v, %v; want 127.0.0.1 among them", addrs, err)
	}
}

// homeless is a connection from an address that this host does not have.
type homeless struct{ net.Conn }

func (homeless) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1} }

func TestConnectionsFromGoneAddressesAreClosed(t *testing.T) {
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "etcd.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	d := newDialer()
	stays, err := d.dial(t.Context(), "unix://"+listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer stays.Close()
	near, far := net.Pipe()
	defer far.Close()
	goes := &conn{homeless{near}, d}
	d.conns[goes] = struct{}{}
	d.closeHomeless()
	if _, err := goes.Write(nil); err == nil {
		t.Error("a connection from an address that is gone stays open")
	}
	if _, err := stays.Write([]byte("x")); err != nil {
		t.Errorf("another is closed: %v", err)
	}
	if len(d.conns) != 1 {
		t.Errorf("%d connections are known, want 1", len(d.conns))
	}
}
