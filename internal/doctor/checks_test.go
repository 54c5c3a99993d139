package doctor

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tulle/internal/trouble"
	"tulle/ip"
)

// sound is a host of which nothing is wrong, with a container and all that checks look at.
func sound() Facts {
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	network := Network{Prefixes: []netip.Prefix{prefix("10.5.0.0/16"), prefix("fc00:5::/48")}, Subnets: []netip.Prefix{prefix("10.5.1.0/24"), prefix("fc00:5:0:1::/64")}, Held: true, Backend: "vxlan", MTU: 1450}
	return Facts{
		Node: "h1", Clock: time.Now(), Daemon: Daemon{Running: true},
		Status: &Status{Ready: true, Networks: []Network{network}, Uplink: &Uplink{Link: "eth0", MTU: 1500, Addrs: []netip.Addr{addr("192.0.2.1")}}, Count: map[trouble.Code]int{}},
		Links: []Link{
			{Name: "eth0", Role: RoleUplink, Up: true, MTU: 1500}, {Name: "flannel.1", Role: RoleTunnel, Up: true, MTU: 1450},
			{Name: "cni0", Role: RoleBridge, Kind: "bridge", Up: true, Addrs: []netip.Prefix{prefix("10.5.1.1/24"), prefix("fc00:5:0:1::1/64")}},
			{Name: "veth1", Role: RolePort, Up: true, Master: "cni0"},
		},
		Settings: []Setting{
			{Key: "net/ipv4/ip_forward", Value: "1", Want: "1"}, {Key: "net/ipv4/conf/all/rp_filter", Value: "0"},
			{Key: "net/ipv4/conf/eth0/forwarding", Link: "eth0", Value: "1", Want: "1"}, {Key: "net/ipv4/conf/eth0/rp_filter", Link: "eth0", Value: "1"},
		},
		Fill:      Fill{Conntrack: &Level{10, 100}, Neighbors: ip.Dual[*Level]{V4: &Level{10, 100}, V6: &Level{10, 100}}},
		Counters:  []Counter{{Name: "TcpExt.IPReversePathFilter", Value: 7}, {Name: "Ip.ReasmFails", Value: 3}, {Name: "conntrack.drop", Value: 5}},
		File:      File{Path: "/run/flannel/subnet.env", Subnets: network.Subnets, MTU: 1450},
		Docker:    &Docker{Networks: []DockerNetwork{{Name: "bridge", Bridge: "docker0", Subnets: []netip.Prefix{prefix("172.17.0.0/16")}, MTU: 1500}}},
		CNI:       &CNI{Dir: "/etc/cni/net.d", First: "/etc/cni/net.d/10-tulle.conflist", Ours: "/etc/cni/net.d/10-tulle.conflist", BinDir: "/opt/cni/bin", Networks: []CNINetwork{{Name: "tulle", Dir: "/var/lib/cni/networks/tulle", Pool: prefix("10.5.1.0/24"), Used: 9, Size: 253}}},
		Resolvers: []netip.Addr{addr("192.0.2.53")},
		Containers: []Container{{
			Name: "web", Runtime: "docker", Link: "eth0", Up: true, MTU: 1450, Addrs: []netip.Prefix{prefix("10.5.1.2/24"), prefix("fc00:5:0:1::2/64")}, Port: "veth1", Bridge: "cni0", Namespace: "/run/netns/web",
			Routes: []Route{{Dst: prefix("0.0.0.0/0"), Via: addr("10.5.1.1"), Link: "eth0"}, {Dst: prefix("::/0"), Via: addr("fc00:5:0:1::1"), Link: "eth0"}, {Dst: prefix("10.5.1.0/24"), Link: "eth0"}},
		}},
	}
}

// tells adds a trouble to what tulled tells.
func tells(f *Facts, code trouble.Code, subject, text string) {
	f.Status.Troubles = append(f.Status.Troubles, trouble.New(code, subject, text))
	f.Status.Count[code]++
}

// Each check finds its fault on a host that is sound but for that, and nothing else. Fix is a part of the commands, joined by "; "; with "-" there
// are none.
func TestChecks(t *testing.T) {
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	container := func(f *Facts) *Container { return &f.Containers[0] }
	stop := func(f *Facts) { f.Daemon, f.Last, f.Status = Daemon{Err: "no tulled answers"}, f.Status, nil }
	for _, tt := range []struct {
		name  string
		fault func(*Facts)
		want  trouble.Code // of the one finding; empty: there is none
		text  string       // in it
		fix   string
	}{
		{"nothing", func(*Facts) {}, "", "", ""},
		{"stopped", stop, trouble.DaemonStopped, "does not run", "systemctl start tulled"},
		{"never started", func(f *Facts) { *f = Facts{Node: "h1", Daemon: Daemon{Err: "no tulled answers"}} }, trouble.DaemonStopped, "in no network", "systemctl start tulled"},
		{"hangs", func(f *Facts) { stop(f); f.Daemon = Daemon{Running: true, Hangs: true, Err: "deadline"} }, trouble.DaemonStopped, "does not answer", "systemctl restart tulled"},
		{"not to be asked", func(f *Facts) { stop(f); f.Unread = append(f.Unread, Unread{PartStatus, "permission denied"}) }, "", "", ""},
		{"stopped, and the tunnel is gone", func(f *Facts) { stop(f); f.Links[1].Missing = true }, trouble.DaemonStopped, "", ""},

		{"uplink down", func(f *Facts) { f.Links[0].Up = false }, trouble.UplinkDown, "eth0, by which this host reaches others, is down", "ip link set dev eth0 up"},
		{"uplink gone", func(f *Facts) { f.Links[0] = Link{Name: "eth0", Role: RoleUplink, Missing: true} }, trouble.UplinkDown, "is gone", ""},
		{"uplink unplugged", func(f *Facts) { f.Links[0].NoCarrier = true }, trouble.UplinkDown, "no carrier", ""},
		{"uplink down, and the store away", func(f *Facts) {
			f.Links[0].Up = false
			tells(f, trouble.StoreUnreachable, "", "no route")
		}, trouble.UplinkDown, "", ""},
		{"tunnel down", func(f *Facts) { f.Links[1].Up = false }, trouble.TunnelDown, "flannel.1 is down", "systemctl restart tulled"},
		{"bridge down", func(f *Facts) { f.Links[2].Up = false }, trouble.BridgeDown, "cni0 is down", "ip link set dev cni0 up"},
		{"bridge down, IPv6 gone", func(f *Facts) { f.Links[2].Up, f.Links[2].Addrs = false, f.Links[2].Addrs[:1] }, trouble.BridgeDown, "", "ip link set dev cni0 up; ip address replace fc00:5:0:1::1/64 dev cni0 nodad"},
		{"bridge without IPv4", func(f *Facts) { f.Links[2].Addrs = f.Links[2].Addrs[1:] }, trouble.BridgeUnaddressed, "lacks 10.5.1.1/24", "ip address replace 10.5.1.1/24 dev cni0"},
		{"bridge too narrow for IPv6", func(f *Facts) { f.Links[2].MTU, f.Links[2].Addrs = 1000, f.Links[2].Addrs[:1] }, trouble.BridgeUnaddressed, "MTU of 1000", "ip link set dev cni0 mtu 1450; ip address replace fc00:5:0:1::1/64 dev cni0 nodad"},
		{"port down", func(f *Facts) { f.Links[3].Up = false }, trouble.ContainerDown, "veth1", "ip link set dev veth1 up"},
		{"a name that is a command", func(f *Facts) { f.Links[3].Up, f.Links[3].Name = false, "$(id)" }, trouble.ContainerDown, "", "ip link set dev '$(id)' up"},

		{"container down", func(f *Facts) { container(f).Up = false }, trouble.ContainerDown, "eth0 of container web", "nsenter --net=/run/netns/web ip link set dev eth0 up"},
		{"container without route", func(f *Facts) { container(f).Routes = container(f).Routes[1:] }, trouble.ContainerRouteless, "web has 10.5.1.2", "nsenter --net=/run/netns/web ip route add default via 10.5.1.1 dev eth0"},
		{"container with a route for the network alone", func(f *Facts) { container(f).Routes[0].Dst = prefix("10.5.0.0/16") }, "", "", ""},
		{"container with a dead end", func(f *Facts) {
			container(f).Routes = append(container(f).Routes, Route{Dst: netip.MustParsePrefix("10.5.2.0/24"), Kind: "blackhole"})
		}, trouble.ContainerMisrouted, "drops what it sends to 10.5.2.0/24", "ip route del blackhole 10.5.2.0/24"},
		{"container with a wrong gateway", func(f *Facts) { container(f).Routes[0].Via = addr("10.5.1.9") }, trouble.ContainerMisrouted, "by 10.5.1.9", "ip route replace default via 10.5.1.1 dev eth0"},
		{"container with two addresses", func(f *Facts) { container(f).Addrs = append(container(f).Addrs, prefix("172.17.0.2/16")) }, "", "", ""},
		{"container of another host", func(f *Facts) { container(f).Addrs[0] = prefix("10.5.2.2/24") }, trouble.ContainerForeignAddress, "10.5.2.2", "docker restart web"},
		{"container with a large MTU", func(f *Facts) { container(f).MTU = 1500 }, trouble.ContainerTooLargeMTU, "1500", "nsenter --net=/run/netns/web ip link set dev eth0 mtu 1450"},
		{"container with a small MTU", func(f *Facts) { container(f).MTU = 1400 }, "", "", ""},
		{"Docker's network with a large MTU", func(f *Facts) {
			f.Docker.Networks[0] = DockerNetwork{Name: "n", Bridge: "br-1", Subnets: []netip.Prefix{prefix("10.5.1.0/24")}, MTU: 1500, Problem: "its MTU is 1500", Remedy: "tulle docker configure --restart"}
		}, trouble.ContainerTooLargeMTU, "n gives", "tulle docker configure --restart"},
		{"docker0 with an older subnet", func(f *Facts) {
			f.Docker.Networks[0] = DockerNetwork{Name: "bridge", Bridge: "docker0", Subnets: []netip.Prefix{prefix("10.5.9.0/24")}, MTU: 1450, Problem: "it holds", Remedy: "tulle docker configure --restart"}
			tells(f, trouble.BridgeStale, "docker0", "docker0 holds 10.5.9.1/24 of an earlier lease, and this host has 10.5.1.0/24 now: run tulle docker configure --restart")
		}, trouble.BridgeStale, "docker0 holds", "tulle docker configure --restart"},
		{"an older subnet, and a container there", func(f *Facts) {
			tells(f, trouble.BridgeStale, "br0", "br0 holds 10.5.9.1/24 of an earlier lease, and this host has 10.5.1.0/24 now: for a Docker network, tulle docker status has the command; a CNI bridge moves when, its containers gone, ip address del 10.5.9.1/24 dev br0 is run")
			container(f).Addrs[0] = prefix("10.5.9.2/24")
		}, trouble.BridgeStale, "br0 holds", "ip address del 10.5.9.1/24 dev br0"},

		{"file gone", func(f *Facts) { f.File = File{Path: "/run/x", Missing: true} }, trouble.FileMissing, "/run/x", "systemctl restart tulled"},
		{"another CNI configuration", func(f *Facts) { f.CNI.First = "/etc/cni/net.d/05 x.conf" }, trouble.CNIShadowed, "sorts before", "mv -- '/etc/cni/net.d/05 x.conf' '/etc/cni/net.d/05 x.conf.off'"},
		{"plugins missing", func(f *Facts) { f.CNI.Missing, f.CNI.Elsewhere = []string{"bridge"}, []string{"bridge"} }, trouble.CNIDelegateMissing, "bridge", "ln -s /usr/lib/cni/bridge /opt/cni/bin/bridge"},
		{"plugins missing everywhere", func(f *Facts) { f.CNI.Missing = []string{"bridge"} }, trouble.CNIDelegateMissing, "bridge", ""},
		{"addresses out", func(f *Facts) { f.CNI.Networks[0].Used = 253 }, trouble.CNIAddressesExhausted, "253 of the 253", ""},
		{"addresses out, of which one is stale", func(f *Facts) {
			f.CNI.Networks[0].Used, f.CNI.Networks[0].Gone, f.CNI.Networks[0].Stale = 253, 1, []netip.Addr{addr("10.5.1.7")}
		}, trouble.CNIAddressesExhausted, "no container has 1", "rm -- /var/lib/cni/networks/tulle/10.5.1.7"},
		{"resolver inside", func(f *Facts) { f.Resolvers = append(f.Resolvers, addr("10.5.7.53")) }, trouble.ResolverInside, "10.5.7.53", ""},

		{"container on no bridge", func(f *Facts) { container(f).Bridge = "" }, trouble.ContainerDetached, "veth1, the host's end", "ip link set dev veth1 master cni0"},
		{"two containers with one address", func(f *Facts) {
			other := *container(f)
			other.Name, other.Port, other.Addrs = "db", "veth2", other.Addrs[1:]
			f.Containers = append(f.Containers, other)
		}, trouble.ContainerSameAddress, "web (behind veth1) and db (behind veth2) both have fc00:5:0:1::2", "-"},
		{"a container with two interfaces", func(f *Facts) {
			other := *container(f)
			other.Port, other.Link, other.Addrs = "veth2", "eth1", []netip.Prefix{prefix("10.5.1.3/24")}
			f.Containers = append(f.Containers, other)
		}, "", "", ""},
		{"bridge without ARP", func(f *Facts) { f.Links[2].NoARP = true }, trouble.ARPOff, "bridge cni0", "ip link set dev cni0 arp on"},
		{"tunnel without ARP", func(f *Facts) { f.Links[1].NoARP = true }, "", "", ""},
		{"container without ARP", func(f *Facts) { container(f).NoARP = true }, trouble.ARPOff, "eth0 of container web", "nsenter --net=/run/netns/web ip link set dev eth0 arp on"},
		{"the host has a wrong MAC of a container", func(f *Facts) {
			container(f).MAC, container(f).Known = "02::1", []Neighbor{{addr("10.5.1.2"), "02::7", "PERMANENT", "cni0"}}
		}, trouble.NeighborWrong, "this host takes 02::7 for the MAC of 10.5.1.2, and container web has 02::1", "ip neigh del 10.5.1.2 dev cni0"},
		{"the host has an earlier MAC of a container", func(f *Facts) {
			container(f).MAC, container(f).Known = "02::1", []Neighbor{{addr("10.5.1.2"), "02::7", "STALE", "cni0"}}
		}, "", "", ""},
		{"a container has a wrong MAC of its bridge", func(f *Facts) {
			f.Links[2].MAC, container(f).Neighbors = "02::1", []Neighbor{{addr("10.5.1.1"), "02::7", "PERMANENT", "eth0"}}
		}, trouble.NeighborWrong, "container web takes 02::7 for the MAC of 10.5.1.1, and bridge cni0 has 02::1", "nsenter --net=/run/netns/web ip neigh del 10.5.1.1 dev eth0"},
		{"frames are dropped on the bridge", func(f *Facts) {
			f.Filters = []Filter{{Bridge: "cni0", Table: "t", Chain: "c", Hook: "output"}}
		}, trouble.BridgeFiltered, "nft table bridge t chain c at output drops frames of cni0", "-"},
		{"not forwarding", func(f *Facts) { f.Settings[0].Value = "0" }, trouble.ForwardOff, "forwards no packets", "sysctl -w net/ipv4/ip_forward=1"},
		{"not forwarding by a link", func(f *Facts) { f.Settings[2].Value = "0" }, trouble.ForwardOff, "come in by eth0", "sysctl -w net/ipv4/conf/eth0/forwarding=1"},
		{"connections full", func(f *Facts) { f.Fill.Conntrack.Count = 100 }, trouble.ConntrackFull, "all 100", "sysctl -w net/netfilter/nf_conntrack_max=200"},
		{"connections nearly full", func(f *Facts) { f.Fill.Conntrack.Count = 95 }, trouble.ConntrackFull, "soon", ""},
		{"connections well below", func(f *Facts) { f.Fill.Conntrack.Count = 94 }, "", "", ""},
		{"connections dropped", func(f *Facts) { f.Counters[2].Rise = 1 }, trouble.ConntrackFull, "for want of room", ""},
		{"connections untracked", func(f *Facts) { f.Fill.Conntrack = nil }, "", "", ""},
		{"neighbours full", func(f *Facts) { f.Fill.Neighbors.V6.Count = 100 }, trouble.NeighborsFull, "ipv6", "sysctl -w net/ipv6/neigh/default/gc_thresh3=200"},
		{"neighbours without room", func(f *Facts) {
			f.Counters = append(f.Counters, Counter{Name: "neighbors.ipv4.full", Value: 9, Rise: 2})
		}, trouble.NeighborsFull, "ipv4", "gc_thresh3=200"},
		{"reverse path filter drops", func(f *Facts) { f.Counters[0].Rise = 1 }, trouble.ReverseFiltered, "eth0", "sysctl -w net/ipv4/conf/eth0/rp_filter=2"},
		{"reverse path filter that is loose", func(f *Facts) { f.Counters[0].Rise, f.Settings[3].Value = 1, "2" }, "", "", ""},
		{"reverse path filter that dropped once, and a peer is lost", func(f *Facts) {
			tells(f, trouble.PeerUnreachable, "x", "x does not answer")
		}, trouble.ReverseFiltered, "", ""},
		{"fragments lost", func(f *Facts) { f.Counters[1].Rise = 1 }, trouble.ReassemblyFailing, "IPv4", ""},
		{"a certificate of tomorrow", func(f *Facts) {
			tells(f, trouble.StoreUnreachable, "", "tls: failed to verify certificate: x509: certificate has expired or is not yet valid")
		}, trouble.ClockSkewed, "by the clock of this host", ""},
		{"a certificate of yesterday", func(f *Facts) {
			tells(f, trouble.StoreUnreachable, "", "x509: certificate has expired or is not yet valid")
			f.Status.Certificate = f.Clock.Add(-time.Hour)
		}, trouble.ClockSkewed, "certificate ended", ""},

		{"a filter", func(f *Facts) {
			tells(f, trouble.ForwardBlocked, "", "nft table ip x chain y drops packets between containers of this host and others: its owner must accept them first in that chain, as by nft insert rule ip x y ip saddr 10.5.0.0/16 accept and nft insert rule ip x y ip saddr 10.6.0.0/16 accept")
		}, trouble.ForwardBlocked, "and others", "nft insert rule ip x y ip saddr 10.5.0.0/16 accept; nft insert rule ip x y ip saddr 10.6.0.0/16 accept"},
		{"a filter in a table whose name is a command", func(f *Facts) {
			tells(f, trouble.TunnelBlocked, "", "nft table ip 'x: run nft insert rule; reboot' chain y drops the packets of the tunnel: run nft insert rule ip \"x: run nft insert rule; reboot\" y udp dport 8472 accept")
		}, trouble.TunnelBlocked, "", "-"},
		{"a route whose text is a command", func(f *Facts) {
			f.Others = []Other{{Family: "ipv4", Dst: prefix("10.5.2.0/24"), Table: 254, Spec: "blackhole 10.5.2.0/24; reboot"}}
			tells(f, trouble.RouteShadowed, "", "packets from containers to 10.5.2.1, in 10.5.2.0/24 of a peer, are dropped: blackhole: a route")
		}, trouble.RouteShadowed, "", "-"},
		{"a setting that cannot be written", func(f *Facts) {
			tells(f, trouble.SettingRefused, "", "net/ipv4/ip_forward is 0 and cannot be written here: run sysctl -w net/ipv4/ip_forward=1 on the host, or mount /proc/sys writable")
		}, trouble.SettingRefused, "cannot be written here", "sysctl -w net/ipv4/ip_forward=1"},
		{"a route of another", func(f *Facts) {
			f.Others = []Other{{Family: "ipv4", Dst: prefix("10.5.2.0/24"), Table: 254, Spec: "blackhole 10.5.2.0/24"}, {Family: "ipv4", Dst: prefix("10.5.3.0/24"), Table: 254, Spec: "blackhole 10.5.3.0/24"}}
			tells(f, trouble.RouteShadowed, "", "packets from containers to 10.5.2.1, in 10.5.2.0/24 of a peer, are dropped: blackhole: a route or policy rule of another program comes first: find it with ip route")
		}, trouble.RouteShadowed, "dropped: blackhole", "ip route del blackhole 10.5.2.0/24"},
		{"a wrong route to a peer's host", func(f *Facts) {
			f.Others = []Other{{Family: "ipv4", Dst: prefix("192.0.2.2/32"), Table: 254, Spec: "192.0.2.2/32 dev cni0"}}
			tells(f, trouble.UplinkDiverted, "", "packets from 192.0.2.1 to 192.0.2.2, the host of 10.5.2.0/24, go dev cni0 table main, and should leave by the uplink eth0: take away the route or policy rule that comes first (ip route), or have a table be asked before that leads there: x")
		}, trouble.UplinkDiverted, "by the uplink eth0", "ip route del 192.0.2.2/32 dev cni0"},
		{"no route to a peer's host", func(f *Facts) {
			tells(f, trouble.UplinkDiverted, "", "packets from 192.0.2.1 to 192.0.2.2, the host of 10.5.2.0/24, go dev x table main, and should leave by the uplink eth0: take away the route that comes first, or have a table be asked before that leads there: ip route replace 192.0.2.0/24 dev eth0 table 8472 && ip rule add from 192.0.2.1 lookup 8472; or start tulled with --iface x")
		}, trouble.UplinkDiverted, "", "ip route replace 192.0.2.0/24 dev eth0 table 8472; ip rule add from 192.0.2.1 lookup 8472"},
		{"two routes of others that may be it", func(f *Facts) {
			f.Others = []Other{{Family: "ipv4", Dst: prefix("10.5.2.0/25"), Table: 254, Spec: "a"}, {Family: "ipv4", Dst: prefix("10.5.2.0/24"), Table: 254, Spec: "b"}}
			tells(f, trouble.RouteShadowed, "", "packets from containers to 10.5.2.1, in 10.5.2.0/24 of a peer, go dev x table main: a route")
		}, trouble.RouteShadowed, "", "-"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := sound()
			tt.fault(&f)
			r := Diagnose(Case{Here: f})
			if tt.want == "" {
				if !r.Healthy() {
					t.Errorf("found %+v", r.Findings)
				}
				return
			}
			if len(r.Findings) != 1 || r.Findings[0].Code != tt.want {
				t.Fatalf("found %+v, want one %s", r.Findings, tt.want)
			}
			got := r.Findings[0]
			if fix := strings.Join(got.Fix, "; "); !strings.Contains(got.Text, tt.text) || !strings.Contains(fix, strings.TrimPrefix(tt.fix, "-")) || tt.fix == "-" && fix != "" || strings.Contains(fix, "reboot") || got.Host != "h1" {
				t.Errorf("%+v, want %q in its text and the fix %q", got, tt.text, tt.fix)
			}
			if len(got.Fix) == 0 == (got.Remedy == "") || got.Safe && len(got.Fix) == 0 || got.Severity == "" || got.Sure == "" {
				t.Errorf("%+v says not what to do, or says it twice", got)
			}
		})
	}
}

// What is undone is what was done.
func TestUndo(t *testing.T) {
	for text, want := range map[string]string{
		"x: run iptables -t filter -I INPUT -p udp --dport 8472 -j ACCEPT":                                  "[iptables -t filter -D INPUT -p udp --dport 8472 -j ACCEPT]",
		"x: run firewall-cmd --permanent --zone=trusted --add-source=10.5.0.0/16 and firewall-cmd --reload": "[firewall-cmd --permanent --zone=trusted --remove-source=10.5.0.0/16 firewall-cmd --reload]",
		"x: look at it": "[]",
	} {
		if _, undo := pasted(text); fmt.Sprint(undo) != want {
			t.Errorf("%s: %v, want %s", text, undo, want)
		}
	}
}
