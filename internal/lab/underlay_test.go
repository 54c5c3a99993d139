//go:build linux

package lab_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/ip"
)

func TestHostsReachEachOtherAcrossSegments(t *testing.T) {
	l := newLab(t, lab.Config{Hosts: 3, Segments: 2})
	if got := []int{l.Hosts[0].Segment, l.Hosts[1].Segment, l.Hosts[2].Segment}; fmt.Sprint(got) != "[1 1 2]" {
		t.Errorf("segments of the hosts = %v, want [1 1 2]", got)
	}
	for _, family := range l.Config.Families {
		for _, to := range l.Hosts {
			var listener net.Listener
			if err := to.Do(func() (err error) {
				listener, err = net.Listen("tcp", netip.AddrPortFrom(to.Addr.Of(family), 9).String())
				return err
			}); err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			for _, from := range l.Hosts {
				var conn net.Conn
				err := from.Do(func() (err error) {
					conn, err = net.DialTimeout("tcp", listener.Addr().String(), 5*time.Second)
					return err
				})
				if err != nil {
					t.Errorf("%s to %s: %v", from, to, err)
					continue
				}
				conn.Close()
			}
		}
	}
}

func TestEtcdKeepsItsDataOverAKill(t *testing.T) {
	for _, family := range ip.Families() {
		t.Run(family.String(), func(t *testing.T) {
			l := newLab(t, lab.Config{Families: []ip.Family{family}})
			ctx := t.Context()
			if err := l.Etcd.Start(ctx); err != nil {
				t.Fatal(err)
			}
			if err := l.Configure(ctx); err != nil {
				t.Fatal(err)
			}
			if err := l.Etcd.PutLeased(ctx, l.Etcd.Key("subnets/x"), "leased", time.Hour); err != nil {
				t.Fatal(err)
			}
			l.Etcd.Kill()
			if err := l.Etcd.Start(ctx); err != nil {
				t.Fatal(err)
			}
			got, err := l.Etcd.Get(ctx, l.Etcd.Key(""))
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{l.Etcd.Key("config"): l.NetworkConfig(), l.Etcd.Key("subnets/x"): "leased"}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("keys after a restart = %v, want %v", got, want)
			}
			if err := l.Etcd.Delete(ctx, l.Etcd.Key("config")); err != nil {
				t.Error(err)
			}
			if err := l.Etcd.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestMatrixOverStaticRoutes(t *testing.T) {
	l := newStaticLab(t)
	for _, family := range l.Config.Families {
		connect(t, l.Hosts[0], l.Hosts[1], family)
		connect(t, l.Hosts[1], l.Hosts[0], family)
	}
	matrix := requireMatrix(t, l)
	if got, want := len(matrix.Pairs), 2*4*3; got != want {
		t.Errorf("matrix has %d pairs, want %d", got, want)
	}
	for _, pair := range matrix.Pairs {
		want := lab.PathDirect
		if pair.From[:2] == pair.To[:2] {
			want = lab.PathLocal
		}
		if pair.Path != want {
			t.Errorf("%s path from %s to %s = %s, want %s", pair.Family, pair.From, pair.To, pair.Path, want)
		}
	}
}

func TestMatrixTellsWhoIsNotReached(t *testing.T) {
	l := newStaticLab(t)
	connect(t, l.Hosts[0], l.Hosts[1], ip.IPv4)
	connect(t, l.Hosts[1], l.Hosts[0], ip.IPv4)
	matrix, err := l.Matrix(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if matrix.Pass {
		t.Error("matrix passes without IPv6 routes between the hosts")
	}
	for _, pair := range matrix.Pairs {
		want := pair.Family == "ipv4" || pair.Path == lab.PathLocal
		if pair.OK != want || pair.OK != (pair.Reason == "") {
			t.Errorf("%s from %s to %s: ok=%t reason=%q, want ok=%t", pair.Family, pair.From, pair.To, pair.OK, pair.Reason, want)
		}
	}
	if text := table(t, matrix); !strings.Contains(text, "ipv6: h1/c1 does not reach h2/c1 (path none)") {
		t.Errorf("table does not name the failure:\n%s", text)
	}
}

func TestStreamCountsWhatIsLost(t *testing.T) {
	l := newStaticLab(t)
	connect(t, l.Hosts[0], l.Hosts[1], ip.IPv4)
	connect(t, l.Hosts[1], l.Hosts[0], ip.IPv4)
	config := lab.StreamConfig{From: l.Hosts[0].Containers[0], To: l.Hosts[1].Containers[1], Family: ip.IPv4, PerSecond: 1000}

	stream, err := lab.StartStream(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(300 * time.Millisecond)
	report := stream.Stop()
	if report.Sent < 250 || report.Lost != 0 || report.Received != report.Sent {
		t.Errorf("undisturbed stream: %v, want 300 sent and none lost", report)
	}

	stream, err = lab.StartStream(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(100 * time.Millisecond)
	if err := l.Hosts[0].DeleteRoutesTo(l.Hosts[1], ip.IPv4); err != nil {
		t.Fatal(err)
	}
	<-time.After(200 * time.Millisecond)
	connect(t, l.Hosts[0], l.Hosts[1], ip.IPv4)
	<-time.After(100 * time.Millisecond)
	report = stream.Stop()
	if report.Lost < 100 || report.LongestGap < 150*time.Millisecond || report.Received == 0 {
		t.Errorf("stream over a route that was away for 200ms: %v, want about 200 lost", report)
	}
}

// newStaticLab has two hosts with two containers each, and no daemon: subnets
// and forwarding are set by hand.
func newStaticLab(t *testing.T) *lab.Lab {
	t.Helper()
	l := newLab(t, lab.Config{Hosts: 2, Containers: 2})
	for i, host := range l.Hosts {
		if err := os.MkdirAll(host.Dir, 0o755); err != nil {
			t.Fatal(err)
		}
		subnet := fmt.Sprintf("FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.%d.1/24\n"+
			"FLANNEL_IPV6_NETWORK=fd10:244::/48\nFLANNEL_IPV6_SUBNET=fd10:244:0:%d::1/64\n"+
			"FLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n", i+1, i+1)
		if err := os.WriteFile(host.SubnetFile(), []byte(subnet), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := host.Do(func() error {
			if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
				return err
			}
			return os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0)
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.StartContainers(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l
}

// connect adds a route to the containers of another host.
func connect(t *testing.T, from, to *lab.Host, family ip.Family) {
	t.Helper()
	env, err := to.ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	if err := from.AddRoute(env.Subnets.Of(family), to.Addr.Of(family)); err != nil {
		t.Fatal(err)
	}
}

func table(t *testing.T, matrix lab.Matrix) string {
	t.Helper()
	var text strings.Builder
	if err := matrix.WriteTable(&text); err != nil {
		t.Fatal(err)
	}
	return text.String()
}
