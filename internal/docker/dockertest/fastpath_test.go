//go:build linux

package dockertest_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tulle/internal/api"
	"tulle/internal/docker/dockertest"
	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/ip"
)

const (
	// ruleLimit is how long packets may still pass after the command has returned that put in a rule which drops them.
	ruleLimit = 60 * time.Millisecond

	// silence is for how long nothing has come when a flow counts as stopped.
	silence = 300 * time.Millisecond

	// admissionLife is how long a flow goes fast without a look at one of its packets.
	admissionLife = time.Second
)

// fastWorld is two hosts with a Docker network on the fabric, and the fast path on. On the first are the client and another container, on the second is
// the server.
type fastWorld struct {
	lab                     *lab.Lab
	machines                []*dockertest.Machine
	web, beside, remote     *container
	client, another, server *lab.Container
	port                    uint16 // that a client has used last
}

// What rules, those of Docker among them, make of flows is the same with the fast path: and those that they leave alone are fast.
func TestFastPath(t *testing.T) {
	for _, e := range engines(t) {
		t.Run(e.name, func(t *testing.T) {
			w := newFastWorld(t, e)
			requireTransfer(t, w.web, w.remote)
			requireTransfer(t, w.remote, w.web)
			oneWay := w.startOneWay(t)
			t.Run("translated", w.requireTranslated)
			t.Run("published", w.requirePublishedSlow)
			t.Run("outside", w.requireOutside)
			t.Run("dropped", w.requireDropped)
			t.Run("invalid", w.requireInvalid)
			w.requireOneWay(t, oneWay)
			requireTransfer(t, w.web, w.remote)
		})
	}
}

func newFastWorld(t *testing.T, e engine) *fastWorld {
	t.Helper()
	w := &fastWorld{lab: upLab(t, 2), port: 20000}
	w.machines = newMachines(t, w.lab, e)
	for _, m := range w.machines {
		m.Run(t, "tulle", "docker", "network", "create", "fabric")
		if e.nftables {
			writeDaemonJSON(t, m, `{"firewall-backend":"nftables", "bridge-accept-fwmark": "0x2000/0x2000"}`)
			m.RestartDocker(t)
		}
	}
	w.web, w.remote = runContainer(t, w.machines[0], "fabric", "web"), runContainer(t, w.machines[1], "fabric", "web")
	w.beside = &container{Machine: w.machines[0], name: "beside"}
	w.beside.Run(t, "docker", "run", "--detach", "--init", "--name="+w.beside.name, "--network=fabric", dockertest.Image)
	w.beside.inspect(t, "fabric")
	if st := labtest.FastPath(t, w.web.Host); !st.On {
		if os.Getenv("CI") == "" {
			t.Skipf("needs a fast path: %s", st.Reason)
		}
		t.Fatalf("the fast path is off: %s", st.Reason)
	}
	for _, c := range []*container{w.web, w.beside, w.remote} {
		c.Retry(t, healTimeout, "the fast path leads to "+c.name, func() error {
			want := map[bool]int{true: 2, false: 1}[c.Machine == w.machines[0]]
			if st := labtest.FastPath(t, c.Host); st.Ports != want || st.Failed != "" || st.Partly != "" {
				return fmt.Errorf("it is %+v, want %d ports", st, want)
			}
			return nil
		})
	}
	w.client, w.another, w.server = w.web.open(t), w.beside.open(t), w.remote.open(t)
	for _, f := range ip.Families() {
		startEcho(t, w.client, f)
		startEcho(t, w.server, f)
	}
	return w
}

// newPort is one that no client has used.
func (w *fastWorld) newPort() uint16 {
	w.port++
	return w.port
}

func (w *fastWorld) echo(c *lab.Container, f ip.Family) netip.AddrPort {
	return netip.AddrPortFrom(c.Addr.Of(f), echoPort)
}

// fastBytes are those that a function has go fast on each host, in both directions.
func (w *fastWorld) fastBytes(t *testing.T, do func()) (bytes [2]uint64) {
	t.Helper()
	ends := [2]*container{w.web, w.remote}
	var was [2]ip.FastPathState
	for i, c := range ends {
		was[i] = labtest.FastPath(t, c.Host)
	}
	do()
	for i, c := range ends {
		is := labtest.FastPath(t, c.Host)
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

func (w *fastWorld) translations(t *testing.T) []translation {
	t.Helper()
	env, err := w.machines[1].ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	var unused ip.Dual[netip.Addr]
	for _, f := range ip.Families() {
		addr := env.Subnets.Of(f).Addr()
		for range 200 {
			addr = addr.Next()
		}
		unused.Set(f, addr)
	}
	service := func(f ip.Family, to netip.Addr) rule {
		return rule{table: "nat", chain: "PREROUTING", to: to, then: "dnat", as: w.server.Addr.Of(f)}
	}
	masqueraded := func(f ip.Family, to netip.Addr) rule {
		return rule{table: "nat", chain: "POSTROUTING", from: w.another.Addr.Of(f), to: to, then: "snat", as: w.client.Addr.Of(f)}
	}
	services := ip.Dual[netip.Addr]{V4: netip.MustParseAddr("10.96.0.1"), V6: netip.MustParseAddr("fd10:96::1")}
	return []translation{
		{"service on the client's host", 0, w.client, services, service},
		{"service on the server's host", 1, w.client, unused, service},
		{masquerade, 0, w.another, w.server.Addr, masqueraded},
	}
}

// requireTranslated has flows reach the server by a translation and directly at once, from the same address and port as the server sees them. Each gets
// its own bytes back, and on the host that translates, those of translated flows are never fast.
func (w *fastWorld) requireTranslated(t *testing.T) {
	const size = 32 << 20
	for _, tool := range []string{"iptables", "nft"} {
		for _, tr := range w.translations(t) {
			t.Run(tool+"/"+tr.name, func(t *testing.T) {
				for _, f := range ip.Families() {
					putRule(t, w.lab.Hosts[tr.at], tool, f, tr.rule(f, tr.to.Of(f)))
				}
				var flows []*flow
				for _, f := range ip.Families() {
					for _, network := range []string{"udp", "tcp"} {
						port := w.newPort()
						flows = append(flows, startFlow(t, tr.from, network, port, netip.AddrPortFrom(tr.to.Of(f), echoPort)),
							startFlow(t, w.client, network, port, w.echo(w.server, f)))
					}
				}
				flows[0].awaitMore(t, int64(2*admissionLife/flowPeriod))
				stopAll(t, flows)
				for _, f := range ip.Families() {
					fast := w.fastBytes(t, func() {
						requireEcho(t, tr.from, w.newPort(), netip.AddrPortFrom(tr.to.Of(f), echoPort), size)
					})
					// The chain of iptables comes after that of tulled, which keeps the source of what goes from container to container.
					kept := tr.name == masquerade && tool == "iptables"
					here, there := fast[tr.at], fast[1-tr.at]
					if kept != (here > size*2*95/100) || !kept && here > size/20 || there < size*2*95/100 {
						t.Errorf("of %d bytes there and back over %s, %d are fast on %s, and %d on the other host: want nearly all there, and here too: %t", size, f, here, w.lab.Hosts[tr.at], there, kept)
					}
				}
			})
		}
	}
}

// requirePublishedSlow fetches from a published port: by the address of its host and by that of the bridge there, from a container of the other host, from
// one beside and from the container itself.
func (w *fastWorld) requirePublishedSlow(t *testing.T) {
	const size = 16 << 20
	env, err := w.machines[0].ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	w.web.exec(t, "dd", "if=/dev/urandom", "of=/www/part", "bs=1M", fmt.Sprintf("count=%d", size>>20))
	want := strings.Fields(w.web.exec(t, "md5sum", "/www/part"))[0]
	for _, f := range ip.Families() {
		for _, from := range []*container{w.remote, w.beside, w.web} {
			for _, by := range []netip.Addr{w.machines[0].Addr.Of(f), env.Gateway(f).Addr()} {
				fast := w.fastBytes(t, func() {
					url := fmt.Sprintf("http://%s/part", netip.AddrPortFrom(by, 8080))
					if got := from.exec(t, "sh", "-c", "timeout 20 wget -q -O- "+url+" | md5sum"); strings.Fields(got)[0] != want {
						t.Errorf("%s on %s from %s: checksum %s, want %s", url, from, from.name, got, want)
					}
				})
				if fast[0] > size/20 {
					t.Errorf("from %s on %s by %s: %d of %d bytes are fast on the host that translates, want none", from.name, from, by, fast[0], size)
				}
			}
		}
	}
}

// startFlows starts one of each protocol and family, from the client to the server.
func (w *fastWorld) startFlows(t *testing.T) (flows []*flow) {
	t.Helper()
	for _, f := range ip.Families() {
		for _, network := range []string{"udp", "tcp"} {
			flows = append(flows, startFlow(t, w.client, network, w.newPort(), w.echo(w.server, f)))
		}
	}
	return flows
}

// awaitFast waits until packets of the flows are fast on both hosts, there and back.
func (w *fastWorld) awaitFast(t *testing.T, flows []*flow) {
	t.Helper()
	for _, m := range w.machines {
		was := fastPackets(t, m)
		m.Retry(t, healTimeout, "flows are fast", func() error {
			is := fastPackets(t, m)
			for _, f := range flows {
				for _, name := range f.names(m == w.machines[1]) {
					if is[name] < was[name]+10 {
						return fmt.Errorf("%s: %d packets, after %d", name, is[name], was[name])
					}
				}
			}
			return nil
		})
	}
}

// fastPackets are those of each flow that takes the fast path now.
func fastPackets(t *testing.T, m *dockertest.Machine) map[string]uint64 {
	t.Helper()
	packets := map[string]uint64{}
	for _, f := range fastFlows(t, m) {
		packets[flowName(f.In, f.Protocol, f.Src, f.Dst)] = f.Packets
	}
	return packets
}

func fastFlows(t *testing.T, m *dockertest.Machine) []ip.FastFlow {
	t.Helper()
	flows, err := api.NewClient(filepath.Dir(m.Socket())).Flows(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return flows
}

// requireOutside sends to the world outside, masqueraded, while direct flows of the same container are fast.
func (w *fastWorld) requireOutside(t *testing.T) {
	flows := w.startFlows(t)
	w.awaitFast(t, flows)
	for _, f := range ip.Families() {
		for range 10 {
			if got, err := w.lab.SourceOutside(t.Context(), w.client, f); err != nil || got != w.machines[0].Addr.Of(f) {
				t.Errorf("source outside the network is %s (%v), want the host's", got, err)
			}
		}
	}
	w.awaitFast(t, flows)
	stopAll(t, flows)
}

// requireDropped drops what goes from the client to the server. Flows that are fast stop at once, new ones do not begin, and when the rule is gone they go on.
func (w *fastWorld) requireDropped(t *testing.T) {
	for _, place := range [][2]string{{"filter", "FORWARD"}, {"raw", "PREROUTING"}} {
		for _, tool := range []string{"iptables-nft", "iptables-legacy", "nft"} {
			for _, host := range w.lab.Hosts {
				t.Run(fmt.Sprintf("%s by %s on %s", place[1], tool, host), func(t *testing.T) {
					flows := w.startFlows(t)
					w.awaitFast(t, flows)
					var late []*flow // those that begin with the rule there
					done := map[ip.Family]time.Time{}
					var undo []func()
					for _, f := range ip.Families() {
						undo = append(undo, putRule(t, host, tool, f, rule{table: place[0], chain: place[1], from: w.client.Addr.Of(f), to: w.server.Addr.Of(f), then: "drop"}))
						done[f] = time.Now()
						late = append(late, startFlow(t, w.client, "udp", w.newPort(), w.echo(w.server, f)))
					}
					for _, fl := range flows {
						last := fl.awaitSilence(t)
						if took, limit := last.Sub(done[ip.FamilyOf(fl.to.Addr())]), labtest.Limit(ruleLimit); took > limit {
							t.Errorf("%s: packets still come back after %v, want at most %v", fl, took, limit)
						} else {
							t.Logf("%s: the last comes back %v after the rule is in", fl, took)
						}
					}
					for _, fl := range late {
						if n := fl.echoed.Load(); n != 0 {
							t.Errorf("%s: %d packets come back in spite of a rule that was there before", fl, n)
						}
					}
					for _, u := range undo {
						u()
					}
					w.awaitFast(t, append(flows, late...))
				})
			}
		}
	}
}

// requireInvalid drops what connection tracking does not understand, on both hosts. Of connections that it sees little of there is nothing.
func (w *fastWorld) requireInvalid(t *testing.T) {
	const size = 64 << 20
	for _, host := range w.lab.Hosts {
		for _, f := range ip.Families() {
			putRule(t, host, "iptables", f, rule{table: "filter", chain: "FORWARD", invalid: true, then: "drop"})
		}
	}
	for _, f := range ip.Families() {
		for _, ends := range [][2]*lab.Container{{w.client, w.server}, {w.server, w.client}} {
			fast := w.fastBytes(t, func() { w.requireLongConnection(t, ends[0], w.echo(ends[1], f), size) })
			if min(fast[0], fast[1]) < size*2*95/100 {
				t.Errorf("of %d bytes there and back from %s over %s, %d are fast, want nearly all", size, ends[0], f, fast)
			}
		}
	}
	for _, host := range w.lab.Hosts {
		for _, f := range ip.Families() {
			found := false
			for line := range strings.Lines(onHost(t, host, ip.Dual[string]{V4: "iptables", V6: "ip6tables"}.Of(f), "-w", "5", "-nvxL", "FORWARD")) {
				if strings.Contains(line, "ctstate INVALID") {
					found = true
					if strings.Fields(line)[0] != "0" {
						t.Errorf("on %s packets are invalid: %s", host, line)
					}
				}
			}
			if !found {
				t.Errorf("on %s no %s rule drops what is invalid", host, f)
			}
		}
	}
}

// requireLongConnection uses a connection, leaves it for longer than an admission lives, uses it again and ends it.
func (w *fastWorld) requireLongConnection(t *testing.T, from *lab.Container, to netip.AddrPort, size int) {
	t.Helper()
	port := w.newPort()
	conn := dial(t, from, "tcp", port, to)
	requireSame(t, conn, size)
	f := &flow{network: "tcp", from: netip.AddrPortFrom(from.Addr.Of(ip.FamilyOf(to.Addr())), port), to: to}
	began := time.Now()
	for _, m := range w.machines {
		m.Retry(t, healTimeout, "a connection without packets is no longer fast", func() error {
			is := fastPackets(t, m)
			for _, name := range append(f.names(true), f.names(false)...) {
				if n, found := is[name]; found || time.Since(began) < admissionLife {
					return fmt.Errorf("%s: it is, with %d packets, after %v", name, n, time.Since(began))
				}
			}
			return nil
		})
	}
	again := time.Now()
	requireSame(t, conn, 100)
	if took := time.Since(again); took > labtest.Limit(promptly) {
		t.Errorf("%s: after %v of rest, an answer takes %v, want at most %v", f, again.Sub(began), took, labtest.Limit(promptly))
	}
	requireEnds(t, conn)
}

// startOneWay starts a stream of each family that nobody answers.
func (w *fastWorld) startOneWay(t *testing.T) streams {
	t.Helper()
	list := streams{}
	for _, f := range ip.Families() {
		s, err := lab.StartStream(t.Context(), lab.StreamConfig{From: w.another, To: w.server, Family: f, PerSecond: streamRate})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Stop() })
		list[f.String()] = s
	}
	return list
}

// requireOneWay fails the test unless every packet of the streams has come, and nearly all were fast, through all that was done to others beside them.
func (w *fastWorld) requireOneWay(t *testing.T, list streams) {
	t.Helper()
	for i, m := range w.machines {
		flows := fastFlows(t, m)
		for _, f := range ip.Families() {
			var fast uint64
			for _, fl := range flows {
				if fl.In == (i == 1) && fl.Src.Addr() == w.another.Addr.Of(f) && fl.Dst.Addr() == w.server.Addr.Of(f) && fl.Dst.Port() != echoPort {
					fast = fl.Packets
				}
			}
			if received := list[f.String()].Received(); fast < uint64(received)*95/100 {
				t.Errorf("on %s %d packets of a stream over %s are fast, of %d: want nearly all", m, fast, f, received)
			}
		}
	}
	for name, r := range list.stop(t, "one way") {
		if r.Lost > 0 {
			t.Errorf("one way over %s: %s, want none lost", name, r)
		}
	}
}
