package kernel

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"tulle/ip"
)

// Apply runs the plan. If ctx ends, what was not begun is left out and the error also satisfies
// errors.Is(err, ctx.Err()).
func (k *Kernel) Apply(ctx context.Context, plan ip.Plan) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	a := applier{kernel: k, index: map[string]uint32{}}
	for len(plan) > 0 && ctx.Err() == nil {
		n := peersAhead(plan)
		if n > 0 {
			a.flush()
			a.peers(plan[:n])
		} else {
			n = 1
			a.add(ctx, plan[0])
		}
		plan = plan[n:]
	}
	if err := ctx.Err(); err != nil {
		return errors.Join(err, a.result())
	}
	a.flush()
	return a.result()
}

// applier carries out a plan.
type applier struct {
	kernel *Kernel
	index  map[string]uint32 // of links, by name
	batch  batch
	ops    []ip.Op // the requests of batch
	errs   ip.OpErrors
}

func (a *applier) result() error {
	if len(a.errs) == 0 {
		return nil
	}
	return a.errs
}

func (a *applier) fail(op ip.Op, err error) {
	if err != nil && !(op.Verb == ip.Delete && absent(err)) {
		a.errs = append(a.errs, ip.OpError{Op: op, Err: err})
	}
}

// absent reports whether the kernel refused a deletion because there is nothing to delete.
func absent(err error) bool {
	return errors.Is(err, unix.ESRCH) || // route
		errors.Is(err, unix.ENOENT) || // neighbour, forwarding entry, table, chain
		errors.Is(err, unix.EADDRNOTAVAIL) || // address
		errors.Is(err, unix.ENODEV) // the link of any of them
}

// add carries op out, or puts it into the batch. The order of the plan is kept.
func (a *applier) add(ctx context.Context, op ip.Op) {
	object := op.New
	if op.Verb == ip.Delete {
		object = op.Old
	}
	switch o := object.(type) {
	case ip.Route:
		a.enqueue(op, o.Link, func(link uint32) { encodeRoute(&a.batch, op.Verb, o, link) })
	case ip.UnreachableRoute:
		a.enqueue(op, "", func(uint32) { encodeUnreachable(&a.batch, op.Verb, o) })
	case ip.Neighbor:
		a.enqueue(op, o.Link, func(link uint32) {
			a.kernel.echoes.expect(op.Verb, echo{family: addressFamily(ip.FamilyOf(o.IP)), link: link, dst: o.IP})
			encodeNeighbor(&a.batch, op.Verb, o, link)
		})
	case ip.FDB:
		a.enqueue(op, o.Link, func(link uint32) {
			a.kernel.echoes.expectFDB(op, link)
			encodeFDB(&a.batch, op.Verb, o, link)
		})
	case ip.Addr:
		a.enqueue(op, o.Link, func(link uint32) { encodeAddr(&a.batch, op.Verb, o, link) })
	default:
		a.flush()
		a.fail(op, a.single(ctx, op, object))
	}
}

// single carries out an op of which there are few.
func (a *applier) single(ctx context.Context, op ip.Op, object ip.Object) error {
	k := a.kernel
	switch o := object.(type) {
	case ip.Link:
		clear(a.index)
		have, _ := op.Old.(ip.Link)
		want, _ := op.New.(ip.Link)
		return k.applyLink(op.Verb, want, have)
	case ip.Sysctl:
		if op.Verb != ip.Delete { // a setting exists as long as its link
			return k.inside(func() error { return writeSysctl(o) })
		}
	case ip.Guard:
		return k.nft.use(k, func(*nftables.Conn) error {
			return k.nft.transact(o, func(c *nftables.Conn) error { return replaceGuard(c, op.Verb, o) })
		})
	case ip.Table:
		return k.nft.use(k, func(c *nftables.Conn) error { return replaceTable(c, op.Verb, o) })
	case ip.Opening:
		if o.Engine == ip.IPTables {
			return k.applyLegacyOpening(ctx, op.Verb, o)
		}
		return k.nft.use(k, func(c *nftables.Conn) error { return applyOpening(c, op.Verb, o) })
	case ip.Leftover:
		switch {
		case op.Verb != ip.Delete:
		case o.Engine == ip.IPTables:
			return k.deleteLegacyLeftover(ctx, o)
		default:
			return k.nft.use(k, func(c *nftables.Conn) error { return deleteLeftover(c, o) })
		}
	}
	return fmt.Errorf("%T: %w", object, errors.ErrUnsupported)
}

// enqueue adds a request about something on a link to the batch.
func (a *applier) enqueue(op ip.Op, link string, encode func(link uint32)) {
	index, ok := a.index[link]
	if !ok && link != "" {
		var err error
		if index, err = a.kernel.route.linkIndex(link); err != nil {
			a.fail(op, err)
			return
		}
		a.index[link] = index
	}
	encode(index)
	a.ops = append(a.ops, op)
	if len(a.ops) == maxBatch {
		a.flush()
	}
}

// flush sends the batch. If the connection breaks, the fate of the requests is unknown: they count as failed.
func (a *applier) flush() {
	err := a.kernel.route.exchange(&a.batch, func(i int, _ message, err error) { a.fail(a.ops[i], err) })
	if err != nil {
		for _, op := range a.ops {
			a.errs = append(a.errs, ip.OpError{Op: op, Err: err})
		}
	}
	a.batch.reset()
	a.ops = a.ops[:0]
}

// linkIndex looks a link up by name (netdevice(7)); ENODEV if there is none.
func (s *socket) linkIndex(name string) (uint32, error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(s.fd, unix.SIOCGIFINDEX, request); err != nil {
		return 0, err
	}
	return request.Uint32(), nil
}
