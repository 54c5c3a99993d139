//go:build linux

package lab_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tulle/internal/lab"
	"tulle/internal/trouble"
	"tulle/ip"
)

// Who lets a flow through where something drops what is forwarded.
const (
	byTulle    = "Tulle"
	byTulleEnd = "Tulle, after the rules that are there"
	byNobody   = "nothing: it is not forwarded"
	byOperator = "the operator"
)

// flowRow is a row of docs/flows.md. What is not forwarded on the first host is there to show that nothing else keeps it from passing.
type flowRow struct {
	from, to, opened string
	outer            bool // to or from the world outside, which no host needs in order to be ready
	try              func(w *flowWorld, f ip.Family) error
}

func flowTable() []flowRow {
	connect := func(pick func(w *flowWorld) (from, to end)) func(w *flowWorld, f ip.Family) error {
		return func(w *flowWorld, f ip.Family) error {
			from, to := pick(w)
			_, err := w.connect(from, netip.Addr{}, to, netip.AddrPortFrom(to.addr.Of(f), podPort))
			return err
		}
	}
	published := func(pick func(w *flowWorld) end) func(w *flowWorld, f ip.Family) error {
		return func(w *flowWorld, f ip.Family) error {
			_, err := w.connect(pick(w), netip.Addr{}, w.one, netip.AddrPortFrom(w.host.Addr.Of(f), hostPort))
			return err
		}
	}
	return []flowRow{
		{"container", "container of another host", byTulle, false, connect(func(w *flowWorld) (_, _ end) { return w.one, w.remote })},
		{"container of another host", "container", byTulle, false, connect(func(w *flowWorld) (_, _ end) { return w.remote, w.one })},
		{"container", "container on the same bridge", byTulle, false, connect(func(w *flowWorld) (_, _ end) { return w.one, w.two })},
		{"container", "multicast on the same bridge", byTulle, false, func(w *flowWorld, f ip.Family) error { return w.multicast(f, w.one, w.two) }},
		{"container", "container on another bridge with the lease", byTulle, false, connect(func(w *flowWorld) (_, _ end) { return w.one, w.second })},
		{"container", "published port of its own host, of another container", byTulle, false, published(func(w *flowWorld) end { return w.two })},
		{"container", "published port of its own host, of itself", byTulle, false, published(func(w *flowWorld) end { return w.one })},
		{"outside", "published port", byTulle, true, published(func(w *flowWorld) end { return w.outside })},
		{"container of another host", "published port", byTulle, true, published(func(w *flowWorld) end { return w.remote })},
		{"process of another host", "published port", byTulle, true, published(func(w *flowWorld) end { return w.there })},
		{"container of another network of this host", "published port", byTulle, true, published(func(w *flowWorld) end { return w.stranger })},
		{"process of another host, over VXLAN or IPIP", "container", byTulle, false, connect(func(w *flowWorld) (_, _ end) { return w.there, w.one })},
		{"container", "outside, through the interface of the default route", byTulleEnd, true, connect(func(w *flowWorld) (_, _ end) { return w.one, w.outside })},
		{"container", "address of another host", byTulleEnd, true, connect(func(w *flowWorld) (_, _ end) { return w.one, w.there })},
		{"process of this host", "container", byNobody, false, connect(func(w *flowWorld) (_, _ end) { return w.here, w.one })},
		{"process of this host", "container of another host", byNobody, false, connect(func(w *flowWorld) (_, _ end) { return w.here, w.remote })},
		{"container", "address of this host", byNobody, false, connect(func(w *flowWorld) (_, _ end) { return w.one, w.here })},
		{"outside", "container, by its own address", byOperator, true, connect(func(w *flowWorld) (_, _ end) { return w.outside, w.one })},
		{"container of another network of this host", "container", byOperator, true, connect(func(w *flowWorld) (_, _ end) { return w.stranger, w.one })},
		{"container", "container of another network of this host", byOperator, true, connect(func(w *flowWorld) (_, _ end) { return w.one, w.stranger })},
		{"container of another network of this host", "container of another host", byOperator, true, connect(func(w *flowWorld) (_, _ end) { return w.stranger, w.remote })},
	}
}

// The table in the documentation is the one that is tested.
func TestFlowsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/flows.md")
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, " | "); strings.HasPrefix(line, "| ") && len(cells) > 3 {
			got = append(got, strings.TrimPrefix(strings.Join(cells[:3], " | "), "| "))
		}
	}
	want = append(want, "from | to | opened by")
	for _, r := range flowTable() {
		want = append(want, r.from+" | "+r.to+" | "+r.opened)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows of docs/flows.md (+) are not those that are tested (-):\n%s", diff)
	}
}

// tried is what becomes of the flows of the table in each family, and which connections were made.
func (w *flowWorld) tried(expected func(flowRow) bool) (errs map[string]error, made map[string]string) {
	errs, made = map[string]error{}, map[string]string{}
	for _, f := range w.lab.Config.Families {
		for _, r := range flowTable() {
			var err error
			w.last = ""
			try := func() bool { err = r.try(w, f); return err == nil }
			if expected(r) {
				eventually(openingTime, try)
			} else {
				try()
			}
			name := fmt.Sprintf("%s: %s to %s", f, r.from, r.to)
			errs[name], made[name] = err, w.last
		}
	}
	return errs, made
}

// requireFlows checks what passes against what should.
func (w *flowWorld) requireFlows(t *testing.T, passes func(flowRow) bool) {
	t.Helper()
	errs, made := w.tried(passes)
	for _, f := range w.lab.Config.Families {
		for _, r := range flowTable() {
			name := fmt.Sprintf("%s: %s to %s", f, r.from, r.to)
			if err := errs[name]; (err == nil) != passes(r) {
				t.Errorf("%s: %v (%s), want it to pass: %t", name, err, made[name], passes(r))
			}
		}
	}
}

// Whatever drops what is forwarded, and wherever it does, the flows of the table pass that Tulle opens, and no others; where
// they do not, status names the place.
func TestFlows(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 2, Containers: 2, FastPath: "on"})
	w := newFlowWorld(t, l)
	w.requireFlows(t, func(flowRow) bool { return true })
	status := func() (blocked string, ready bool, reason string) {
		var st struct{ Troubles trouble.List }
		if err := w.host.Status(t.Context(), &st); err != nil {
			t.Fatal(err)
		}
		ready, reason = w.host.Ready(t.Context())
		return strings.Join(st.Troubles.Texts(trouble.ForwardBlocked, trouble.ForwardUncertain, trouble.OutsideBlocked), "\n"), ready, reason
	}
	requireStatus := func(t *testing.T, ready bool, place string) {
		t.Helper()
		var blocked, reason string
		var got bool
		if !eventually(openingTime, func() bool {
			blocked, got, reason = status()
			return got == ready && (blocked != "") == (place != "") && strings.Contains(blocked, place)
		}) {
			t.Errorf("ready is %t (%s), blocked at %q, want %t and %q", got, reason, blocked, ready, place)
		}
	}
	for engine, name := range engines() {
		t.Run("policy of iptables"+name, func(t *testing.T) {
			iptables(t, w.host, engine, "-P", "FORWARD", "DROP")
			w.requireFlows(t, func(r flowRow) bool { return r.opened != byOperator })
			requireStatus(t, true, "")
			iptables(t, w.host, engine, "-P", "FORWARD", "ACCEPT")
			requireNoOpenings(t, w.host)
		})
		t.Run("somebody is kept out, in iptables"+name, func(t *testing.T) {
			iptables(t, w.host, engine, "-P", "FORWARD", "DROP")
			for f, program := range map[ip.Family]string{ip.IPv4: "iptables", ip.IPv6: "ip6tables"} {
				run(t, w.host, "", program+name, "-w", "5", "-I", "FORWARD", "-s", w.outside.addr.Of(f).String(), "-p", "tcp", "--dport", fmt.Sprint(podPort), "-j", "DROP")
			}
			for range 2 { // at first, nothing may be open yet
				w.requireFlows(t, func(r flowRow) bool {
					return r.opened != byOperator && !(r.from == "outside" && r.to == "published port")
				})
			}
			requireStatus(t, true, "")
			iptables(t, w.host, engine, "-P", "FORWARD", "ACCEPT")
			iptables(t, w.host, engine, "-F")
			requireNoOpenings(t, w.host)
		})
		t.Run("user chain of iptables"+name, func(t *testing.T) {
			iptables(t, w.host, engine, "-N", "MINE")
			iptables(t, w.host, engine, "-A", "MINE", "-j", "REJECT")
			iptables(t, w.host, engine, "-A", "FORWARD", "-j", "MINE")
			w.requireFlows(t, func(r flowRow) bool { return r.opened == byTulle || r.opened == byNobody })
			requireStatus(t, true, "chain MINE drops packets from containers to the outside")
			iptables(t, w.host, engine, "-F")
			iptables(t, w.host, engine, "-X")
			requireNoOpenings(t, w.host)
		})
	}
	t.Run("table of nft", func(t *testing.T) {
		run(t, w.host, "table inet fw {\nchain forward {\ntype filter hook forward priority 10; policy drop;\nct state established,related accept\n}\n}\n", "nft", "-f", "-")
		w.requireFlows(t, func(r flowRow) bool { return r.opened == byNobody })
		requireStatus(t, false, "nft table inet fw chain forward drops packets between containers of this host and others")
		// What is said to help does, and what is left is told.
		_, _, reason := status()
		_, commands, _ := strings.Cut(reason, "as by nft ")
		commands = strings.ReplaceAll(commands, " and nft ", "\n")
		run(t, w.host, commands, "nft", "-f", "-")
		w.requireFlows(t, func(r flowRow) bool { return r.opened == byNobody || r.opened == byTulle && !r.outer })
		requireStatus(t, true, "drops packets from the outside to published ports of containers and from containers to the outside")
		run(t, w.host, "", "nft", "delete", "table", "inet", "fw")
		requireStatus(t, true, "")
	})
}

// requireNoOpenings waits until nothing is opened any more.
func requireNoOpenings(t *testing.T, host *lab.Host) {
	t.Helper()
	for _, program := range []string{"iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"} {
		if !eventually(openingTime, func() bool { return openings(t, host, program) == 0 }) {
			t.Errorf("%s-save shows %d openings, want none", program, openings(t, host, program))
		}
	}
}
