// Package doctortest breaks hosts of a lab in the ways that operators know, and follows what the doctor prints.
package doctortest

import "tulle/internal/trouble"

// Row is one fault. Commands run on the host that stands before them, as in "h1 ip link set dev cni0 down"; "c1 ..." runs in a container of h1, and
// "systemctl ... tulled" is done by the lab, which has no systemd; so is "etcd stop" and "etcd start", "etcd put KEY VALUE" and "etcd delete KEY", with keys of the network. Words in capitals stand for what differs from lab to lab:
//
//	OWN4 OWN6      the subnet of h1
//	GATE4 GATE6    its first address, the bridge's
//	PEER4 PEER6    the subnet of h2
//	HOST1 HOST2    the IPv4 addresses of the hosts
//	CONTAINER4     the IPv4 address of the container c2
//	ENTER          nsenter into the container c1
type Row struct {
	Fault  string       // in words
	Direct bool         // it is tried with host-gw, too
	Inject []string     // what brings it about
	Code   trouble.Code // of the first finding
	Follow []trouble.Code
	Fix    []string // as the first finding prints it; none: the remedy is in words
	ByHand []string // what somebody does who follows those words
	After  []string // what takes away what is left of the fault once it does no harm
}

// Rows lists the faults of one host.
func Rows() []Row {
	return []Row{
		// Whether there is anybody to ask.
		{Fault: "tulled is stopped", Inject: []string{"h1 systemctl stop tulled"}, Code: trouble.DaemonStopped, Fix: []string{"systemctl start tulled"}},
		{Fault: "tulled hangs", Inject: []string{"h1 systemctl freeze tulled"}, Code: trouble.DaemonStopped, Fix: []string{"systemctl restart tulled"}},
		{Fault: "the subnet file is removed while tulled is stopped", Inject: []string{"h1 systemctl stop tulled", "h1 rm SUBNETFILE"}, Code: trouble.DaemonStopped,
			Follow: []trouble.Code{trouble.FileMissing}, Fix: []string{"systemctl start tulled"}},
		{Fault: "the tunnel's device is set down while tulled is stopped", Inject: []string{"h1 systemctl stop tulled", "h1 ip link set dev flannel.1 down"}, Code: trouble.DaemonStopped,
			Follow: []trouble.Code{trouble.TunnelDown}, Fix: []string{"systemctl start tulled"}},
		{Fault: "forwarding is switched off while tulled is stopped", Inject: []string{"h1 systemctl stop tulled", "h1 sysctl -w net.ipv4.ip_forward=0"}, Code: trouble.DaemonStopped,
			Follow: []trouble.Code{trouble.ForwardOff}, Fix: []string{"systemctl start tulled"}},

		// The way to others.
		{Fault: "the uplink is set down", Direct: true, Inject: []string{"h1 ip link set dev eth0 down"}, Code: trouble.UplinkDown, Fix: []string{"ip link set dev eth0 up"},
			After: []string{"h1 ip route replace default via ROUTER4 dev eth0", "h1 ip -6 route replace default via ROUTER6 dev eth0"}},
		{Fault: "a resolver has an address of the containers' network", Inject: []string{"h1 echo nameserver 10.244.255.53 >>/etc/resolv.conf"}, Code: trouble.ResolverInside,
			ByHand: []string{"h1 sed -i '/^nameserver 10.244.255.53$/d' /etc/resolv.conf"}},
		{Fault: "a LAN of the host overlaps with the containers' network", Inject: []string{"h1 ip tuntap add lan0 mode tap", "h1 ip link set dev lan0 up", "h1 ip address add 10.244.254.7/24 dev lan0"},
			Code: trouble.NetworkOverlaps, ByHand: []string{"h1 ip address del 10.244.254.7/24 dev lan0"}, After: []string{"h1 ip link del dev lan0"}},

		{Fault: "etcd refuses", Inject: []string{"h1 nft add table inet foreign", "h1 nft add chain inet foreign out '{ type filter hook output priority 0; }'", "h1 nft add rule inet foreign out tcp dport 2379 reject with tcp reset"},
			Code: trouble.StoreUnreachable, ByHand: []string{"h1 nft delete table inet foreign"}},
		{Fault: "the network configuration differs from the one in force", Inject: []string{"h1 tulle config get >/run/config", `h1 sed 's/"vxlan"/"vxlan","VNI":7/' /run/config | tulle config set @/dev/stdin`},
			Code: trouble.ConfigPending, ByHand: []string{"h1 tulle config set @/run/config"}},

		{Fault: "etcd is stopped", Inject: []string{"etcd stop"}, Code: trouble.StoreUnreachable, ByHand: []string{"etcd start"}},
		{Fault: "the network configuration makes no sense", Inject: []string{"h1 tulle config get >/run/config", `etcd put config {"Network":`}, Code: trouble.ConfigWarning, ByHand: []string{"h1 tulle config set @/run/config"}},
		{Fault: "the network configuration is deleted", Inject: []string{"h1 tulle config get >/run/config", "etcd delete config"}, Code: trouble.ConfigWarning, ByHand: []string{"h1 tulle config set @/run/config"}},
		{Fault: "a lease in the store makes no sense", Inject: []string{"etcd put subnets/10.244.77.0-24 nonsense"}, Code: trouble.KeyUnreadable, ByHand: []string{"etcd delete subnets/10.244.77.0-24"}},
		{Fault: "a lease in the store is for addresses outside of the network", Inject: []string{`etcd put subnets/10.99.77.0-24 {"PublicIP":"HOST2","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:77"}}`},
			Code: trouble.PeerRefused, ByHand: []string{"etcd delete subnets/10.99.77.0-24"}},

		// Who hands out addresses.
		{Fault: "another CNI configuration comes first by name", Inject: []string{`h1 echo '{"cniVersion":"1.0.0","name":"other","type":"ptp"}' >/etc/cni/net.d/05-other.conf`}, Code: trouble.CNIShadowed,
			Fix: []string{"mv -- /etc/cni/net.d/05-other.conf /etc/cni/net.d/05-other.conf.off"}, After: []string{"h1 rm /etc/cni/net.d/05-other.conf.off"}},
		{Fault: "a delegate of the CNI plugin is missing", Inject: []string{"h1 rm /opt/cni/bin/bridge"}, Code: trouble.CNIDelegateMissing, Fix: []string{"ln -s /usr/lib/cni/bridge /opt/cni/bin/bridge"}},
		{Fault: "host-local has no address left, for containers that are gone have kept theirs", Inject: []string{
			"h1 mkdir -p /var/lib/cni/networks/tulle && cd /var/lib/cni/networks/tulle && for n in $(seq 2 254); do echo gone >PREFIX4.$n; done"},
			Code: trouble.CNIAddressesExhausted, Fix: []string{"rm -- /var/lib/cni/networks/tulle/*"}, After: []string{"h1 rm -r /var/lib/cni/networks"}},
		{Fault: "a bridge holds a subnet of an earlier lease", Inject: []string{"h1 ip link add br-old type bridge", "h1 ip link set dev br-old up", "h1 ip address add 10.244.253.1/24 dev br-old"},
			Code: trouble.BridgeStale, Fix: []string{"ip address del 10.244.253.1/24 dev br-old"}, After: []string{"h1 ip link del dev br-old"}},

		// The container and its bridge.
		{Fault: "the bridge is down", Direct: true, Inject: []string{"h1 ip link set dev cni0 down"}, Code: trouble.BridgeDown,
			Fix: []string{"ip link set dev cni0 up", "ip address replace GATE6/64 dev cni0 nodad"}},
		{Fault: "the bridge has lost its address", Inject: []string{"h1 ip address del GATE4/24 dev cni0"}, Code: trouble.BridgeUnaddressed, Fix: []string{"ip address replace GATE4/24 dev cni0"}},
		{Fault: "the host's end of a container's interface is down", Inject: []string{"h1 ip link set dev port1 down"}, Code: trouble.ContainerDown, Fix: []string{"ip link set dev port1 up"}},
		{Fault: "a container's interface is down", Inject: []string{"c2 ip link set dev eth0 down"}, Code: trouble.ContainerDown, Fix: []string{"nsenter --net=/run/netns/c2 ip link set dev eth0 up"},
			After: []string{"c2 ip route replace default via GATE4 dev eth0", "c2 ip address replace CONTAINER6/64 dev eth0 nodad", "c2 ip -6 route replace default via GATE6 dev eth0"}},
		{Fault: "the host's end of a container's interface hangs on no bridge", Inject: []string{"h1 ip link set dev port1 nomaster"}, Code: trouble.ContainerDetached, Fix: []string{"ip link set dev port1 master cni0"}},
		{Fault: "two containers have the same address", Inject: []string{"c2 ip address add PREFIX4.2/24 dev eth0"}, Code: trouble.ContainerSameAddress, ByHand: []string{"c2 ip address del PREFIX4.2/24 dev eth0"}},
		{Fault: "ARP is off on the bridge", Inject: []string{"h1 ip link set dev cni0 arp off"}, Code: trouble.ARPOff, Fix: []string{"ip link set dev cni0 arp on"}},
		{Fault: "ARP is off in a container", Inject: []string{"c1 ip link set dev eth0 arp off"}, Code: trouble.ARPOff, Fix: []string{"ENTER ip link set dev eth0 arp on"}},
		{Fault: "a neighbour entry of the host leads past a container", Inject: []string{"h1 ip neigh replace CONTAINER4 lladdr 02:de:ad:be:ef:01 dev cni0 nud permanent"}, Code: trouble.NeighborWrong,
			Fix: []string{"ip neigh del CONTAINER4 dev cni0"}},
		{Fault: "a neighbour entry of a container leads past the bridge, IPv6", Inject: []string{"c1 ip neigh replace GATE6 lladdr 02:de:ad:be:ef:01 dev eth0 nud permanent"}, Code: trouble.NeighborWrong,
			Fix: []string{"ENTER ip neigh del GATE6 dev eth0"}},
		{Fault: "a table of nftables drops frames that come by the bridge", Inject: []string{"h1 nft add table bridge foreign", "h1 nft add chain bridge foreign in '{ type filter hook input priority 0; }'", "h1 nft add rule bridge foreign in meta protocol ip drop"},
			Code: trouble.BridgeFiltered, ByHand: []string{"h1 nft delete table bridge foreign"}},
		{Fault: "a table of nftables drops all that leaves by a bridge", Inject: []string{"h1 nft add table bridge foreign", "h1 nft add chain bridge foreign out '{ type filter hook output priority 0; policy drop; }'"},
			Code: trouble.BridgeFiltered, ByHand: []string{"h1 nft delete table bridge foreign"}},
		{Fault: "a container has no default route", Inject: []string{"c1 ip route del default"}, Code: trouble.ContainerRouteless, Fix: []string{"ENTER ip route add default via GATE4 dev eth0"}},
		{Fault: "a container has no default route, IPv6", Inject: []string{"c1 ip -6 route del default"}, Code: trouble.ContainerRouteless, Fix: []string{"ENTER ip -6 route add default via GATE6 dev eth0"}},
		{Fault: "a container sends by a wrong gateway", Inject: []string{"c1 ip route replace default via PREFIX4.99 dev eth0"}, Code: trouble.ContainerMisrouted,
			Fix: []string{"ENTER ip route replace default via GATE4 dev eth0"}},
		{Fault: "a container's MTU is larger than the network carries", Inject: []string{"c1 ip link set dev eth0 mtu 1500"}, Code: trouble.ContainerTooLargeMTU, Fix: []string{"ENTER ip link set dev eth0 mtu MTU"}},
		{Fault: "a container has an address of another host's subnet", Inject: []string{"c1 ip address add 10.244.252.9/24 dev eth0"}, Code: trouble.ContainerForeignAddress,
			ByHand: []string{"c1 ip address del 10.244.252.9/24 dev eth0"}},

		// The host's filters and tables.
		{Fault: "a table of nftables drops what is forwarded", Direct: true, Inject: []string{"h1 nft add table ip foreign", "h1 nft add chain ip foreign forward '{ type filter hook forward priority 0; }'", "h1 nft add rule ip foreign forward ip daddr 10.0.0.0/8 ip saddr 10.0.0.0/8 drop"},
			Code: trouble.ForwardBlocked, Fix: []string{"nft insert rule ip foreign forward ip saddr 10.244.0.0/16 ip daddr 10.244.0.0/16 accept"},
			After: []string{"h1 nft delete table ip foreign"}},
		{Fault: "a table of nftables drops IPv6 that is forwarded", Inject: []string{"h1 nft add table ip6 foreign", "h1 nft add chain ip6 foreign forward '{ type filter hook forward priority 0; }'", "h1 nft add rule ip6 foreign forward ip6 saddr fc00::/7 ip6 daddr fc00::/7 drop"},
			Code: trouble.ForwardBlocked, Fix: []string{"nft insert rule ip6 foreign forward ip6 saddr fd10:244::/48 ip6 daddr fd10:244::/48 accept"},
			After: []string{"h1 nft delete table ip6 foreign"}},
		{Fault: "a zone of firewalld drops what is forwarded, in its own table", Inject: []string{"h1 nft add table inet firewalld", "h1 nft add chain inet firewalld filter_FORWARD '{ type filter hook forward priority 10; policy drop; }'"},
			Code: trouble.ForwardBlocked, Fix: []string{"firewall-cmd --permanent --zone=trusted --add-source=10.244.0.0/16 --add-source=fd10:244::/48", "firewall-cmd --reload"}, After: []string{"h1 nft delete table inet firewalld"}},
		{Fault: "a chain of nftables on the tunnel's device drops packets", Inject: []string{"h1 nft add table netdev foreign", `h1 nft add chain netdev foreign in '{ type filter hook ingress device "flannel.1" priority 0; }'`, "h1 nft add rule netdev foreign in drop"},
			Code: trouble.DeviceFiltered, ByHand: []string{"h1 nft delete table netdev foreign"}},
		{Fault: "connection tracking is full", Inject: []string{
			"h1 for port in $(seq 100 170); do echo >/dev/udp/HOST2/$port; done", "h1 echo 60 >/run/most && mount --bind /run/most /proc/sys/net/netfilter/nf_conntrack_max"},
			Code: trouble.ConntrackFull, Fix: []string{"sysctl -w net/netfilter/nf_conntrack_max=120"}, After: []string{"h1 umount /proc/sys/net/netfilter/nf_conntrack_max"}},

		// Between hosts.
		{Fault: "iptables drops the tunnel's packets", Inject: []string{"h1 iptables -A INPUT -p udp --dport 8472 -j DROP"}, Code: trouble.TunnelBlocked,
			Fix: []string{"iptables -t filter -I INPUT -p udp --dport 8472 -j ACCEPT"}, After: []string{"h1 iptables -F INPUT"}},
		{Fault: "nftables drops the tunnel's packets", Inject: []string{"h1 nft add table inet foreign", "h1 nft add chain inet foreign in '{ type filter hook input priority 0; }'", "h1 nft add rule inet foreign in udp dport 8472 drop"},
			Code: trouble.TunnelBlocked, Fix: []string{"nft insert rule inet foreign in udp dport 8472 accept"}, After: []string{"h1 nft delete table inet foreign"}},
		{Fault: "reverse path filtering is strict, and a host is heard by another way than answers take", Inject: []string{
			"h1 ip link add back0 type veth peer name back1", "h1 ip link set dev back0 up", "h1 ip link set dev back1 up", "h1 ip route add 198.51.100.7 dev back0", "h1 sysctl -w net.ipv4.conf.eth0.rp_filter=1",
			"h2 ip address add 198.51.100.7/32 dev lo", "h2 ip route add HOST1 dev eth0 src 198.51.100.7", "h2 " + knock},
			Code: trouble.ReverseFiltered, Fix: []string{"sysctl -w net/ipv4/conf/eth0/rp_filter=2"},
			After: []string{"h2 kill $(cat /run/knock)", "h2 ip route del HOST1 dev eth0 src 198.51.100.7", "h2 ip address del 198.51.100.7/32 dev lo", "h1 ip link del dev back0"}},
		{Fault: "a route of another program leads to nowhere", Direct: true, Inject: []string{"h1 ip route add blackhole PEER4 metric 1"}, Code: trouble.RouteShadowed, Fix: []string{"ip route del blackhole PEER4 metric 1"}},
		{Fault: "a route of another program leads to nowhere, IPv6", Direct: true, Inject: []string{"h1 ip -6 route add unreachable PEER6 metric 1"}, Code: trouble.RouteShadowed, Fix: []string{"ip -6 route del unreachable PEER6 metric 1"}},
		{Fault: "a policy rule takes the traffic to a peer", Direct: true, Inject: []string{"h1 ip route add default dev lo table 99", "h1 ip rule add priority 99 to PEER4 lookup 99"}, Code: trouble.RouteShadowed,
			Fix: []string{"ip rule del priority 99 to PEER4 lookup 99"}, After: []string{"h1 ip route flush table 99"}},
		{Fault: "a wrong route leads to a peer's host", Inject: []string{"h1 ip route add HOST2 dev cni0"}, Code: trouble.UplinkDiverted, Fix: []string{"ip route del HOST2/32 dev cni0"}},
	}
}

// knock sends packets until it is killed.
const knock = `(while :; do echo >/dev/udp/HOST1/9; sleep 0.05; done) >/dev/null 2>&1 & echo $! >/run/knock`
