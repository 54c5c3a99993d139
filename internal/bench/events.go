//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routes tells when routes come and go in the host under test.
type routes struct {
	updates chan netlink.RouteUpdate
	done    chan struct{}
}

// followRoutes subscribes in the host's namespace; the buffer takes a burst of 10,000.
func (w *world) followRoutes() (*routes, error) {
	r := &routes{updates: make(chan netlink.RouteUpdate, 1<<16), done: make(chan struct{})}
	err := w.host.Do(func() error {
		return netlink.RouteSubscribeWithOptions(r.updates, r.done, netlink.RouteSubscribeOptions{ReceiveBufferSize: 32 << 20, ReceiveBufferForceSize: true})
	})
	if err != nil {
		return nil, fmt.Errorf("follow routes of %s: %w", w.host, err)
	}
	return r, nil
}

func (r *routes) close() { close(r.done) }

// await returns when a route comes (RTM_NEWROUTE) or goes (RTM_DELROUTE).
func (r *routes) await(ctx context.Context, kind uint16, dst netip.Prefix) (time.Time, error) {
	for deadline := time.After(30 * time.Second); ; {
		select {
		case u, open := <-r.updates:
			if !open {
				return time.Time{}, errors.New("the notifications of the kernel ended")
			}
			if u.Type == kind && u.Dst != nil && prefixOf(u.Dst) == dst {
				return time.Now(), nil
			}
		case <-deadline:
			return time.Time{}, fmt.Errorf("nothing happened to the route to %s in 30 s", dst)
		case <-ctx.Done():
			return time.Time{}, context.Cause(ctx)
		}
	}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	addr, _ := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), ones)
}

// apart is how far changes that come one at a time lie apart, so that they are no churn.
const apart = 50 * time.Millisecond

// changes has new peers come, one at a time.
func (w *world) changes(ctx context.Context, c *Control) error {
	took, err := w.oneByOne(ctx, unix.RTM_NEWROUTE, func(p peer) error { return w.write(ctx, p, 1) })
	c.Change = figure(took)
	return err
}

// losses has them go again.
func (w *world) losses(ctx context.Context, c *Control) error {
	took, err := w.oneByOne(ctx, unix.RTM_DELROUTE, func(p peer) error { return w.lab.Etcd.Delete(ctx, w.lab.Etcd.Key(p.key())) })
	c.Loss = figure(took)
	return err
}

func (w *world) oneByOne(ctx context.Context, kind uint16, do func(peer) error) ([]float64, error) {
	r, err := w.followRoutes()
	if err != nil {
		return nil, err
	}
	defer r.close()
	var took []float64
	ticker := time.NewTicker(apart)
	defer ticker.Stop()
	for i := range w.config.Changes {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		p := w.peer(w.config.Peers + i)
		began := time.Now()
		if err := do(p); err != nil {
			return nil, err
		}
		at, err := r.await(ctx, kind, w.lead(p))
		if err != nil {
			return nil, err
		}
		took = append(took, at.Sub(began).Seconds())
	}
	return took, nil
}

// lead is the prefix of a peer by which its coming and going is told.
func (w *world) lead(p peer) netip.Prefix {
	return p.subnets().Of(w.config.Families[len(w.config.Families)-1])
}

// churnRate is how many leases are written per second.
const churnRate = 100

// churn writes leases again, each with another MAC address or, where there is none, as it is.
func (w *world) churn(ctx context.Context, c *Control) error {
	r, err := w.followRoutes()
	if err != nil {
		return err
	}
	defer r.close()
	measure, err := w.load(ctx)
	if err != nil {
		return err
	}
	ticker := time.NewTicker(time.Second / churnRate)
	defer ticker.Stop()
	count := int(w.config.Churn.Seconds() * churnRate)
	for i := range count {
		if err := w.write(ctx, w.peer(i*7919%w.config.Peers), byte(2+i)); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	last := w.peer(w.config.Peers + w.config.Changes)
	began := time.Now()
	if err := w.write(ctx, last, 1); err != nil {
		return err
	}
	at, err := r.await(ctx, unix.RTM_NEWROUTE, w.lead(last))
	if err != nil {
		return err
	}
	c.Churn, err = measure()
	c.Churn.Lag = at.Sub(began).Seconds()
	return err
}

// settleTime is when what a start leaves has been collected, and its memory been given back.
const settleTime = 20 * time.Second

func (w *world) idle(ctx context.Context, c *Control) error {
	if err := pause(ctx, min(w.config.Idle, settleTime)); err != nil {
		return err
	}
	measure, err := w.load(ctx)
	if err != nil {
		return err
	}
	if err := pause(ctx, w.config.Idle); err != nil {
		return err
	}
	c.Idle, err = measure()
	return err
}

// write writes the lease of a peer.
func (w *world) write(ctx context.Context, p peer, generation byte) error {
	value, err := p.value(generation)
	if err != nil {
		return err
	}
	return w.lab.Etcd.Put(ctx, w.lab.Etcd.Key(p.key()), value)
}
