//go:build linux

package dockertest_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tulle/internal/docker/dockertest"
	"tulle/internal/lab/labtest"
	"tulle/ip"
)

// healTimeout is how long traffic may take to pass after something has started.
const healTimeout = 15 * time.Second

// container is one that the test has started.
type container struct {
	*dockertest.Machine
	name string
	addr ip.Dual[netip.Addr]
}

// runContainer starts a container of the test image, whose web server is published on port 8080 of the host.
func runContainer(t *testing.T, m *dockertest.Machine, network, name string) *container {
	t.Helper()
	// An init of Docker's obeys SIGTERM, which a web server that runs as one does not.
	m.Run(t, "docker", "run", "--detach", "--init", "--stop-timeout=1", "--restart=always", "--name="+name, "--network="+network, "--publish=8080:80", dockertest.Image)
	c := &container{Machine: m, name: name}
	c.inspect(t, network)
	return c
}

// inspect reads the addresses of the container.
func (c *container) inspect(t *testing.T, network string) {
	t.Helper()
	format := fmt.Sprintf(`{{with index .NetworkSettings.Networks %q}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}`, network)
	out := c.Run(t, "docker", "inspect", "--format="+format, c.name)
	v4, v6, _ := strings.Cut(out, " ")
	for f, text := range map[ip.Family]string{ip.IPv4: v4, ip.IPv6: v6} {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			t.Fatalf("addresses of %s are %q: %v", c.name, out, err)
		}
		c.addr.Set(f, addr)
	}
}

// try runs a command in the container.
func (c *container) try(t *testing.T, line ...string) (string, error) {
	t.Helper()
	return c.Try(t, append([]string{"docker", "exec", c.name}, line...)...)
}

func (c *container) exec(t *testing.T, line ...string) string {
	t.Helper()
	out, err := c.try(t, line...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// requireReach fails the test unless each container reaches the other, in both families, from its own address.
func requireReach(t *testing.T, a, b *container) {
	t.Helper()
	for _, pair := range [][2]*container{{a, b}, {b, a}} {
		from, to := pair[0], pair[1]
		for _, f := range ip.Families() {
			from.Retry(t, healTimeout, fmt.Sprintf("ping %s", to.addr.Of(f)), func() error {
				_, err := from.try(t, "ping", "-c1", "-W1", to.addr.Of(f).String())
				return err
			})
			requireSource(t, from, netip.AddrPortFrom(to.addr.Of(f), 80), from.addr.Of(f))
		}
	}
}

// requireSource fails the test unless the web server at to sees the container come from want.
func requireSource(t *testing.T, from *container, to netip.AddrPort, want netip.Addr) {
	t.Helper()
	out, err := from.try(t, "timeout", "5", "wget", "-q", "-O-", webPage(to))
	if err != nil {
		t.Fatal(err)
	}
	if parseSource(out) != want {
		t.Errorf("from %s on %s to %s: source arrives as %s, want %s", from.name, from, to, out, want)
	}
}

// parseSource reads an address as the web server prints it: its socket is one for both families.
func parseSource(text string) netip.Addr {
	addr, _ := netip.ParseAddr(strings.Trim(text, "[]"))
	return addr.Unmap()
}

// requireTransfer moves 100 MB from one container to another and compares checksums. Where hosts have the fast path, nearly all of it goes by that.
func requireTransfer(t *testing.T, from, to *container) {
	t.Helper()
	from.exec(t, "dd", "if=/dev/urandom", "of=/www/blob", "bs=1M", "count=100")
	want := strings.Fields(from.exec(t, "md5sum", "/www/blob"))[0]
	start, counted := time.Now(), labtest.BeginFastTransfer(t, from.Host, to.Host)
	for _, f := range ip.Families() {
		got := to.exec(t, "sh", "-c", fmt.Sprintf("timeout 20 wget -q -O- http://%s/blob | md5sum", netip.AddrPortFrom(from.addr.Of(f), 80)))
		if strings.Fields(got)[0] != want {
			t.Errorf("100 MB from %s to %s over %s: checksum %s, want %s", from, to, f, got, want)
		}
	}
	counted.Require(t, fmt.Sprintf("from %s to %s in %v", from, to, time.Since(start).Round(time.Millisecond)), 200<<20)
}

// requirePublished asks for the published port of a container from another host: from a container by the host's address
// and by the container's own, and from that host itself.
func requirePublished(t *testing.T, from, to *container, e engine) {
	t.Helper()
	for _, f := range ip.Families() {
		requireSource(t, from, netip.AddrPortFrom(to.addr.Of(f), 80), from.addr.Of(f))
		host := netip.AddrPortFrom(to.Addr.Of(f), 8080)
		inside, err := from.try(t, "timeout", "5", "wget", "-q", "-O-", webPage(host))
		if err != nil {
			t.Fatal(err)
		}
		outside := from.Run(t, "busybox", "timeout", "5", "busybox", "wget", "-q", "-O-", webPage(host))
		// Traffic to a host leaves the fabric, and is masqueraded there. Where Docker has no filters, a proxy of its own answers.
		if want := from.Addr.Of(f); e.filters(f) && (parseSource(inside) != want || parseSource(outside) != want) {
			t.Errorf("to %s: source arrives as %s from %s and as %s from its host, want %s", host, inside, from.name, outside, want)
		}
	}
}

// webPage tells a client its address.
func webPage(server netip.AddrPort) string { return fmt.Sprintf("http://%s/cgi-bin/from", server) }

// requireMTU fails the test unless the container's interface has the fabric's MTU.
func requireMTU(t *testing.T, c *container) {
	t.Helper()
	subnet, err := c.ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	if out := c.exec(t, "cat", "/sys/class/net/eth0/mtu"); out != fmt.Sprint(subnet.MTU) {
		t.Errorf("MTU of %s on %s is %s, want %d", c.name, c, out, subnet.MTU)
	}
}
