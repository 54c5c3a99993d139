//go:build linux

package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tulle/internal/lab"
	"tulle/ip"
)

// Config says what is measured.
type Config struct {
	Backend  string      `json:"backend"` // "vxlan" or "host-gw"
	Families []ip.Family `json:"-"`
	Peers    int         `json:"peers"`
	Rounds   int         `json:"rounds"` // what is quick is measured so often, and the median counts
	// Changes is how many peers come, one at a time, and go. Default 100.
	Changes int `json:"-"`
	// Churn is for how long leases are written again and again, Idle for how long nothing happens. Default 10 s and 1 min,
	// in which there are two resyncs.
	Churn, Idle time.Duration `json:"-"`
	// ForeignRoutes is how many routes that concern no peer another program changes per second, for as long as nothing else happens.
	ForeignRoutes int `json:"foreignRoutes,omitempty"`
	// VethChurn is how many veth pairs another program makes, attaches to the bridge of containers and deletes per second, for as long again.
	VethChurn int `json:"vethChurn,omitempty"`
	// ForeignRules is how many rules another program has in a chain of nftables that forwarded packets pass.
	ForeignRules int `json:"foreignRules,omitempty"`
	// OddLeases is how many leases there are besides whose subnets are smaller than the network's.
	OddLeases int `json:"oddLeases,omitempty"`
	// FastPath is the value of tulled's --fast-path. Default auto.
	FastPath string `json:"fastPath,omitempty"`
	// Tulled and Tulle are the paths of the two programs.
	Tulled, Tulle string `json:"-"`
	// Progress is told of each step. May be nil.
	Progress func(string) `json:"-"`
}

// Check names the field that is wrong, and the remedy.
func (c Config) Check() error {
	switch {
	case c.Backend != "vxlan" && c.Backend != "host-gw":
		return fmt.Errorf("--backend is %q, must be vxlan or host-gw", c.Backend)
	case c.Peers < 1 || c.Peers > MaxPeers:
		return fmt.Errorf("--peers is %d, must be 1 to %d", c.Peers, MaxPeers)
	case c.ForeignRoutes < 0 || c.ForeignRoutes > MaxForeignRoutes:
		return fmt.Errorf("--foreign-routes is %d, must be 0 to %d", c.ForeignRoutes, MaxForeignRoutes)
	case c.VethChurn < 0 || c.VethChurn > MaxVethChurn:
		return fmt.Errorf("--veth-churn is %d, must be 0 to %d", c.VethChurn, MaxVethChurn)
	case c.ForeignRules < 0 || c.ForeignRules > MaxForeignRules:
		return fmt.Errorf("--foreign-rules is %d, must be 0 to %d", c.ForeignRules, MaxForeignRules)
	case c.OddLeases < 0 || c.OddLeases > MaxOdd:
		return fmt.Errorf("--odd-leases is %d, must be 0 to %d", c.OddLeases, MaxOdd)
	case c.Rounds < 1:
		return fmt.Errorf("--rounds is %d, must be 1 or more", c.Rounds)
	}
	return nil
}

func (c Config) complete() Config {
	c.Changes = cmp.Or(c.Changes, 100)
	c.Churn, c.Idle = cmp.Or(c.Churn, 10*time.Second), cmp.Or(c.Idle, time.Minute)
	return c
}

// world is one host, an etcd, and leases.
type world struct {
	config Config
	lab    *lab.Lab
	host   *lab.Host
}

func newWorld(ctx context.Context, config Config) (*world, error) {
	l, err := lab.New(ctx, lab.Config{
		Hosts: 1, Families: config.Families, Network: overlay, Backend: map[string]any{"Type": config.Backend},
		Tulled: config.Tulled, Tulle: config.Tulle, FastPath: cmp.Or(config.FastPath, "auto"),
	})
	if err != nil {
		return nil, err
	}
	w := &world{config: config.complete(), lab: l, host: l.Hosts[0]}
	if err := w.prepare(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return w, nil
}

func (w *world) prepare(ctx context.Context) error {
	if err := flatten(w.host, w.config.Families); err != nil {
		return err
	}
	if err := w.foreignRules(); err != nil {
		return err
	}
	if err := w.lab.Etcd.Start(ctx); err != nil {
		return err
	}
	if err := w.lab.Configure(ctx); err != nil {
		return err
	}
	w.progress("%d leases are written", w.peers())
	return w.writePeers(ctx)
}

// flatten puts the host on the link of all peers.
func flatten(h *lab.Host, families []ip.Family) error {
	link, err := h.Netlink.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("find uplink of %s: %w", h, err)
	}
	for _, f := range families {
		p := underlay.Of(f)
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().Next().AsSlice(), Mask: net.CIDRMask(p.Bits(), f.Bits())}}
		if f == ip.IPv6 {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := h.Netlink.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("add %s to %s: %w", p, h, err)
		}
	}
	return nil
}

func (w *world) peer(n int) peer {
	return peer{number: n, backend: w.config.Backend, families: w.config.Families}
}

// peers is how many there are at the start, the odd ones among them.
func (w *world) peers() int { return w.config.Peers + w.config.OddLeases }

// first returns one of those that there are at the start. The odd ones come last, and their subnets lie beyond all others.
func (w *world) first(n int) peer {
	odd := n - w.config.Peers
	if odd < 0 {
		return w.peer(n)
	}
	p := w.peer(MaxPeers + odd)
	p.half = true
	return p
}

func (w *world) progress(format string, args ...any) {
	if w.config.Progress != nil {
		w.config.Progress(fmt.Sprintf(format, args...))
	}
}

// writePeers writes the leases of all peers.
func (w *world) writePeers(ctx context.Context) error {
	var failed error
	err := w.lab.Etcd.PutAll(ctx, func(yield func(key, value string) bool) {
		for n := range w.peers() {
			p := w.first(n)
			value, err := p.value(1)
			if err != nil {
				failed = err
				return
			}
			if !yield(w.lab.Etcd.Key(p.key()), value) {
				return
			}
		}
	})
	return errors.Join(failed, err)
}
