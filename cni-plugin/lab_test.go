//go:build linux

package cniplugin_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/ip"
)

// newLab builds hosts on which nothing runs yet.
func newLab(t *testing.T, families []ip.Family) *lab.Lab {
	t.Helper()
	return newLabOf(t, families, "vxlan")
}

func newLabOf(t *testing.T, families []ip.Family, backend string) *lab.Lab {
	t.Helper()
	p := built()
	return labtest.New(t, lab.Config{Hosts: 2, Families: families, Backend: map[string]any{"Type": backend}, Tulle: p.tulle, Tulled: p.tulled, FastPath: "on"})
}

// labHost is a host of a lab, as its container runtime sees it.
func labHost(t *testing.T, h *lab.Host) *host {
	t.Helper()
	return &host{ns: h.Namespace(), dir: t.TempDir(), plugins: built().cni, subnetFile: h.SubnetFile(), runDir: filepath.Dir(h.Socket())}
}

// runtime is a container runtime on a host: it goes by the library that they all use, with port mappings after the fabric.
type runtime struct {
	*host
	t    *testing.T
	cni  *libcni.CNIConfig
	list *libcni.NetworkConfigList
}

func newRuntime(t *testing.T, h *host) *runtime {
	t.Helper()
	return newRuntimeOf(t, h, "1.1.0", "iptables")
}

// newRuntimeOf is a runtime that goes by a version of the specification. Its ports are published by backend, where the plugin has more than one.
func newRuntimeOf(t *testing.T, h *host, version, backend string) *runtime {
	t.Helper()
	list, err := libcni.ConfListFromBytes(fmt.Appendf(nil,
		`{"cniVersion":%q,"name":"fabric","plugins":[%s,{"type":"portmap","backend":%q,"capabilities":{"portMappings":true}}]}`, version, h.conf(nil), backend))
	if err != nil {
		t.Fatal(err)
	}
	return &runtime{host: h, t: t, list: list, cni: libcni.NewCNIConfigWithCacheDir([]string{h.plugins}, filepath.Join(h.dir, "cache"), nil)}
}

func attachmentOf(c container, ifname string, ports ...map[string]any) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: c.id, NetNS: c.netns, IfName: ifname, CapabilityArgs: map[string]any{"portMappings": ports}}
}

// do runs fn on the host, and ends the test if it fails.
func (r *runtime) do(fn func() error) {
	r.t.Helper()
	if err := r.ns.Do(fn); err != nil {
		r.t.Fatal(err)
	}
}

func (r *runtime) attach(rt *libcni.RuntimeConf) ip.Dual[netip.Prefix] {
	r.t.Helper()
	var res types.Result
	r.do(func() (err error) {
		res, err = r.cni.AddNetworkList(r.t.Context(), r.list, rt)
		return err
	})
	return addrsIn(r.t, res)
}

func (r *runtime) check(rt *libcni.RuntimeConf) {
	r.t.Helper()
	r.do(func() error { return r.cni.CheckNetworkList(r.t.Context(), r.list, rt) })
}

func (r *runtime) detach(rt *libcni.RuntimeConf) {
	r.t.Helper()
	r.do(func() error { return r.cni.DelNetworkList(r.t.Context(), r.list, rt) })
}

func (r *runtime) status() {
	r.t.Helper()
	r.do(func() error { return r.cni.GetStatusNetworkList(r.t.Context(), r.list) })
}

// namespace is where a socket is opened: a container, or a host.
type namespace interface{ Do(fn func() error) error }

// connect opens a connection to addr. A host that has just started may not know its peers yet, and says so at once: it is asked again.
func connect(from namespace, addr netip.AddrPort) (conn net.Conn, err error) {
	err = from.Do(func() error {
		conn, err = net.DialTimeout("tcp", addr.String(), 5*time.Second)
		for deadline := time.Now().Add(5 * time.Second); errors.Is(err, syscall.EHOSTUNREACH) && time.Now().Before(deadline); {
			conn, err = net.DialTimeout("tcp", addr.String(), 5*time.Second)
		}
		return err
	})
	return conn, err
}

// reach opens a connection to port of addr and returns what it says.
func reach(t *testing.T, from namespace, addr netip.AddrPort) string {
	t.Helper()
	conn, err := connect(from, addr)
	if err != nil {
		t.Errorf("connect to %s: %v", addr, err)
		return ""
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	said := make([]byte, 64)
	n, err := conn.Read(said)
	if err != nil {
		t.Errorf("read from %s: %v", addr, err)
	}
	return string(said[:n])
}

const greeterPort = 80

// greet tells everyone who connects to the container, in every family, what address it sees.
func (c container) greet(t *testing.T) {
	t.Helper()
	var l net.Listener
	c.do(t, func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf(":%d", greeterPort))
		return err
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			addr := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
			fmt.Fprint(conn, addr)
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
}

// Containers that a runtime attaches on two hosts with the real daemon reach each other, and what goes away leaves nothing.
func TestRuntimesOnTwoHosts(t *testing.T) {
	both := ip.Families()
	for name, families := range map[string][]ip.Family{"ipv4": both[:1], "ipv6": both[1:], "dual": both[:]} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, families)
			if err := l.Up(t.Context()); err != nil {
				t.Fatal(err)
			}
			here, there := newRuntime(t, labHost(t, l.Hosts[0])), newRuntime(t, labHost(t, l.Hosts[1]))
			client, server := newContainer(t, "client"), newContainer(t, "server")
			mapping := map[string]any{"hostPort": 8080, "containerPort": greeterPort, "protocol": "tcp"}
			first, second := attachmentOf(client, "eth0"), attachmentOf(client, "net1")
			served := attachmentOf(server, "eth0", mapping)
			for _, r := range []*runtime{here, there} {
				r.status()
			}
			clientAddr, serverAddr := here.attach(first), there.attach(served)
			server.greet(t)
			from, to := openContainer(t, l.Hosts[0], client, clientAddr), openContainer(t, l.Hosts[1], server, serverAddr)
			for _, h := range l.Hosts {
				if labtest.FastPath(t, h).On {
					awaitFast(t, h, 1) // a moment after it came
				}
			}
			for _, f := range families {
				seen := reach(t, from, netip.AddrPortFrom(serverAddr.Of(f).Addr(), greeterPort))
				if want := clientAddr.Of(f).Addr().String(); seen != want {
					t.Errorf("the server sees %s, want %s", seen, want)
				}
				reach(t, from, netip.AddrPortFrom(l.Hosts[1].Addr.Of(f), 8080))
				requireFast(t, from, to, f, 64<<20)
			}
			here.attach(second)
			for _, rt := range []*libcni.RuntimeConf{first, second} {
				here.check(rt)
			}
			there.check(served)
			here.detach(second)
			here.check(first)

			// Neither without the store nor without the daemon is there a reason to start no containers.
			l.Etcd.Kill()
			if err := errors.Join(l.Hosts[0].StopDaemon(), l.Hosts[0].StartDaemon()); err != nil {
				t.Fatal(err)
			}
			storeless := attachmentOf(newContainer(t, "storeless"), "eth0")
			here.attach(storeless)
			l.Hosts[0].KillDaemon()
			alone := attachmentOf(newContainer(t, "alone"), "eth0")
			here.status()
			here.attach(alone)
			here.check(alone)
			here.detach(alone)
			here.do(func() error {
				return here.cni.GCNetworkList(t.Context(), here.list, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: "client", IfName: "eth0"}}})
			})
			here.check(first)
			for range 2 {
				here.detach(first)
				there.detach(served)
			}
			here.wantNothingLeft(t)
			there.wantNothingLeft(t)
		})
	}
}

// While the daemon has no lease, an ADD fails soon, for the daemon's own reason.
func TestNoStoreAtFirstStart(t *testing.T) {
	both := ip.Families()
	l := newLab(t, both[:])
	r := newRuntime(t, labHost(t, l.Hosts[0]))
	if err := l.Hosts[0].StartDaemon(); err != nil {
		t.Fatal(err)
	}
	c := newContainer(t, "c")
	endpoint := l.Etcd.Endpoint(l.Hosts[0])
	var first, last error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		begun := time.Now()
		_, _, last = r.host.cni(c, "eth0", "ADD", r.conf(nil))
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("ADD took %v, want less than 2 seconds", took)
		}
		if first == nil {
			first = last
		}
		if last == nil || strings.Contains(last.Error(), endpoint) {
			break
		}
	}
	t.Logf("first: %v", first)
	t.Logf("last: %v", last)
	var reported *types.Error
	if !errors.As(last, &reported) || reported.Code != types.ErrTryAgainLater || !strings.Contains(last.Error(), "etcd") || !strings.Contains(last.Error(), endpoint) {
		t.Errorf("ADD = %v, want an error with code %d that names etcd and %s", last, types.ErrTryAgainLater, endpoint)
	}
	r.refuses(t, c, "STATUS", r.conf(nil), types.ErrPluginNotAvailable, endpoint)
	r.wantNothingLeft(t)

	if err := errors.Join(l.Etcd.Start(t.Context()), l.Configure(t.Context()), l.Hosts[0].WaitReady(t.Context())); err != nil {
		t.Fatal(err)
	}
	r.status()
	r.attach(attachmentOf(c, "eth0"))
	r.detach(attachmentOf(c, "eth0"))
}
