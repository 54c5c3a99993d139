//go:build linux

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

// canary is a lease of no host. Whether it reaches the kernel of each host shows
// that daemons see what changes in etcd, and act.
type canary struct{ key, value, dst string }

const canaryTTL = 60 // seconds

func (w *world) newCanary() (canary, error) {
	var subnets subnet.Subnets
	attrs := subnet.Attrs{BackendType: "vxlan", Node: "canary"}
	for i, family := range ip.Families() {
		subnets.Set(family, nthSubnet(w.lab, family, 99))
		underlay := w.lab.RouterAddr(family, 1).AsSlice()
		underlay[len(underlay)-1] = 99
		public, _ := netip.AddrFromSlice(underlay)
		attrs.Public.Set(family, public)
		attrs.BackendData.Set(family, json.RawMessage(fmt.Sprintf(`{"VNI":1,"VtepMAC":"02:00:00:00:99:%02d"}`, i)))
	}
	value, err := flannel.EncodeLease(subnets, attrs)
	if err != nil {
		return canary{}, err
	}
	return canary{
		key:   w.lab.Etcd.Key("subnets/") + subnet.KeyOf(subnets),
		value: value,
		dst:   subnets.V4.String(),
	}, nil
}

// sing waits until a new lease has reached every kernel.
func (w *world) sing(timeout time.Duration) error {
	c, err := w.newCanary()
	if err != nil {
		return err
	}
	if err := w.await(timeout, func() error { return w.putCanary(c) }); err != nil {
		return fmt.Errorf("put a lease into etcd: %w", err)
	}
	return w.await(timeout, func() error {
		for _, host := range w.hosts {
			now, err := host.DataPlane()
			if err != nil {
				return err
			}
			if !strings.Contains(now, "route "+c.dst+" ") {
				return fmt.Errorf("%s has no route to a host that has just come", host)
			}
		}
		return nil
	})
}

func (w *world) putCanary(c canary) error {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
	defer cancel()
	lease, err := w.etcd.Grant(ctx, canaryTTL)
	if err != nil {
		return err
	}
	_, err = w.etcd.Put(ctx, c.key, c.value, clientv3.WithLease(lease.ID))
	return err
}

// hush removes the canary and waits until the kernels have forgotten it.
func (w *world) hush(timeout time.Duration) error {
	c, err := w.newCanary()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), timeout)
	defer cancel()
	if _, err := w.etcd.Delete(ctx, c.key); err != nil {
		return fmt.Errorf("delete a lease in etcd: %w", err)
	}
	return w.await(timeout, w.converged)
}
