package doctor

import "testing"

// What another host answers may be anything: no command of it does more than its words say.
func TestDistrust(t *testing.T) {
	evil := []string{"ip link set dev x; reboot up", "ip link set dev $(reboot) up", "ip link set dev `reboot` up", "ip route del x\nreboot", "nft insert rule a b c accept | sh", "ip link set dev x up & reboot", "ip route del >/etc/passwd",
		"sysctl -w kernel/modprobe=/tmp/x", "sysctl -w net/../kernel/modprobe=/tmp/x", "sysctl -w --load=/tmp/x", "iptables -t filter -I INPUT --modprobe=/tmp/x -j ACCEPT", "iptables -t filter -I -M/tmp/x -p udp --dport 1 -j ACCEPT",
		"ln -s /tmp/x /opt/cni/bin/bridge", "mv -- /tmp/x /etc/cni/net.d/00", "ip link set dev x xdp obj /tmp/x", "ip route add 10.5.1.0/24 encap bpf in obj /tmp/x"}
	for _, command := range evil {
		r := Report{Findings: []Finding{{Host: "h1", Follows: []Finding{{Host: "h2", Fix: []string{"ip link set dev x up", command}, Undo: []string{"x"}, Safe: true}}}}, Advice: []Finding{{Host: "h2", Fix: []string{command}}}}
		r.Distrust("h1")
		if f := r.Findings[0].Follows[0]; len(f.Fix)+len(f.Undo) != 0 || f.Safe || f.Remedy == "" || len(r.Advice[0].Fix) != 0 {
			t.Errorf("%q is left: %+v, %+v", command, f, r.Advice[0])
		}
	}
	undo := `nft delete rule inet a b handle "$(nft -a list chain inet a b | sed -n 's/.* accept # handle //p' | head -n 1)"`
	bad := `nft delete rule inet a $(x) handle "$(nft -a list chain inet a b | sed -n 's/.* accept # handle //p' | head -n 1)"`
	r := Report{Findings: []Finding{
		{Host: "h2", Fix: []string{"nft insert rule inet a b ip saddr 10.5.0.0/16 accept"}, Undo: []string{undo}, Safe: true},
		{Host: "h2", Fix: []string{"sysctl -w net/ipv4/ip_forward=1"}, Undo: []string{bad}},
		{Host: "h1", Fix: []string{"mv -- a b; true"}, Undo: []string{bad}, Safe: true},
	}}
	r.Distrust("h1")
	if f := r.Findings[0]; len(f.Fix) != 1 || len(f.Undo) != 1 || f.Safe {
		t.Errorf("harmless commands of another host: %+v", f)
	}
	if f := r.Findings[1]; len(f.Fix) != 1 || len(f.Undo) != 0 {
		t.Errorf("an undo that is more than words: %+v", f)
	}
	if f := r.Findings[2]; len(f.Fix) != 1 || len(f.Undo) != 1 || !f.Safe {
		t.Errorf("this host's own: %+v", f)
	}
}

// What the doctor prints for other hosts, as docs/doctor.md has it.
func TestDistrustLeavesTheUsual(t *testing.T) {
	for _, command := range []string{
		"systemctl start tulled", "systemctl stop tulled", "ip link set dev cni0 up", "ip address replace fd00::1/64 dev cni0 nodad", "ip -6 route del unreachable fd00::/64 metric 1", "ip rule del priority 99 to 10.5.1.0/24 lookup 99",
		"nsenter --net=/run/netns/c2 ip link set dev eth0 mtu 1450", "nsenter --net=/proc/7/ns/net ip -6 route add default via fd00::1 dev eth0", "sysctl -w net/ipv4/conf/eth0/rp_filter=2", "nft insert rule inet foreign in udp dport 8472 accept",
		"nft insert rule ip6 foreign forward ip6 saddr fd10:244::/48 ip6 daddr fd10:244::/48 accept", "iptables -t filter -I INPUT -p udp --dport 8472 -j ACCEPT", "ip6tables-legacy -t filter -D INPUT -p udp --dport 8472 -j ACCEPT",
		"firewall-cmd --permanent --zone=trusted --add-source=10.5.0.0/16 --add-source=fd00::/48", "firewall-cmd --permanent --add-port=8472/udp", "firewall-cmd --reload", "ufw allow out 8472/udp", "docker restart web-1", "tulle docker configure --restart",
	} {
		r := Report{Findings: []Finding{{Host: "h2", Fix: []string{command}, Undo: []string{command}}}}
		if r.Distrust("h1"); len(r.Findings[0].Fix) != 1 || len(r.Findings[0].Undo) != 1 {
			t.Errorf("%q is left out", command)
		}
	}
}
