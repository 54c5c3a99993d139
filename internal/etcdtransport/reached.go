package etcdtransport

import (
	"context"
	"net/netip"
	"slices"
	"sync"

	"google.golang.org/grpc/stats"
)

// reached remembers at which addresses etcd was reached, and how often.
type reached struct {
	mu    sync.Mutex
	times int
	addrs []netip.Addr
}

// mostReached bounds what is remembered: members that move leave old addresses behind.
const mostReached = 64

// Addresses lists where etcd was reached so far, the latest last.
func (c *Client) Addresses() []netip.Addr {
	c.reached.mu.Lock()
	defer c.reached.mu.Unlock()
	return slices.Clone(c.reached.addrs)
}

// again reports whether more connections were made than the first.
func (r *reached) again() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.times > 1
}

// TagConn implements stats.Handler. It is called for each connection that was made.
func (r *reached) TagConn(ctx context.Context, info *stats.ConnTagInfo) context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.times++
	remote, err := netip.ParseAddrPort(info.RemoteAddr.String())
	if err != nil {
		return ctx // a unix socket
	}
	addr := remote.Addr().Unmap().WithZone("")
	r.addrs = append(slices.DeleteFunc(r.addrs, func(a netip.Addr) bool { return a == addr }), addr)
	r.addrs = r.addrs[max(0, len(r.addrs)-mostReached):]
	return ctx
}

// The rest of stats.Handler is of no interest.

func (*reached) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }
func (*reached) HandleRPC(context.Context, stats.RPCStats)                       {}
func (*reached) HandleConn(context.Context, stats.ConnStats)                     {}
