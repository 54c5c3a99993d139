// Package webtest has networks in memory for the page to show, and tests of the page in a real browser.
package webtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"tulle/internal/agent"
	"tulle/internal/web"
	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/flannel"
	"tulle/subnet/subnettest"
)

// Canary is in everything that is secret.
const Canary = "canary-that-sings"

// Network is a store in memory with hosts that do not run. Its methods may be called while the page looks at it.
type Network struct {
	*subnettest.Store

	mu         sync.Mutex
	complaints map[string]subnet.Complaint // by node
	unreadable []subnet.Problem
	away       error // why the store does not answer
	asked      int   // how often it was asked for complaints
	status     *agent.Status
	peers      agent.PeerReports
}

var (
	_ web.Store  = (*Network)(nil)
	_ web.Daemon = (*Network)(nil)
)

// NewNetwork returns one with hosts h1, h2, ..., dual-stack. Up to 200 of them have subnets of a /16, more those of a /11.
func NewNetwork(hosts int) *Network {
	n := &Network{Store: subnettest.NewStore(), complaints: map[string]subnet.Complaint{}}
	config := `{"Network":"10.32.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:5::/48","Backend":{"Type":"vxlan","PSK":"` + Canary + `"}}`
	if hosts > 200 {
		config = strings.Replace(config, "/16", "/11", 1)
	}
	n.Put("config", config, 0)
	for i := 1; i <= hosts; i++ {
		n.PutHost(i)
	}
	return n
}

// Subnets are those of the i-th host.
func Subnets(i int) subnet.Subnets {
	return subnet.Subnets{
		V4: netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", 32+i/256, i%256)),
		V6: netip.MustParsePrefix(fmt.Sprintf("fc00:5:0:%x::/64", 16*i)),
	}
}

// Lease is the key of the i-th host's lease.
func Lease(i int) string { return subnet.KeyOf(Subnets(i)) }

// PutHost writes the lease of the i-th host.
func (n *Network) PutHost(i int) {
	n.PutLease(Lease(i), subnet.Attrs{
		Node: fmt.Sprintf("h%d", i), Instance: "run-" + Canary, BackendType: "vxlan",
		Public:      ip.Dual[netip.Addr]{V4: netip.AddrFrom4([4]byte{192, 168, byte(i / 256), byte(i % 256)}), V6: netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i))},
		Probe:       subnet.Probe{Port: 8473, Key: subnet.ProbeKey([]byte(Canary))},
		BackendData: ip.Dual[json.RawMessage]{V4: json.RawMessage(`{"Secret":"` + Canary + `"}`)},
		Extra:       map[string]json.RawMessage{"Token": json.RawMessage(`"` + Canary + `"`)},
	})
}

// PutLease writes a lease.
func (n *Network) PutLease(key string, attrs subnet.Attrs) {
	subnets, err := subnet.ParseKey(key)
	if err != nil {
		panic(err)
	}
	value, err := flannel.EncodeLease(subnets, attrs)
	if err != nil {
		panic(err)
	}
	n.Put("subnets/"+key, value, 24*time.Hour)
}

// Break has the i-th host say that packets to others do not arrive over the fabric, in IPv4.
func (n *Network) Break(i int, state string, others ...int) {
	c := subnet.Complaint{Node: fmt.Sprintf("h%d", i), Lease: Lease(i)}
	for _, other := range others {
		p := subnet.BadPeer{Lease: Lease(other), Node: fmt.Sprintf("h%d", other), Family: "ipv4", Way: "fabric", State: state}
		if state == "narrow" {
			p.Size, p.Full = 1350, 1450
		}
		c.Peers = append(c.Peers, p)
	}
	n.Complain(c)
}

// Complain writes a complaint.
func (n *Network) Complain(c subnet.Complaint) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.complaints[c.Node] = c
}

// Mend takes back what the i-th host says.
func (n *Network) Mend(i int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.complaints, fmt.Sprintf("h%d", i))
}

// Away has the store not answer; nil: it does.
func (n *Network) Away(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.away = err
}

// SetUnreadable has complaints that make no sense.
func (n *Network) SetUnreadable(ps ...subnet.Problem) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.unreadable = ps
}

// Asked is how often the store was asked for complaints.
func (n *Network) Asked() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked
}

// Run has a tulled on this host.
func (n *Network) Run(st agent.Status, peers agent.PeerReports) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.status, n.peers = &st, peers
}

// Complaints implements web.Store.
func (n *Network) Complaints(context.Context) ([]subnet.Complaint, []subnet.Problem, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	var list []subnet.Complaint
	for _, node := range slices.Sorted(maps.Keys(n.complaints)) {
		list = append(list, n.complaints[node])
	}
	return list, n.unreadable, n.away
}

// ConfigKey implements web.Store.
func (n *Network) ConfigKey() string { return "config" }

// Config implements web.Store.
func (n *Network) Config(context.Context) ([]byte, subnet.Revision, error) {
	n.mu.Lock()
	away := n.away
	n.mu.Unlock()
	if text, _, ok := n.Get("config"); ok && away == nil {
		return []byte(text), 0, nil
	}
	return nil, 0, away
}

// Status implements web.Daemon.
func (n *Network) Status(context.Context) (agent.Status, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.status == nil {
		return agent.Status{}, errors.New("no tulled answers on /run/tulle/tulled.sock: start it, or name its --run-dir")
	}
	return *n.status, nil
}

// Peers implements web.Daemon.
func (n *Network) Peers(context.Context) (agent.PeerReports, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.peers, nil
}
