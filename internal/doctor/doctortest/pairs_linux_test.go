package doctortest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"tulle/internal/doctor"
	"tulle/internal/trouble"
	"tulle/ip"
)

// toldWithin is how long the probes, and a neighbour entry, may take to show what is wrong.
const toldWithin = 90 * time.Second

// Every fault between two hosts is named first, by the host that it is on, with the fix that the table has.
func TestPairs(t *testing.T) {
	w := newWorld(t, "vxlan")
	w.addFarContainer(t)
	w.untilPair(t, healedWithin, "healthy from the beginning", healthy)
	for i, p := range Pairs() {
		if testing.Short() && i%4 > 0 { // under the race detector no row has more to show than another
			continue
		}
		t.Run(p.Fault, func(t *testing.T) { w.testPair(t, p) })
	}
}

// addFarContainer makes c3, on h2. tulled there finds it by a process in it.
func (w *world) addFarContainer(t *testing.T) {
	t.Helper()
	lines := []string{"h2 ip netns add c3", "h2 ip link add port3 mtu MTU type veth peer name eth0 mtu MTU netns c3", "h2 ip link set dev port3 master cni0 up",
		"c3 ip link set dev lo up", "c3 ip link set dev eth0 up", "h2 sysctl -w net.ipv6.conf.all.keep_addr_on_down=1", "h2 rm -f /etc/resolv.conf; touch /etc/resolv.conf",
		"h1 sysctl -w net.ipv4.neigh.eth0.base_reachable_time_ms=2000 net.ipv4.neigh.eth0.delay_first_probe_time=1"} // or it takes a minute to know that a machine is off
	for _, f := range ip.Families() {
		gateway := w.subnet(t, 1, f).Addr().Next()
		nodad := map[ip.Family]string{ip.IPv6: " nodad"}[f]
		lines = append(lines, fmt.Sprintf("c3 ip address add %s/%d dev eth0%s", gateway.Next(), w.subnet(t, 1, f).Bits(), nodad), fmt.Sprintf("c3 %s route add default via %s dev eth0", f.Command(), gateway))
	}
	w.doFar(t, lines)
	w.machines["h2"].Run(t, "bash", "-c", "ip netns exec c3 sleep 3600 >/dev/null 2>&1 &")
}

// doFar is do for what is on h2, or between the hosts.
func (w *world) doFar(t *testing.T, lines []string) {
	t.Helper()
	for _, line := range lines {
		where, command, _ := strings.Cut(w.farWords(t).Replace(line), " ")
		switch where {
		case "c3":
			w.run(t, "h2", "ip netns exec c3 "+command)
		case "router":
			ns, err := w.lab.Namespace("router")
			if err != nil {
				t.Fatal(err)
			}
			if err := ns.Do(func() error {
				out, err := exec.CommandContext(t.Context(), "bash", "-ec", command).CombinedOutput()
				if err != nil {
					return fmt.Errorf("%s: %w: %s", command, err, out)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		default:
			w.run(t, where, command)
		}
	}
}

// farWords are those of h2, then those of the lab.
func (w *world) farWords(t *testing.T) replacers {
	t.Helper()
	var pairs []string
	for _, f := range ip.Families() {
		pairs = append(pairs, "GATE"+strings.TrimPrefix(f.String(), "ipv"), w.subnet(t, 1, f).Addr().Next().String())
	}
	return replacers{strings.NewReplacer(pairs...), w.words}
}

type replacers []*strings.Replacer

func (rs replacers) Replace(s string) string {
	for _, r := range rs {
		s = r.Replace(s)
	}
	return s
}

func (w *world) untilPair(t *testing.T, within time.Duration, what string, wanted func(doctor.Report) bool) doctor.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	near, far := w.subnet(t, 0, ip.IPv4).Addr().Next().Next(), w.subnet(t, 1, ip.IPv4).Addr().Next().Next()
	for {
		began := time.Now()
		report, err := w.ask(t, "h1", near.String(), far.String())
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("took %v", took)
		}
		if err == nil && wanted(report) {
			return report
		}
		select {
		case <-ctx.Done():
			text, _ := json.MarshalIndent(report, "", "  ")
			t.Fatalf("not %s within %v: %v\n%s", what, within, errors.Join(err), text)
		case <-time.After(lookEvery):
		}
	}
}

// testPair injects a fault, and follows what the doctor prints until it finds nothing.
func (w *world) testPair(t *testing.T, p Pair) {
	w.doFar(t, p.Inject)
	report := w.untilPair(t, toldWithin, "found", func(r doctor.Report) bool {
		return len(r.Findings) > 0 && r.Findings[0].Code == p.Code && r.Findings[0].Host == p.On && !slices.ContainsFunc(p.Follow, func(c trouble.Code) bool { return !slices.Contains(codes(r.Findings[0].Follows), c) })
	})
	first := report.Findings[0]
	t.Logf("%+v", first)
	if !slices.EqualFunc(first.Fix[:min(len(first.Fix), len(p.Fix))], p.Fix, func(got, want string) bool { return strings.HasSuffix(got, w.farWords(t).Replace(want)) }) {
		t.Errorf("the fix is %q, want %q", first.Fix, p.Fix)
	}
	if len(first.Fix) == 0 && first.Remedy == "" {
		t.Errorf("%+v says not what to do", first)
	}
	if w.doFar(t, p.ByHand); len(p.ByHand) == 0 {
		for _, command := range first.Fix {
			w.run(t, first.Host, command)
		}
	}
	if p.Slow {
		return
	}
	w.untilPair(t, toldWithin, "healed", healthy)
	w.doFar(t, p.After)
	w.untilPair(t, toldWithin, "as before", healthy)
}
