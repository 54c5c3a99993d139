//go:build linux

package flowtest

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"tulle/internal/api"
	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/ip"
)

const (
	// ruleLimit is how long packets may still pass after the command has returned that put in a rule which drops them.
	ruleLimit = 60 * time.Millisecond

	// admissionLife is how long a flow goes fast without a look at one of its packets.
	admissionLife = time.Second

	// streamRate is of what goes one way, in packets per second.
	streamRate = 100
)

// World is two hosts of a lab, the fast path on: on one the client and another container, on the other the server.
type World struct {
	Lab                     *lab.Lab
	Client, Another, Server *lab.Container

	// Few has each rule tried by one tool in one place: for worlds that differ from one in which all are by what does not concern rules.
	Few bool

	port uint16 // that a client has used last
}

// Row is something more that is to hold in a world.
type Row struct {
	Name string
	Hold func(*testing.T)
}

// Require requires that rules make of flows the same with the fast path as without it, that those which they leave alone are fast, and that nothing
// of it concerns a stream that goes one way meanwhile.
func (w *World) Require(t *testing.T, more ...Row) {
	for _, f := range w.families() {
		startEcho(t, w.Client, f)
		startEcho(t, w.Server, f)
	}
	for _, row := range more { // some count what is fast
		t.Run(row.Name, row.Hold)
	}
	oneWay := w.startOneWay(t)
	t.Run("translated", w.requireTranslated)
	t.Run("outside", w.requireOutside)
	t.Run("dropped", w.requireDropped)
	t.Run("invalid", w.requireInvalid)
	w.requireOneWay(t, oneWay)
}

func (w *World) families() []ip.Family { return w.Lab.Config.Families }

// hosts are the client's and the server's.
func (w *World) hosts() [2]*lab.Host { return [2]*lab.Host{w.Client.Host, w.Server.Host} }

// newPort is one that no client has used.
func (w *World) newPort() uint16 {
	const first = 20000
	w.port = max(w.port, first) + 1
	return w.port
}

func (w *World) echo(c *lab.Container, f ip.Family) netip.AddrPort {
	return netip.AddrPortFrom(c.Addr.Of(f), echoPort)
}

// size is that of a transfer in bytes, where all is tried or few.
func (w *World) size(all int) int {
	if w.Few {
		return all / 4
	}
	return all
}

// FastBytes are those that a function has go fast on the client's host and on the server's, in both directions.
func (w *World) FastBytes(t testing.TB, do func()) (bytes [2]uint64) {
	t.Helper()
	var was [2]ip.FastPathState
	for i, h := range w.hosts() {
		was[i] = labtest.FastPath(t, h)
	}
	do()
	for i, h := range w.hosts() {
		is := labtest.FastPath(t, h)
		bytes[i] = is.Out.FastBytes - was[i].Out.FastBytes + is.In.FastBytes - was[i].In.FastBytes
	}
	return bytes
}

// masquerade is the name of the translation that gives one container the address of another.
const masquerade = "masquerade"

// translation is of the packets that a container sends to an address, on one of the hosts.
type translation struct {
	name string
	at   int // index of the host
	from *lab.Container
	to   ip.Dual[netip.Addr]
	rule func(f ip.Family, to netip.Addr) rule
}

func (w *World) translations(t testing.TB) []translation {
	t.Helper()
	env, err := w.Server.Host.ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	var unused ip.Dual[netip.Addr]
	for _, f := range w.families() {
		addr := env.Subnets.Of(f).Addr()
		for range 200 {
			addr = addr.Next()
		}
		unused.Set(f, addr)
	}
	service := func(f ip.Family, to netip.Addr) rule {
		return rule{table: "nat", chain: "PREROUTING", to: to, then: "dnat", as: w.Server.Addr.Of(f)}
	}
	masqueraded := func(f ip.Family, to netip.Addr) rule {
		return rule{table: "nat", chain: "POSTROUTING", from: w.Another.Addr.Of(f), to: to, then: "snat", as: w.Client.Addr.Of(f)}
	}
	services := ip.Dual[netip.Addr]{V4: netip.MustParseAddr("10.96.0.1"), V6: netip.MustParseAddr("fd10:96::1")}
	return []translation{
		{"service on the client's host", 0, w.Client, services, service},
		{"service on the server's host", 1, w.Client, unused, service},
		{masquerade, 0, w.Another, w.Server.Addr, masqueraded},
	}
}

// tooled is a translation by a program.
type tooled struct {
	translation
	tool string
}

// requireTranslated has flows reach the server by translations and directly at once, from the same address and port as the server sees them. Each gets
// its own bytes back, and on the host that translates, those of translated flows are never fast.
func (w *World) requireTranslated(t *testing.T) {
	var few []tooled
	for i, tool := range []string{"iptables", "nft"} {
		for j, tr := range w.translations(t) {
			if !w.Few {
				t.Run(tool+"/"+tr.name, func(t *testing.T) { w.requireTranslatedBy(t, tooled{tr, tool}) })
			} else if i == j%2 {
				few = append(few, tooled{tr, tool})
			}
		}
	}
	if w.Few {
		w.requireTranslatedBy(t, few...)
	}
}

func (w *World) requireTranslatedBy(t testing.TB, all ...tooled) {
	t.Helper()
	var flows []*flow
	for i, tr := range all {
		for j, f := range w.families() {
			putRule(t, w.hosts()[tr.at], tr.tool, f, tr.rule(f, tr.to.Of(f)))
			for k, network := range []string{"udp", "tcp"} {
				if w.Few && (i+j+k)%2 != 0 { // else there are more packets than a small machine can send
					continue
				}
				port := w.newPort()
				flows = append(flows, startFlow(t, tr.from, network, port, netip.AddrPortFrom(tr.to.Of(f), echoPort)),
					startFlow(t, w.Client, network, port, w.echo(w.Server, f)))
			}
		}
	}
	// On a busy machine fewer packets than one each flowPeriod are sent.
	began := time.Now()
	flows[0].await(t, "packets come back", func() bool { return flows[0].echoed.Load() > 100 && time.Since(began) > 2*admissionLife })
	stopAll(t, flows)
	size := w.size(32 << 20)
	for _, tr := range all {
		for _, f := range w.families() {
			fast := w.FastBytes(t, func() {
				requireEcho(t, tr.from, w.newPort(), netip.AddrPortFrom(tr.to.Of(f), echoPort), size)
			})
			// The chain of iptables comes after that of tulled, which keeps the source of what goes from container to container.
			kept := tr.name == masquerade && tr.tool == "iptables"
			enough := uint64(size * 2 * 95 / 100)
			here, there := fast[tr.at], fast[1-tr.at]
			if kept != (here > enough) || !kept && here > uint64(size/20) || there < enough {
				t.Errorf("%s by %s: of %d bytes there and back over %s, %d are fast on %s, and %d on the other host: want nearly all there, and here too: %t",
					tr.name, tr.tool, size, f, here, w.hosts()[tr.at], there, kept)
			}
		}
	}
}

// startFlows starts one of each protocol and family, from the client to the server.
func (w *World) startFlows(t testing.TB) (flows []*flow) {
	t.Helper()
	for _, f := range w.families() {
		for _, network := range []string{"udp", "tcp"} {
			flows = append(flows, startFlow(t, w.Client, network, w.newPort(), w.echo(w.Server, f)))
		}
	}
	return flows
}

// awaitFast waits until packets of the flows are fast on both hosts, there and back.
func (w *World) awaitFast(t testing.TB, flows []*flow) {
	t.Helper()
	for _, h := range w.hosts() {
		was := fastPackets(t, h)
		retry(t, fmt.Sprintf("flows are fast on %s", h), func() error {
			is := fastPackets(t, h)
			for _, f := range flows {
				for _, name := range f.names(h == w.Server.Host) {
					if is[name] < was[name]+10 {
						return fmt.Errorf("%s: %d packets, after %d", name, is[name], was[name])
					}
				}
			}
			return nil
		})
	}
}

// retry tries until a deadline.
func retry(t testing.TB, what string, try func() error) {
	t.Helper()
	for deadline := time.Now().Add(timeout); ; <-time.After(20 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, timeout, err)
		}
	}
}

// fastPackets are those of each flow that takes the fast path now.
func fastPackets(t testing.TB, h *lab.Host) map[string]uint64 {
	t.Helper()
	packets := map[string]uint64{}
	for _, f := range fastFlows(t, h) {
		packets[flowName(f.In, f.Protocol, f.Src, f.Dst)] = f.Packets
	}
	return packets
}

func fastFlows(t testing.TB, h *lab.Host) []ip.FastFlow {
	t.Helper()
	flows, err := api.NewClient(filepath.Dir(h.Socket())).Flows(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return flows
}
