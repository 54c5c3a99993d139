//go:build linux

package lab_test

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/internal/lab/machinetest"
	"tulle/internal/trouble"
	"tulle/ip"
)

// What Docker 20.10 makes for a bridge, and what Docker 28 adds in table raw for each container that publishes a port.
// ADDR is the address of a container. The packets of other hosts' containers match none of its accepts.
const (
	dockerChains = `*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o cni0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o cni0 -j DOCKER
-A FORWARD -i cni0 ! -o cni0 -j ACCEPT
-A FORWARD -i cni0 -o cni0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i cni0 ! -o cni0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o cni0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
`
	dockerRaw = `*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -d ADDR ! -i cni0 -j DROP
COMMIT
`
	// dockerNFT is of Docker 29's own nftables backend. MARK stands for what "bridge-accept-fwmark" adds.
	dockerNFT = `table ip docker-bridges {
	map filter-forward-in-jumps {
		type ifname : verdict
		elements = { "cni0" : jump filter-forward-in__cni0 }
	}
	chain filter-FORWARD {
		type filter hook forward priority filter; policy accept;
		oifname vmap @filter-forward-in-jumps
	}
	chain filter-forward-in__cni0 {
		ct state established,related counter accept
		MARK
		iifname "cni0" counter accept comment "ICC"
		counter drop comment "UNPUBLISHED PORT DROP"
	}
	chain raw-PREROUTING {
		type filter hook prerouting priority raw; policy accept;
		ip daddr ADDR iifname != "cni0" counter drop comment "DROP DIRECT ACCESS"
	}
}
`
)

// engines are the beginnings of iptables' programs, by what they write to.
func engines() map[ip.Engine]string {
	return map[ip.Engine]string{ip.NFTables: "-nft", ip.IPTables: "-legacy"}
}

// run runs a program in a host and returns what it prints.
func run(t testing.TB, host *lab.Host, input, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	var output, complaint bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &output, &complaint
	if err := host.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s: %v: %s", cmd, err, &complaint)
	}
	return output.String()
}

// iptables runs a program of iptables for each family.
func iptables(t *testing.T, host *lab.Host, engine ip.Engine, args ...string) {
	t.Helper()
	for _, program := range []string{"iptables", "ip6tables"} {
		run(t, host, "", program+engines()[engine], append([]string{"-w", "5"}, args...)...)
	}
}

// restore loads the text with iptables-restore for each family.
func restore(t *testing.T, host *lab.Host, engine ip.Engine, text string) {
	t.Helper()
	for family, program := range map[ip.Family]string{ip.IPv4: "iptables", ip.IPv6: "ip6tables"} {
		addr := host.Containers[0].Addr.Of(family).String()
		run(t, host, strings.ReplaceAll(text, "ADDR", addr), program+engines()[engine]+"-restore", "-w", "5")
	}
}

// Whatever iptables does to forwarded packets, by whichever of its engines, containers on other hosts are cut off for
// less than 2 seconds, and once the drop is gone there is nothing left of Tulle's in the chain.
func TestForwardingHeals(t *testing.T) {
	for _, backend := range bothBackends() {
		t.Run(backend, func(t *testing.T) {
			l := upLab(t, lab.Config{Hosts: 2, Containers: 1, Backend: map[string]any{"Type": backend}})
			requireMatrix(t, l)
			for engine, name := range engines() {
				t.Run("iptables"+name, func(t *testing.T) { forwardingHeals(t, l, engine) })
			}
		})
	}
}

func forwardingHeals(t *testing.T, l *lab.Lab, engine ip.Engine) {
	host, peer := l.Hosts[0], l.Hosts[1]
	var streams []runningStream
	for _, family := range ip.Families() {
		streams = append(streams, startStream(t, host, peer, family, 200), startStream(t, peer, host, family, 200))
	}
	for _, step := range []struct {
		name     string
		do       func()
		openings int // in each family
	}{
		{"policy drop", func() { iptables(t, host, engine, "-P", "FORWARD", "DROP") }, 8},
		{"policy accept", func() { iptables(t, host, engine, "-P", "FORWARD", "ACCEPT") }, 0},
		{"reject", func() { iptables(t, host, engine, "-A", "FORWARD", "-j", "REJECT") }, 6},
		{"Docker", func() { restore(t, host, engine, dockerChains) }, 1},
		{"DOCKER-USER flushed", func() { iptables(t, host, engine, "-F", "DOCKER-USER") }, 1},
		{"Docker again", func() { restore(t, host, engine, dockerChains) }, 1},
		{"Docker 28", func() { restore(t, host, engine, dockerRaw) }, 2},
		{"table raw flushed and restored", func() { restore(t, host, engine, dockerRaw) }, 2},
		{"Docker gone", func() {
			iptables(t, host, engine, "-t", "raw", "-F")
			iptables(t, host, engine, "-F")
			iptables(t, host, engine, "-X")
			iptables(t, host, engine, "-P", "FORWARD", "ACCEPT")
		}, 0},
		{"nft flush ruleset", func() {
			restore(t, host, engine, dockerChains)
			run(t, host, "", "nft", "flush", "ruleset")
			if engine == ip.IPTables {
				iptables(t, host, engine, "-F")
			}
			restore(t, host, engine, dockerChains)
		}, 1},
		{"end", func() {
			iptables(t, host, engine, "-F")
			iptables(t, host, engine, "-P", "FORWARD", "ACCEPT")
		}, 0},
	} {
		t.Run(step.name, func(t *testing.T) {
			step.do()
			for _, program := range []string{"iptables", "ip6tables"} {
				if !eventually(healTimeout, func() bool { return openings(t, host, program+engines()[engine]) == step.openings }) {
					t.Errorf("%s-save shows %d openings, want %d", program, openings(t, host, program+engines()[engine]), step.openings)
				}
			}
			requireMatrix(t, l)
			var reason string
			if !eventually(healTimeout, func() (ready bool) { ready, reason = host.Ready(t.Context()); return ready }) {
				t.Errorf("not ready: %s", reason)
			}
		})
	}
	var stopping sync.WaitGroup
	for _, s := range streams {
		stopping.Go(func() {
			if report := s.Stop(); report.LongestGap > labtest.Limit(healTimeout) {
				t.Errorf("%s: cut off for %v", s.name, report.LongestGap)
			}
		})
	}
	stopping.Wait()
}

// openings counts the rules of Tulle's in the tables of a program.
func openings(t *testing.T, host *lab.Host, program string) int {
	t.Helper()
	return strings.Count(run(t, host, "", program+"-save"), "--comment "+ip.OpeningComment+" ")
}

// Without tulled the same chains do cut containers off; it heals them when it starts, and leaves them healed when it ends.
func TestForwardingIsOpenedAtStart(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 2, Containers: 1, Families: []ip.Family{ip.IPv4}})
	host := l.Hosts[0]
	for _, name := range engines() {
		if err := host.StopDaemon(); err != nil {
			t.Fatal(err)
		}
		run(t, host, dockerChains, "iptables"+name+"-restore", "-w", "5")
		if matrix, err := l.Matrix(t.Context()); err != nil || matrix.Pass {
			t.Errorf("iptables%s: packets pass without tulled, %v", name, err)
		}
		if err := host.StartDaemon(); err != nil {
			t.Fatal(err)
		}
		if err := host.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := host.StopDaemon(); err != nil {
			t.Fatal(err)
		}
		requireMatrix(t, l)
	}
}

// Where no accept of Tulle's can win, readyz and tulle status name the table and the chain, and what to change.
func TestForwardingBlockedIsNamed(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 2, Containers: 1, Families: []ip.Family{ip.IPv4}})
	requireMatrix(t, l)
	host := l.Hosts[0]
	network := l.Config.Network.V4.String()
	for _, test := range []struct {
		name, rules string
		want        []string
	}{
		{"policy", "table inet fw {\nchain forward {\ntype filter hook forward priority 10; policy drop;\nct state established,related accept\n}\n}\n",
			[]string{"nft table inet fw chain forward drops", "nft insert rule inet fw forward ip saddr " + network + " ip daddr " + network + " accept"}},
		{"firewalld", "table inet firewalld {\nchain filter_FORWARD {\ntype filter hook forward priority 10;\nct state established,related accept\nreject with icmpx admin-prohibited\n}\n}\n",
			[]string{"nft table inet firewalld chain filter_FORWARD drops", "firewall-cmd --permanent --zone=trusted --add-source=" + network}},
		{"Docker 29", strings.NewReplacer("ADDR", host.Containers[0].Addr.V4.String(), "MARK", "").Replace(dockerNFT),
			[]string{"nft table ip docker-bridges chain filter-forward-in__cni0 drops", `"bridge-accept-fwmark": "0x2000/0x2000"`,
				"nft table ip docker-bridges chain raw-PREROUTING drops", `"allow-direct-routing": true`, "trusted_host_interfaces=flannel.1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			run(t, host, test.rules, "nft", "-f", "-")
			var reason string
			named := func() bool {
				var ready bool
				ready, reason = host.Ready(t.Context())
				return !ready && !slices.ContainsFunc(test.want, func(s string) bool { return !strings.Contains(reason, s) })
			}
			if !eventually(healTimeout, named) {
				t.Errorf("readyz says %q, want %q", reason, test.want)
			}
			var status struct{ Troubles trouble.List }
			if err := host.Status(t.Context(), &status); err != nil {
				t.Fatal(err)
			}
			if text := strings.Join(status.Troubles.Texts(trouble.ForwardBlocked), "\n"); text != reason {
				t.Errorf("status says %q, readyz %q", text, reason)
			}
			if matrix, err := l.Matrix(t.Context()); err != nil || matrix.Pass {
				t.Errorf("packets pass all the same, %v", err)
			}
			// What is said to help does.
			if _, commands, ok := strings.Cut(reason, "as by nft "); ok {
				run(t, host, strings.ReplaceAll(commands, " and nft ", "\n"), "nft", "-f", "-")
				requireMatrix(t, l)
			}
			run(t, host, "", "nft", "delete", "table", strings.Fields(test.rules)[1], strings.Fields(test.rules)[2])
			if !eventually(healTimeout, func() bool { ready, _ := host.Ready(t.Context()); return ready }) {
				t.Error("not ready with the table gone")
			}
		})
	}
}

// Docker's own nftables backend is told to let marked packets in. Tulle marks them as long as that is of use.
func TestForwardingMarks(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 2, Containers: 1, Families: []ip.Family{ip.IPv4}})
	host, peer := l.Hosts[0], l.Hosts[1]
	stream := startStream(t, peer, host, ip.IPv4, 200)
	rules := strings.NewReplacer("ADDR", "192.0.2.9", "MARK", "meta mark & 0x2000 == 0x2000 counter accept").Replace(dockerNFT)
	run(t, host, rules, "nft", "-f", "-")
	marks := func() bool {
		return strings.Contains(run(t, host, "", "nft", "list", "table", "ip", ip.TableName), "meta mark set")
	}
	if !eventually(healTimeout, marks) {
		t.Error("nothing is marked")
	}
	requireMatrix(t, l)
	if ready, reason := host.Ready(t.Context()); !ready {
		t.Errorf("not ready: %s", reason)
	}
	run(t, host, "", "nft", "delete", "table", "ip", "docker-bridges")
	if !eventually(healTimeout, func() bool { return !marks() }) {
		t.Error("marked without need")
	}
	if report := stream.Stop(); report.LongestGap > labtest.Limit(healTimeout) {
		t.Errorf("cut off for %v", report.LongestGap)
	}
}

// A host that was full of other programs' rules is as it was after tulle cleanup.
func TestCleanupLeavesNoTrace(t *testing.T) {
	l := newLab(t, lab.Config{Hosts: 2})
	host := l.Hosts[0]
	for engine := range engines() {
		for _, program := range []string{"iptables", "ip6tables"} {
			run(t, host, dockerChains, program+engines()[engine]+"-restore", "-w", "5")
		}
	}
	// Forwarding stays on, for others may rely on it by now.
	run(t, host, "", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
	before := machinetest.Traces(t, host)
	ctx := t.Context()
	if err := l.Etcd.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.Configure(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.StartDaemons(ctx); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"} {
		if !eventually(5*time.Second, func() bool { return openings(t, host, program) > 0 }) {
			t.Errorf("no openings in %s-save", program)
		}
	}
	if machinetest.Traces(t, host) == before {
		t.Error("tulled leaves no trace even while it runs")
	}
	if err := host.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	tulle(t, l, host, "cleanup")
	if after := machinetest.Traces(t, host); after != before {
		t.Errorf("before (-) and after (+) differ:\n%s", cmp.Diff(before, after))
	}
}
