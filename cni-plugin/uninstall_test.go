//go:build linux

package cniplugin_test

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/google/go-cmp/cmp"

	"tulle/internal/lab/machinetest"
	"tulle/internal/netns"
	"tulle/ip"
)

// cniMachine is a host of a lab with the files of CNI where they are on any host.
type cniMachine struct {
	*machinetest.Machine
	t *testing.T
}

func newCNIMachine(t *testing.T, m *machinetest.Machine) cniMachine {
	t.Helper()
	// Directories are their packages' and runtimes'. Forwarding, once on, stays on: others may rely on it by now.
	m.Run(t, "sh", "-ec", `mkdir -p /etc/cni/net.d /opt/cni/bin
		ln -s "$0"/bridge "$0"/host-local "$0"/loopback "$0"/portmap /opt/cni/bin
		echo 1 >/proc/sys/net/ipv4/ip_forward
		echo 1 >/proc/sys/net/ipv6/conf/all/forwarding`, built().cni)
	return cniMachine{m, t}
}

// plugin runs the plugin for the container with the configuration that was installed.
func (m cniMachine) plugin(command string, c container) []byte {
	m.t.Helper()
	text, err := os.ReadFile(m.File("/etc/cni/net.d/10-tulle.conflist"))
	if err != nil {
		m.t.Fatal(err)
	}
	var list struct {
		CNIVersion, Name string
		Plugins          []map[string]any
	}
	if err := json.Unmarshal(text, &list); err != nil {
		m.t.Fatal(err)
	}
	conf := list.Plugins[0]
	conf["cniVersion"], conf["name"] = list.CNIVersion, list.Name
	if text, err = json.Marshal(conf); err != nil {
		m.t.Fatal(err)
	}
	cmd := m.Command(m.t.Context(), "env", "CNI_COMMAND="+command, "CNI_PATH=/opt/cni/bin", "CNI_CONTAINERID="+c.id, "CNI_NETNS=/run/netns/"+c.id,
		"CNI_IFNAME=eth0", "/opt/cni/bin/"+list.Plugins[0]["type"].(string))
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(text), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		m.t.Fatalf("%s of %s: %v: %s%s", command, c.id, err, &stdout, &stderr)
	}
	return stdout.Bytes()
}

// start attaches a container.
func (m cniMachine) start(id string) (container, ip.Dual[netip.Prefix]) {
	m.t.Helper()
	m.Run(m.t, "ip", "netns", "add", id)
	m.Run(m.t, "ip", "-n", id, "link", "set", "lo", "up")
	c := container{id, m.File("/run/netns/" + id)}
	res, err := create.CreateFromBytes(m.plugin("ADD", c))
	if err != nil {
		m.t.Fatal(err)
	}
	return c, addrsIn(m.t, res)
}

// stop is the end of a container.
func (m cniMachine) stop(c container) {
	m.t.Helper()
	m.plugin("DEL", c)
	m.Run(m.t, "ip", "netns", "delete", c.id)
}

// traces is all that ip, nft and iptables show of the host, and the files of CNI.
func (m cniMachine) traces() string {
	m.t.Helper()
	var text strings.Builder
	counters := regexp.MustCompile(`\[\d+:\d+\]`) // traffic of the host itself counts
	for _, command := range []string{
		"ip -details address", "ip route show table all", "ip -6 route show table all", "ip neighbor show nud permanent", "bridge fdb", "ip rule", "ip -6 rule",
		"nft list ruleset", "iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save",
		"find /etc/cni /opt/cni /var/lib -name docker -prune -o -name containerd -prune -o -print",
	} {
		for line := range strings.Lines(m.Run(m.t, strings.Fields(command)...)) {
			if !strings.HasPrefix(line, "#") { // remarks on the time
				text.WriteString(counters.ReplaceAllString(line, ""))
			}
		}
		text.WriteByte('\n')
	}
	return text.String()
}

// A host on which containers ran is as it was before, once they, the plugin and tulled are gone.
func TestNoTraceIsLeft(t *testing.T) {
	families := ip.Families()
	l := newLab(t, families[:])
	var machines []cniMachine
	var before []string
	for _, h := range l.Hosts {
		m := newCNIMachine(t, machinetest.New(t, h, filepath.Dir(built().tulle)))
		machines, before = append(machines, m), append(before, m.traces())
	}
	ctx := t.Context()
	for _, start := range []func() error{func() error { return l.Etcd.Start(ctx) }, func() error { return l.Configure(ctx) }, func() error { return l.StartDaemons(ctx) }} {
		if err := start(); err != nil {
			t.Fatal(err)
		}
	}
	var containers []container
	var addrs []ip.Dual[netip.Prefix]
	for _, m := range machines {
		m.Run(t, "tulle", "cni", "install")
		c, addr := m.start("c-" + m.Name)
		containers, addrs = append(containers, c), append(addrs, addr)
		c.greet(t)
	}
	for i, c := range containers {
		ns, err := netns.Open(c.netns)
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		for _, f := range families {
			if seen := reach(t, ns, netip.AddrPortFrom(addrs[1-i].Of(f).Addr(), greeterPort)); seen != addrs[i].Of(f).Addr().String() {
				t.Errorf("%s is seen as %s", addrs[i].Of(f), seen)
			}
		}
	}
	for i, m := range machines {
		m.leave(containers[i])
		if after := m.traces(); after != before[i] {
			t.Errorf("%s before (-) and after (+) differ:\n%s", m, cmp.Diff(strings.Split(before[i], "\n"), strings.Split(after, "\n")))
		}
	}
}

// leave takes Tulle from a host with one container. While that is attached, it keeps plugin and bridge.
func (m cniMachine) leave(c container) {
	m.t.Helper()
	if said, err := m.Try(m.t, "tulle", "cni", "uninstall"); err == nil || !strings.Contains(said, c.id+" (eth0 on network tulle)") {
		m.t.Errorf("uninstall with a container attached: %v, %s", err, said)
	}
	if err := m.StopDaemon(); err != nil {
		m.t.Error(err)
	}
	if said := m.Run(m.t, "tulle", "cleanup"); !strings.Contains(said, "bridge cni0 stays, for containers hang on it (veth") {
		m.t.Errorf("cleanup with a container attached says %s", said)
	}
	m.stop(c)
	m.Run(m.t, "tulle", "cni", "uninstall")
	for _, flag := range []string{"--dry-run=true", "--dry-run=false"} {
		if said := m.Run(m.t, "tulle", "cleanup", flag); said != "ip link del dev cni0" {
			m.t.Errorf("cleanup %s without containers says %s", flag, said)
		}
	}
}
