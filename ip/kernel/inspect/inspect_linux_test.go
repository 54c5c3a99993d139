package inspect_test

import (
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tulle/internal/netns"
	"tulle/internal/netns/netnstest"
	"tulle/ip"
	"tulle/ip/kernel/inspect"
)

func commands(t *testing.T, ns *netns.Namespace, lines string) {
	t.Helper()
	for line := range strings.Lines(lines) {
		cmd := exec.CommandContext(t.Context(), "ip", strings.Fields(line)...)
		var out []byte
		if err := ns.Do(func() (err error) { out, err = cmd.CombinedOutput(); return err }); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.TrimSpace(line), err, out)
		}
	}
}

func open(t *testing.T, ns *netns.Namespace) *inspect.Reader {
	t.Helper()
	var r *inspect.Reader
	if err := ns.Do(func() (err error) { r, err = inspect.Open(); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// A bridge with a container that hangs on it, and a VXLAN device, as ip(8) makes them.
func TestReader(t *testing.T) {
	host, container := netnstest.New(t), netnstest.New(t)
	commands(t, host, `link add br0 type bridge
		link add port mtu 1400 type veth peer name inside
		link set port master br0
		link add tunnel type vxlan id 7 dstport 8472 local 192.0.2.1 nolearning
		address add 10.50.7.1/24 dev br0
		address add fc00:50::1/64 dev br0 nodad
		link set br0 up
		link set port up
		link set tunnel up
		route add 10.50.8.0/24 via 10.50.7.9 dev br0 mtu 1300
		route add blackhole 10.50.9.0/24
		route add 10.50.6.0/24 proto 84 dev br0
		route add default via 10.50.7.9 dev br0 metric 5 table 100
		route add 10.50.5.0/24 dev br0 metric 5 table 100
		rule add priority 70 from 10.50.0.0/16 to 10.50.5.0/24 iif br0 fwmark 1/3 lookup 100
		-6 rule add priority 71 from fc00:50::/64 blackhole
		neighbor add 10.50.7.9 lladdr 02:00:00:00:00:09 dev br0 nud permanent`)
	cmd := exec.CommandContext(t.Context(), "bridge", strings.Fields("fdb add 02:00:00:00:00:07 dev tunnel dst 192.0.2.7 self permanent")...)
	if err := host.Do(cmd.Run); err != nil {
		t.Fatal(err)
	}
	moved := exec.CommandContext(t.Context(), "ip", "link", "set", "inside", "netns", "/proc/self/fd/3")
	within, err := os.Open("/proc/self/fd/" + strconv.Itoa(container.FD()))
	if err != nil {
		t.Fatal(err)
	}
	defer within.Close()
	moved.ExtraFiles = []*os.File{within}
	if err := host.Do(moved.Run); err != nil {
		t.Fatal(err)
	}
	r, file := open(t, host), open(t, container)
	links, err := r.Links()
	if err != nil {
		t.Fatal(err)
	}
	named := func(name string) inspect.Link {
		i := slices.IndexFunc(links, func(l inspect.Link) bool { return l.Name == name })
		if i < 0 {
			t.Fatalf("no link %s in %+v", name, links)
		}
		return links[i]
	}
	if br := named("br0"); br.Kind != "bridge" || !br.Up || !slices.Contains(br.Addrs, netip.MustParsePrefix("10.50.7.1/24")) || !slices.Contains(br.Addrs, netip.MustParsePrefix("fc00:50::1/64")) {
		t.Errorf("bridge is %+v", br)
	}
	if v := named("tunnel"); v.Kind != "vxlan" || v.VNI != 7 || v.UDPPort != 8472 {
		t.Errorf("tunnel is %+v", v)
	}
	id, err := r.NamespaceID(container.FD())
	port := named("port")
	if err != nil || id < 0 || port.Namespace != id || port.Master != "br0" || port.MTU != 1400 || !port.NoCarrier {
		t.Errorf("port is %+v, and the container's namespace %d, %v", port, id, err)
	}
	inside, err := file.Links()
	if i := slices.IndexFunc(inside, func(l inspect.Link) bool { return l.Name == "inside" }); err != nil || i < 0 || inside[i].Up || port.PeerIndex != inside[i].Index {
		t.Errorf("the container has %+v, %v", inside, err)
	}
	routes, err := r.Routes()
	for _, want := range []inspect.Route{
		{Dst: netip.MustParsePrefix("10.50.8.0/24"), Via: netip.MustParseAddr("10.50.7.9"), Link: "br0", Kind: ip.Unicast, MTU: 1300},
		{Dst: netip.MustParsePrefix("10.50.9.0/24"), Kind: ip.Blackhole},
	} {
		if err != nil || !slices.Contains(routes, want) {
			t.Errorf("routes are %+v, %v, want %+v", routes, err, want)
		}
	}
	others, err := r.Others()
	var specs []string
	for _, o := range others {
		specs = append(specs, o.Spec)
	}
	slices.Sort(specs)
	if want := []string{
		"10.50.5.0/24 dev br0 metric 5 table 100", "10.50.8.0/24 via 10.50.7.9 dev br0", "blackhole 10.50.9.0/24",
		"priority 70 from 10.50.0.0/16 to 10.50.5.0/24 iif br0 fwmark 0x1/0x3 lookup 100", "priority 71 from fc00:50::/64",
	}; err != nil || !slices.Equal(specs, want) {
		t.Errorf("of others there is %q, %v, want %q", specs, err, want)
	}
	for _, o := range others { // what is printed is what takes it away
		what := "route"
		if o.Rule {
			what = "rule"
		}
		commands(t, host, strings.TrimPrefix(o.Family.Command(), "ip")+" "+what+" del "+o.Spec)
	}
	if left, err := r.Others(); err != nil || len(left) > 0 {
		t.Errorf("%+v are left, %v", left, err)
	}
	for dst, want := range map[string]inspect.Route{
		"10.50.7.7": {Source: netip.MustParseAddr("10.50.7.1"), Link: "br0", Kind: ip.Unicast}, "10.99.0.1": {Kind: ip.Unrouted},
	} {
		got, err := r.Route(netip.MustParseAddr(dst))
		if got.Dst, got.MTU = (netip.Prefix{}), 0; err != nil || got != want {
			t.Errorf("the route to %s is %+v, %v, want %+v", dst, got, err, want)
		}
	}
	neighbors, err := r.Neighbors()
	if want := (inspect.Neighbor{Addr: netip.MustParseAddr("10.50.7.9"), MAC: "02:00:00:00:00:09", Link: "br0", State: "PERMANENT", Permanent: true}); err != nil || !slices.Contains(neighbors, want) {
		t.Errorf("neighbours are %+v, %v, want %+v", neighbors, err, want)
	}
	stations, err := r.Stations()
	if len(stations) != 1 || err != nil || stations[0].Dst != netip.MustParseAddr("192.0.2.7") || stations[0].MAC != "02:00:00:00:00:07" || stations[0].Link != "tunnel" {
		t.Errorf("stations are %+v, %v", stations, err)
	}
}

func TestNeighborTables(t *testing.T) {
	tables, err := inspect.NeighborTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range ip.Families() {
		if table := tables.Of(f); table == nil || table.Max <= 0 {
			t.Errorf("%s: %+v", f, table)
		}
	}
}
