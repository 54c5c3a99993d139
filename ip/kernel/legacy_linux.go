package kernel

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"tulle/ip"
	"tulle/ip/kernel/xtables"
)

// legacy holds the connections to the tables of iptables-legacy, opened when a table is first seen.
type legacy struct{ sockets ip.Dual[*xtables.Socket] }

// use calls fn inside the namespace of k with the connection for family f and the tables that exist there; not at all
// if there are none, as on most hosts.
func (l *legacy) use(k *Kernel, f ip.Family, fn func(s *xtables.Socket, tables []string) error) error {
	return k.inside(func() error {
		tables, err := xtables.Names(f)
		if err != nil || len(tables) == 0 {
			return err
		}
		socket := l.sockets.Of(f)
		if socket == nil {
			if socket, err = xtables.Dial(f); err != nil {
				return fmt.Errorf("open %s tables: %w", f, err)
			}
			l.sockets.Set(f, socket)
		}
		return fn(socket, tables)
	})
}

// exists reports whether iptables-legacy has tables in the namespace of k.
func (*legacy) exists(k *Kernel) bool {
	found := false
	for _, f := range ip.Families() {
		_ = k.inside(func() error {
			tables, err := xtables.Names(f)
			found = found || len(tables) > 0
			return err
		})
	}
	return found
}

func (l *legacy) close() error {
	var errs []error
	for _, f := range ip.Families() {
		if s := l.sockets.Of(f); s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// edit changes a table under the lock of iptables-legacy. Edit reports whether there is anything to change; if there
// should be and is not, the error is ENOENT.
func (l *legacy) edit(ctx context.Context, k *Kernel, p ip.Place, edit func(*xtables.Table) bool) error {
	err := error(unix.ENOENT)
	return errors.Join(l.use(k, p.Family, func(s *xtables.Socket, tables []string) error {
		if !slices.Contains(tables, p.Table) {
			return nil
		}
		unlock, lockErr := xtables.Lock(ctx)
		if lockErr != nil {
			err = nil
			return lockErr
		}
		t, readErr := s.Read(p.Table)
		if readErr == nil && edit(t) {
			readErr = s.Replace(t)
			err = nil
		}
		return errors.Join(readErr, unlock())
	}), err)
}

func (k *Kernel) applyLegacyOpening(ctx context.Context, verb ip.Verb, o ip.Opening) error {
	return k.legacy.edit(ctx, k, o.Place, func(t *xtables.Table) bool {
		if verb == ip.Delete {
			return t.Close(o)
		}
		return t.Open(o)
	})
}

func (k *Kernel) deleteLegacyLeftover(ctx context.Context, l ip.Leftover) error {
	return k.legacy.edit(ctx, k, ip.Place(l), func(t *xtables.Table) bool { return t.DeleteChain(l.Chain) })
}

// readLegacy reads the tables of iptables-legacy.
func (rd *reading) readLegacy(k *Kernel) error {
	for _, f := range ip.Families() {
		if err := k.legacy.use(k, f, func(s *xtables.Socket, tables []string) error {
			for _, name := range tables {
				t, err := s.Read(name)
				if err != nil {
					return err
				}
				rd.addLegacy(t.Filters())
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// addLegacy takes in the chains of a table: those that forwarded packets come through, and what a flanneld left.
func (rd *reading) addLegacy(chains []ip.Filter) {
	for _, c := range ip.Reachable(chains) {
		rd.addFilter(c)
	}
	for _, c := range chains {
		if flannelChains()[c.Table] == c.Chain && slices.ContainsFunc(c.Rules, rd.namesNetwork) {
			rd.Owned.Leftovers = append(rd.Owned.Leftovers, ip.Leftover(c.Place))
		}
	}
}

// namesNetwork reports whether a rule names one of our networks.
func (rd *reading) namesNetwork(r ip.FilterRule) bool {
	return slices.Contains(rd.scope.Networks, r.Src.Prefix) || slices.Contains(rd.scope.Networks, r.Dst.Prefix)
}
