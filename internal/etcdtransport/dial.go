package etcdtransport

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// dialer knows its connections, to close those whose own address has left this host. Nothing else ends them for ten
// seconds and more: packets still leave, and answers find no way back.
type dialer struct {
	net.Dialer
	addresses func() ([]netip.Addr, error) // of this host
	changed   chan struct{}                // has a token when a connection has come or gone

	mu    sync.Mutex
	conns map[*conn]struct{}
	lost  time.Time // when one last went
}

func newDialer() *dialer {
	return &dialer{addresses: hostAddresses, changed: make(chan struct{}, 1), conns: map[*conn]struct{}{}}
}

type conn struct {
	net.Conn
	dialer *dialer
}

func (c *conn) Close() error {
	c.dialer.mu.Lock()
	delete(c.dialer.conns, c)
	c.dialer.lost = time.Now()
	c.dialer.mu.Unlock()
	c.dialer.signal()
	return c.Conn.Close()
}

// dial connects to HOST:PORT, or to unix:PATH.
func (d *dialer) dial(ctx context.Context, target string) (net.Conn, error) {
	network, address := "tcp", target
	if path, ok := strings.CutPrefix(target, "unix:"); ok {
		network, address = "unix", strings.TrimPrefix(path, "//")
	}
	made, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &conn{made, d}
	d.mu.Lock()
	d.conns[c] = struct{}{}
	d.mu.Unlock()
	d.signal()
	return c, nil
}

func (d *dialer) signal() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// lastLost is when a connection last went; zero if none ever has.
func (d *dialer) lastLost() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lost
}

// unary sees to it that a request does not wait on a connection that is as good as dead.
func (d *dialer) unary(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	d.closeHomeless()
	return invoke(ctx, method, request, reply, cc, options...)
}

func (d *dialer) closeHomeless() {
	own, err := d.addresses()
	if err != nil {
		return // it is only to be faster
	}
	var homeless []*conn
	d.mu.Lock()
	for c := range d.conns {
		if !isOwnAddress(c.LocalAddr(), own) {
			homeless = append(homeless, c)
		}
	}
	d.mu.Unlock()
	for _, c := range homeless {
		// gRPC makes another, and tells the users of this one.
		_ = c.Close()
	}
}

// isOwnAddress reports whether local is an address of this host. Those that need no interface always are.
func isOwnAddress(local net.Addr, own []netip.Addr) bool {
	tcp, ok := local.(*net.TCPAddr)
	if !ok || tcp.IP.IsLoopback() {
		return true
	}
	return slices.Contains(own, tcp.AddrPort().Addr().Unmap().WithZone(""))
}

func hostAddresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			addrs = append(addrs, p.Addr().Unmap())
		}
	}
	return addrs, nil
}
