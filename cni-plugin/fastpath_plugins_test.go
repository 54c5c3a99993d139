//go:build linux

package cniplugin_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"

	"tulle/internal/lab"
	"tulle/internal/lab/flowtest"
	"tulle/internal/lab/labtest"
	"tulle/ip"
)

const (
	// transferLarge is of a transfer that is mostly fast, transferSmall of one whose packets are all looked at. In bytes.
	transferLarge, transferSmall = 256 << 20, 8 << 20

	// namePort is where a container tells its name.
	namePort = 5002
	// changeLimit is how long the fast path may take to follow a change: the life of an admission, and a little.
	changeLimit = 1100 * time.Millisecond
	// answersEnough show that a flow is steady. They take half a second.
	answersEnough = 500
)

// Containers that the reference plugins of Debian and the newest ones attach side by side go by the fast path between two hosts, as rules of others leave
// them. Ports that they publish lead to the containers, and an address that is used again leads to the container that has it now.
func TestPluginsByTheFastPath(t *testing.T) {
	needsDebianPlugins(t)
	backends := []string{"vxlan", "host-gw"}
	if testing.Short() { // as under the race detector, which sees nothing of the programs in the kernel
		backends = backends[:1]
	}
	for i, backend := range backends {
		t.Run(backend, func(t *testing.T) {
			w := newPluginsWorld(t, backend)
			// On each host one of the plugins of Debian, and one of the newest, in another order with each backend.
			rows := flowtest.World{Lab: w.lab, Client: w.containers[i].Container, Another: w.containers[1-i].Container, Server: w.containers[3-i].Container, Few: true}
			rows.Require(t, flowtest.Row{Name: "every container", Hold: w.requireAll})
			w.requireReplaced(t)
			w.requireGone(t)
		})
	}
}

// pluginsWorld is two hosts with the fast path, and a container by each plugin on each: by those of Debian, by the newest, and the same of the other host.
type pluginsWorld struct {
	lab          *lab.Lab
	containers   []*attached
	large, small int64 // sizes of transfers: of one that is mostly fast, of one whose packets are all looked at; in bytes
	replaced     int   // containers of the second host
}

func newPluginsWorld(t *testing.T, backend string) *pluginsWorld {
	t.Helper()
	families := ip.Families()
	w := &pluginsWorld{lab: newLabOf(t, families[:], backend), large: transferLarge, small: transferSmall, replaced: 2}
	if backend != "vxlan" { // of which the plugins know nothing
		w.large, w.small, w.replaced = transferLarge/8, transferSmall/8, 1
	}
	if err := w.lab.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := labtest.FastPath(t, w.lab.Hosts[0]); !st.On && os.Getenv("CI") == "" {
		t.Skipf("needs a fast path: %s", st.Reason)
	}
	for i, portmap := range []string{"iptables", "nftables"} {
		h, newest := w.lab.Hosts[i], labHost(t, w.lab.Hosts[i])
		debian := *newest // the same host, by other plugins
		debian.plugins = built().debian
		w.containers = append(w.containers,
			newRuntimeOf(t, &debian, "1.0.0", "").start(h, "debian", 8001), // 1.1.1 knows no newer specification, and no backend but iptables
			newRuntimeOf(t, newest, "1.1.0", portmap).start(h, "newest", 8002))
	}
	for _, h := range w.lab.Hosts {
		awaitFast(t, h, 2)
	}
	return w
}

// requireAll reaches every container from all others: directly, and by the ports that it has published.
func (w *pluginsWorld) requireAll(t *testing.T) {
	for _, from := range w.containers {
		for _, to := range w.containers {
			for _, f := range ip.Families() {
				if from.Host != to.Host {
					requireFast(t, from.Container, to.Container, f, w.large)
				}
			}
		}
	}
	for _, to := range w.containers {
		w.requirePublished(t, to)
	}
}

// requireReplaced has containers of the second host give way to others with the same addresses.
func (w *pluginsWorld) requireReplaced(t *testing.T) {
	t.Helper()
	for i, from := range w.containers[:w.replaced] {
		to := requireReplaced(t, from, w.containers[2+i])
		w.containers[2+i] = to
		awaitFast(t, to.Host, 2)
		for _, f := range ip.Families() {
			requireFast(t, from.Container, to.Container, f, w.large)
			requireFast(t, to.Container, from.Container, f, w.large)
		}
		w.requirePublished(t, to)
	}
}

// requireGone detaches all containers.
func (w *pluginsWorld) requireGone(t *testing.T) {
	t.Helper()
	for _, c := range w.containers {
		c.by.detach(c.attachment)
	}
	for _, c := range w.containers {
		awaitFast(t, c.Host, 0)
		c.by.wantNothingLeft(t)
	}
}

// attached is a container that a runtime has attached, with a port of its host.
type attached struct {
	*lab.Container
	by         *runtime
	attachment *libcni.RuntimeConf
	hostPort   uint16
	asked      *atomic.Int64 // how often it was asked for its name
}

// start attaches a container that tells its name to who asks.
func (r *runtime) start(h *lab.Host, id string, hostPort uint16) *attached {
	r.t.Helper()
	c, asked := newContainer(r.t, id), new(atomic.Int64)
	c.do(r.t, func() error {
		conn, err := net.ListenPacket("udp", fmt.Sprintf(":%d", namePort))
		if err != nil {
			return err
		}
		done := make(chan struct{})
		r.t.Cleanup(func() { conn.Close(); <-done })
		go func() {
			defer close(done)
			for packet := make([]byte, 64); ; {
				_, from, err := conn.ReadFrom(packet)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err == nil {
					asked.Add(1)
					_, _ = conn.WriteTo([]byte(id), from) // who asks asks again
				}
			}
		}()
		return nil
	})
	a := attachmentOf(c, "eth0", map[string]any{"hostPort": hostPort, "containerPort": transferPort, "protocol": "tcp"})
	return &attached{Container: openContainer(r.t, h, c, r.attach(a)), by: r, attachment: a, hostPort: hostPort, asked: asked}
}

// requirePublished reaches a container by its port of the host, at an address of the underlay and at one that is reached over the fabric: from the other
// host, from the containers there, from a neighbor and from itself.
func (w *pluginsWorld) requirePublished(t *testing.T, to *attached) {
	t.Helper()
	env, err := to.Host.ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range ip.Families() {
		host, gateway := netip.AddrPortFrom(to.Host.Addr.Of(f), to.hostPort), netip.AddrPortFrom(env.Gateway(f).Addr(), to.hostPort)
		for _, by := range []netip.AddrPort{host, gateway} {
			for _, h := range w.lab.Hosts {
				if h != to.Host {
					transfer(t, h, to.Container, by, w.small)
				}
			}
			for _, from := range w.containers {
				seen := transfer(t, from, to.Container, by, w.small)
				want := seen // the neighbor's address is translated with iptables only
				switch {
				case from == to:
					want = gateway.Addr() // else it would answer itself past the translation
				case from.Host != to.Host && by == host:
					want = from.Host.Addr.Of(f)
				case from.Host != to.Host:
					want = from.Addr.Of(f)
				}
				if seen != want {
					t.Errorf("%s sees %s by %s as %s, want %s", to, from, by, seen, want)
				}
			}
		}
	}
}

// requireReplaced has a container give way to one with the same addresses, while a container of the other host asks for its name. The new one answers soon,
// and the old one is asked no more.
func requireReplaced(t *testing.T, from, old *attached) *attached {
	t.Helper()
	hosts := []*lab.Host{from.Host, old.Host}
	was := []ip.FastPathState{labtest.FastPath(t, hosts[0]), labtest.FastPath(t, hosts[1])}
	var asking []*questions
	for _, f := range ip.Families() {
		asking = append(asking, ask(t, from, netip.AddrPortFrom(old.Addr.Of(f), namePort)))
	}
	for _, q := range asking {
		q.await(t, old, answersEnough)
	}
	for i, h := range hosts {
		if is := labtest.FastPath(t, h); min(is.Out.FastPackets-was[i].Out.FastPackets, is.In.FastPackets-was[i].In.FastPackets) < answersEnough {
			t.Errorf("on %s fewer than %d questions, or answers, were fast: %+v, was %+v", h, answersEnough, is, was[i])
		}
	}
	old.by.detach(old.attachment)
	old.by.startOver(t)
	fresh := old.by.start(old.Host, old.attachment.ContainerID+"-again", old.hostPort)
	began := time.Now()
	if fresh.Addr != old.Addr {
		t.Fatalf("%s has addresses %v, want those of %s, %v", fresh, fresh.Addr, old, old.Addr)
	}
	for _, q := range asking {
		q.await(t, fresh, 1)
	}
	took, asked := time.Since(began), old.asked.Load()
	t.Logf("%s answers %s after %v", fresh, from, took.Round(time.Millisecond))
	if limit := labtest.Limit(changeLimit); took > limit {
		t.Errorf("%s answers %s after %v, want %v", fresh, from, took, limit)
	}
	for _, q := range asking {
		q.await(t, fresh, answersEnough)
		q.stop()
		delete(q.answers, old.attachment.ContainerID)
		delete(q.answers, fresh.attachment.ContainerID)
		if len(q.answers) > 0 {
			t.Errorf("others answer what is for %s and %s: %v", old, fresh, q.answers)
		}
	}
	if n := old.asked.Load() - asked; n > 0 {
		t.Errorf("%s is asked %d times after %s has taken its place", old, n, fresh)
	}
	return fresh
}

// questions are asked a thousand times a second.
type questions struct {
	stop    func()
	mu      sync.Mutex
	answers map[string]int // how many each container has given
}

func ask(t *testing.T, from *attached, addr netip.AddrPort) *questions {
	t.Helper()
	var conn net.Conn
	if err := from.Do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(t.Context(), "udp", addr.String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	q, done := &questions{answers: map[string]int{}}, make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		ticker := time.NewTicker(time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				_, _ = conn.Write([]byte("?")) // while nobody has the address, it fails
			case <-done:
				return
			}
		}
	})
	running.Go(func() {
		for packet := make([]byte, 64); ; {
			n, err := conn.Read(packet)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				q.mu.Lock()
				q.answers[string(packet[:n])]++
				q.mu.Unlock()
			}
		}
	})
	q.stop = sync.OnceFunc(func() { close(done); conn.Close(); running.Wait() })
	t.Cleanup(q.stop)
	return q
}

// await waits until a container has answered so many questions.
func (q *questions) await(t *testing.T, of *attached, n int) {
	t.Helper()
	count := func() int {
		q.mu.Lock()
		defer q.mu.Unlock()
		return q.answers[of.attachment.ContainerID]
	}
	for deadline := time.Now().Add(labtest.Limit(10 * time.Second)); count() < n; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s has answered %d times, want %d", of, count(), n)
		}
	}
}
