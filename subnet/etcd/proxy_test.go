//go:build linux

package etcd_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"tulle/internal/etcdmember"
	"tulle/internal/etcdmember/etcdmembertest"
	"tulle/subnet"
	"tulle/subnet/etcd"
	"tulle/subnet/subnettest"
)

// TestStoreBehindProxy has "etcd grpc-proxy" between the stores and etcd. What the tests themselves do to etcd goes past it.
func TestStoreBehindProxy(t *testing.T) {
	endpoints := etcdmembertest.Start(t).Endpoints()
	proxy := etcdmembertest.StartProxy(t, "127.0.0.1:0", endpoints)
	t.Cleanup(proxy.Close)
	var names prefixes
	subnettest.RunInKeys(t, func(t *testing.T, test func(*testing.T, subnettest.KeyHarness)) {
		t.Parallel()
		h := newHarness(t, etcd.Config{Endpoints: endpoints, Prefix: names.next(), HoldbackTime: 2 * time.Second, QuestionWait: 3 * time.Second})
		h.config.Endpoints = []string{proxy.Endpoint()}
		test(t, h)
	})
}

// proxied are hosts behind one proxy.
type proxied struct {
	t      *testing.T
	member *etcdmember.Member
	config etcdmember.Config
	wire   *link // from the proxy to etcd
	proxy  *etcdmembertest.Proxy
	raw    *harness // past the proxy
	held   []subnet.Held
	sets   []<-chan subnet.Set
}

func newProxied(t *testing.T, hosts int) *proxied {
	p := &proxied{t: t, config: etcdmember.Config{DataDir: etcdmembertest.ScratchDir(t)}}
	p.member = etcdmembertest.Restart(t, p.config)
	t.Cleanup(func() { p.member.Close() })
	p.config.ListenClientURLs = p.member.Endpoints()
	p.wire = newLink(t, p.member.Endpoints()[0], nil)
	p.startProxy("127.0.0.1:0")
	t.Cleanup(func() { p.proxy.Close() })
	p.raw = newHarness(t, etcd.Config{Endpoints: p.member.Endpoints(), Prefix: "/net"})
	p.raw.Put("config", networkConfig, 0)
	h := newHarness(t, etcd.Config{
		Endpoints: []string{p.proxy.Endpoint()}, Prefix: "/net",
		RequestTimeout: 2 * time.Second, ProbeInterval: 500 * time.Millisecond, HoldbackTime: 2 * time.Second,
	})
	p.held = make([]subnet.Held, hosts)
	var wg sync.WaitGroup
	for n := range hosts {
		s := h.opened()
		p.sets = append(p.sets, follow(t, s))
		wg.Go(func() {
			var err error
			if p.held[n], err = s.Acquire(t.Context(), claimOf(n)); err != nil {
				t.Error(err)
			}
		})
	}
	if wg.Wait(); t.Failed() {
		t.FailNow()
	}
	return p
}

func (p *proxied) startProxy(address string) {
	p.proxy = etcdmembertest.StartProxy(p.t, address, []string{"http://" + p.wire.address()})
}

// all waits until each host has a set with what.
func (p *proxied) all(what string, ok func(subnet.Set) bool) {
	p.t.Helper()
	for _, sets := range p.sets {
		until(p.t, sets, what, ok)
	}
}

// keys are the subnets that the hosts hold. No two are the same.
func (p *proxied) keys() []string {
	p.t.Helper()
	var keys []string
	owner := map[string]int{}
	for n, h := range p.held {
		key := subnet.KeyOf(h.Lease().Subnets)
		if other, taken := owner[key]; taken {
			p.t.Errorf("hosts %d and %d both have %s", n, other, key)
		}
		owner[key] = n
		keys = append(keys, key)
	}
	return keys
}

// free returns a key that is not among those taken, and adds it.
func free(taken *[]string) string {
	for n := 1; ; n++ {
		if key := fmt.Sprintf("10.5.%d.0-24", n); !slices.Contains(*taken, key) {
			*taken = append(*taken, key)
			return key
		}
	}
}

// lost reports whether a host was told that its lease is lost.
func (p *proxied) lost(n int, patience time.Duration) bool {
	p.t.Helper()
	select {
	case err := <-p.held[n].Lost():
		if !errors.Is(err, subnet.ErrLost) {
			p.t.Errorf("host %d: Lost = %v", n, err)
		}
		return true
	case <-time.After(patience):
		return false
	}
}

func TestFleetBehindProxy(t *testing.T) {
	const hosts = 30
	p := newProxied(t, hosts)
	keys := p.keys()
	p.all("all leases", leases(hosts))
	p.raw.Put("subnets/"+free(&keys), flanneldValue, time.Hour)
	p.all("one lease more", leases(hosts+1))

	// While the proxy is away, one lease comes and another is taken over.
	p.proxy.Close()
	p.raw.Put("subnets/"+free(&keys), flanneldValue, time.Hour)
	p.raw.Put("subnets/"+keys[0], flanneldValue, time.Hour)
	p.startProxy(p.proxy.Address())
	p.all("what came while the proxy was away", func(set subnet.Set) bool { return len(set.Leases) == hosts+2 && owned(set) == hosts-1 })
	if !p.lost(0, 10*time.Second) {
		t.Error("host 0 was not told that its lease is another's")
	}
	for n := 1; n < hosts; n++ {
		if p.lost(n, 0) {
			t.Errorf("host %d has lost its lease with the proxy", n)
		}
	}

	// Etcd dies and comes back empty: hosts make anew what they hold.
	p.wire.cut()
	p.member.Close()
	p.config.DataDir = etcdmembertest.ScratchDir(t)
	p.member = etcdmembertest.Restart(t, p.config)
	p.wire.mend()
	p.all("the leases made anew", func(set subnet.Set) bool { return len(set.Leases) == hosts-1 && owned(set) == hosts-1 })
	if now := p.keys(); !slices.Equal(now, keys[:hosts]) {
		t.Errorf("subnets = %v, want those from before: %v", now, keys[:hosts])
	}
}

// owned counts the leases of Tulle's hosts.
func owned(set subnet.Set) (n int) {
	for _, l := range set.Leases {
		if l.Attrs.Node != "" {
			n++
		}
	}
	return n
}
