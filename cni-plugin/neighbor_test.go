//go:build linux

package cniplugin_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"tulle/ip"
	"tulle/ip/kernel/bridge"
)

// soon is how long an answer may take. The kernel gives up on a neighbor that is gone after some 8 s at the earliest.
const soon = 3 * time.Second

// answers reports whether a host turns down a connection to a port where nobody listens, or why it does not.
func answers(addr netip.Addr) error {
	conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(addr, 9).String(), soon)
	if err == nil {
		conn.Close()
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil
	}
	return err
}

// An address that is used again is reached at once, by the host and by a container that knew its former owner.
func TestAddressUsedAgain(t *testing.T) {
	h := newDualHost(t)
	neighbor := newContainer(t, "neighbor")
	h.add(t, neighbor, "eth0", h.conf(nil))
	var before ip.Dual[netip.Prefix]
	for _, id := range []string{"first", "second"} {
		c := newContainer(t, id)
		addrs := h.add(t, c, "eth0", h.conf(nil))
		if id == "first" {
			before = addrs
		} else if addrs != before {
			t.Fatalf("addresses %v, want those of the first again, %v", addrs, before)
		}
		for _, f := range ip.Families() {
			if err := h.ns.Do(func() error { return answers(addrs.Of(f).Addr()) }); err != nil {
				t.Errorf("host to the %s container at %s: %v", id, addrs.Of(f), err)
			}
			neighbor.do(t, func() error {
				if err := answers(addrs.Of(f).Addr()); err != nil {
					t.Errorf("neighbor to the %s container at %s: %v", id, addrs.Of(f), err)
				}
				return nil
			})
		}
		h.must(t, c, "eth0", "DEL", h.conf(nil))
		h.startOver(t)
	}
}

// startOver has host-local hand out the first free address next.
func (h *host) startOver(t *testing.T) {
	t.Helper()
	last, err := filepath.Glob(filepath.Join(h.addresses(), "fabric", "last_reserved_ip.*"))
	for _, path := range last {
		err = errors.Join(err, os.Remove(path))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The gateway of a new bridge answers its first container, which has only just come.
func TestFirstContainerReachesItsGateway(t *testing.T) {
	h, c := newDualHost(t), newContainer(t, "c")
	addrs := h.add(t, c, "eth0", h.conf(nil))
	if err := h.ns.Do(func() error {
		tentative, err := bridge.Tentative("cni0")
		if len(tentative) > 0 {
			t.Errorf("the kernel does not answer for %v yet", tentative)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, f := range ip.Families() {
		c.do(t, func() error {
			gateway := addrs.Of(f).Masked().Addr().Next()
			began := time.Now()
			if err := answers(gateway); err != nil {
				t.Errorf("gateway %s: %v, after %v", gateway, err, time.Since(began))
			}
			return nil
		})
	}
}
