//go:build linux

package lab_test

import (
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/internal/lab"
	"tulle/internal/trouble"
	"tulle/ip"
)

// What another program hangs on a device of Tulle's is named with the command that shows it, stays, and is forgotten when it goes; nothing that
// drops nothing is named.
func TestWhatHangsOnDevicesIsNamed(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 2, Containers: 1})
	requireMatrix(t, l)
	host := l.Hosts[0]
	for _, device := range []string{"flannel.1", "flannel-v6.1", "cni0"} {
		for _, row := range []struct{ name, begin, end, what, show string }{
			{
				"tc filter at ingress", "tc qdisc add dev DEV clsact && tc filter add dev DEV ingress bpf bytecode '1,6 0 0 2' direct-action", "tc qdisc del dev DEV clsact",
				"the tc filter bpf at ingress", "tc -s filter show dev DEV ingress",
			},
			{
				"tc filter at egress", "tc qdisc add dev DEV clsact && tc filter add dev DEV egress protocol all u32 match u32 0 0 classid 1:1", "tc qdisc del dev DEV clsact",
				"the tc filter u32 at egress", "tc -s filter show dev DEV egress",
			},
			{
				"queueing discipline", "tc qdisc add dev DEV root tbf rate 1mbit burst 10k latency 10ms", "tc qdisc del dev DEV root",
				"the queueing discipline tbf", "tc -s qdisc show dev DEV",
			},
			{
				"chain at ingress", "nft 'add table netdev other; add chain netdev other in { type filter hook ingress device \"DEV\" priority 0; policy drop; }'", "nft delete table netdev other",
				"the nftables chain in of table netdev other", "nft list chain netdev other in",
			},
			{
				"chain at egress of two devices", "nft 'add table netdev other; add chain netdev other out { type filter hook egress devices = { lo, \"DEV\" } priority 0; }; add rule netdev other out drop'", "nft delete table netdev other",
				"the nftables chain out of table netdev other", "nft list chain netdev other out",
			},
			{
				"chain of inet", "nft 'add table inet other; add chain inet other in { type filter hook ingress device \"DEV\" priority 0; policy drop; }'", "nft delete table inet other",
				"the nftables chain in of table inet other", "nft list chain inet other in",
			},
		} {
			if device == "cni0" && row.name == "queueing discipline" {
				continue // it only limits
			}
			t.Run(device+" "+row.name, func(t *testing.T) {
				do := func(command string) { run(t, host, "", "sh", "-ec", strings.ReplaceAll(command, "DEV", device)) }
				do(row.begin)
				want := device + " has " + row.what + ", which is another program's and may drop packets between containers: see " + strings.ReplaceAll(row.show, "DEV", device)
				before := fingerprint(t, host)
				if !eventually(healTimeout, func() bool { return named(t, host, trouble.DeviceFiltered, want) }) {
					var st uplinkStatus
					t.Errorf("not named: %v, ready %t, %+v", host.Status(t.Context(), &st), st.Ready, st.Troubles)
				}
				if after := fingerprint(t, host); after != before {
					t.Errorf("before:\n%s\nafter:\n%s", before, after)
				}
				do(row.end) // fails if it is not there
				if !eventually(healTimeout, func() bool {
					var st uplinkStatus
					return host.Status(t.Context(), &st) == nil && st.Ready && !st.Troubles.Has(trouble.DeviceFiltered)
				}) {
					t.Error("still named")
				}
			})
		}
	}
	for _, row := range []struct {
		place  uint32
		device string
		what   string
	}{
		{onXDP, "eth0", "eth0 has an XDP program"},
		{onTCXEgress, "eth0", "eth0 has a bpf program (tcx) at egress"},
		{onXDP, "flannel.1", "flannel.1 has an XDP program"},
		{onXDP, "flannel-v6.1", "flannel-v6.1 has an XDP program"},
		{onTCXIngress, "flannel.1", "flannel.1 has a bpf program (tcx) at ingress"},
		{onTCXEgress, "flannel-v6.1", "flannel-v6.1 has a bpf program (tcx) at egress"},
		{onXDP, "cni0", "cni0 has an XDP program"},
		{onTCXIngress, "cni0", "cni0 has a bpf program (tcx) at ingress"},
	} {
		t.Run(row.what, func(t *testing.T) {
			code := trouble.DeviceFiltered
			if row.device == "eth0" {
				code = trouble.UplinkFiltered
			}
			takeAway := sync.OnceFunc(hangOn(t, host, row.device, row.place))
			defer takeAway()
			// The kernel tells nobody of what bpf(2) does: the next look at it shows.
			look := func() {
				run(t, host, "", "ip", "rule", "add", "priority", "77", "lookup", "main")
				run(t, host, "", "ip", "rule", "del", "priority", "77")
			}
			look()
			if !eventually(healTimeout, func() bool { return named(t, host, code, row.what) }) {
				t.Error("not named")
			}
			takeAway()
			look()
			if !eventually(healTimeout, func() bool { return !named(t, host, code, row.device) }) {
				t.Error("still named")
			}
		})
	}
	run(t, host, "", "sh", "-ec", "tc qdisc add dev flannel.1 clsact; nft 'add table netdev idle; add chain netdev idle in { type filter hook ingress device flannel.1 priority 0; }'; ip link set flannel.1 alias other")
	run(t, host, "", "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "1gbit", "burst", "100k", "latency", "10ms")
	rest(t, host)
	if named(t, host, trouble.DeviceFiltered, "") || named(t, host, trouble.UplinkFiltered, "") {
		t.Error("what drops nothing, or limits the uplink, is named")
	}
	run(t, host, "", "sh", "-ec", "tc qdisc add dev eth0 clsact; tc filter add dev eth0 ingress bpf bytecode '1,6 0 0 0' direct-action")
	if !eventually(healTimeout, func() bool { return named(t, host, trouble.UplinkFiltered, "eth0 has the tc filter bpf at ingress") }) {
		t.Error("a filter of the uplink is not named")
	}
	requireMatrix(t, l)
}

// What hangs on the interface below the uplink is named as what hangs on the uplink.
func TestWhatHangsBelowUplinkIsNamed(t *testing.T) {
	l := newLab(t, lab.Config{Hosts: 2, Containers: 1, Families: []ip.Family{ip.IPv4}, DaemonArgs: func(h *lab.Host) []string { return []string{"--iface", h.Addr.V4.String()} }})
	begin(t, l)
	host := l.Hosts[0]
	run(t, host, "", "sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1") // or the interface below answers, too
	own, gateway := host.Addr.V4.String()+"/24", l.RouterAddr(ip.IPv4, host.Segment).String()
	for _, command := range []string{
		"address del " + own + " dev eth0", "link add mac0 link eth0 type macvlan mode bridge", "link set mac0 up",
		"address add " + own + " dev mac0", "route add default via " + gateway + " dev mac0",
	} {
		run(t, host, "", "ip", strings.Fields(command)...)
	}
	for _, h := range l.Hosts {
		startTulled(t, h)
	}
	if err := l.StartContainers(t.Context()); err != nil {
		t.Fatal(err)
	}
	requireMatrix(t, l)
	rest(t, host)
	run(t, host, "", "sh", "-ec", "tc qdisc add dev eth0 clsact; tc filter add dev eth0 ingress bpf bytecode '1,6 0 0 2' direct-action")
	if !eventually(healTimeout, func() bool { return named(t, host, trouble.UplinkFiltered, "eth0 has the tc filter bpf at ingress") }) {
		t.Error("not named")
	}
	run(t, host, "", "tc", "qdisc", "del", "dev", "eth0", "clsact")
	if !eventually(healTimeout, func() bool { return !named(t, host, trouble.UplinkFiltered, "") }) {
		t.Error("still named")
	}
	requireMatrix(t, l)
}

// A device that is moved into another namespace cannot be made again while it lives there, and that is named; once it is gone the host is whole.
func TestDeviceMovedAway(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 2, Containers: 1})
	requireMatrix(t, l)
	host := l.Hosts[0]
	before := fingerprint(t, host)
	for _, device := range []string{"flannel.1", "flannel-v6.1"} {
		t.Run(device, func(t *testing.T) {
			away := exec.CommandContext(t.Context(), "unshare", "--net", "sh", "-c", "echo moved; exec sleep 600")
			out, err := away.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := away.Start(); err != nil {
				t.Fatal(err)
			}
			end := sync.OnceFunc(func() { _ = errors.Join(away.Process.Kill(), away.Wait()) })
			defer end()
			if _, err := out.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			run(t, host, "", "ip", "link", "set", device, "netns", strconv.Itoa(away.Process.Pid))
			if !eventually(healTimeout, func() bool { return named(t, host, trouble.KernelRefused, "ip link add "+device) }) {
				var st uplinkStatus
				t.Errorf("not named: %v, ready %t, %+v", host.Status(t.Context(), &st), st.Ready, st.Troubles)
			}
			end()
			if !eventually(time.Minute, func() bool { return fingerprint(t, host) == before }) {
				t.Errorf("before (-) and after (+) differ:\n%s", cmp.Diff(before, fingerprint(t, host)))
			}
		})
	}
	requireMatrix(t, l)
}
