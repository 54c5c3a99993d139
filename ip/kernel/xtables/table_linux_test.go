package xtables

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tulle/internal/netns"
	"tulle/internal/netns/netnstest"
	"tulle/ip"
)

// host is a network namespace in which iptables-legacy is used.
type host struct {
	testing.TB
	ns     *netns.Namespace
	family ip.Family
	socket *Socket
}

func newHost(t testing.TB, f ip.Family) *host {
	unlock, err := Lock(t.Context())
	netnstest.Require(t, err)
	h := &host{TB: t, ns: netnstest.New(t), family: f}
	h.must(unlock())
	h.must(h.ns.Do(func() (err error) {
		h.socket, err = Dial(f)
		return err
	}))
	t.Cleanup(func() { h.must(h.socket.Close()) })
	return h
}

func (h *host) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// iptables runs a program of iptables-legacy and returns what it prints.
func (h *host) iptables(input, suffix string, args ...string) string {
	h.Helper()
	name := map[ip.Family]string{ip.IPv4: "iptables-legacy", ip.IPv6: "ip6tables-legacy"}[h.family] + suffix
	cmd := exec.CommandContext(context.Background(), name, args...)
	var output, complaint bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &output, &complaint
	h.must(h.ns.Do(cmd.Start))
	if err := cmd.Wait(); err != nil {
		h.Fatalf("%s: %v: %s\n%s", cmd, err, &complaint, input)
	}
	return output.String()
}

// save is what iptables-legacy-save prints, counters included, without its remarks on the time.
func (h *host) save() string {
	var lines []string
	for line := range strings.Lines(h.iptables("", "-save", "-c")) {
		if line[0] != '#' {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

func (h *host) restore(text string) { h.iptables(text, "-restore", "-c", "-w", "5") }

func (h *host) edit(edit func(*Table) bool) bool {
	h.Helper()
	unlock, err := Lock(context.Background())
	h.must(err)
	defer func() { h.must(unlock()) }()
	t, err := h.socket.Read("filter")
	h.must(err)
	if !edit(t) {
		return false
	}
	h.must(h.socket.Replace(t))
	return true
}

// opening lets the network into a subnet of it.
func opening(f ip.Family, chain string) ip.Opening {
	network := ip.Dual[string]{V4: "10.50.0.0/16", V6: "fd50::/44"}.Of(f)
	subnet := ip.Dual[string]{V4: "10.50.3.128/25", V6: "fd50:0:3::/64"}.Of(f)
	return ip.Opening{
		Place: ip.Place{Engine: ip.IPTables, Family: f, Table: "filter", Chain: chain},
		Src:   netip.MustParsePrefix(network), Dst: netip.MustParsePrefix(subnet), In: "flannel.1",
	}
}

// randomTable is the text of a filter table with jumps, gotos and empty chains, and with counters.
func randomTable(r *rapid.T, f ip.Family) string {
	users := []string{"A", "B", "DOCKER-USER"}[:rapid.IntRange(0, 3).Draw(r, "chains")]
	var text strings.Builder
	text.WriteString("*filter\n")
	for _, name := range []string{"INPUT", "FORWARD", "OUTPUT"} {
		fmt.Fprintf(&text, ":%s %s [%d:%d]\n", name, rapid.SampledFrom([]string{"ACCEPT", "DROP"}).Draw(r, "policy"), r0(r), r0(r))
	}
	for _, name := range users {
		fmt.Fprintf(&text, ":%s - [0:0]\n", name)
	}
	address := ip.Dual[string]{V4: "10.50.3.0/25", V6: "fd50:0:3::/61"}.Of(f)
	conditions := []string{
		"", "-s " + address, "! -d " + address, "-p tcp -m tcp --dport 80", "-p udp",
		`-m comment --comment "not tulle"`, "-m conntrack --ctstate RELATED,ESTABLISHED",
	}
	chains := append([]string{"INPUT", "FORWARD", "OUTPUT"}, users...)
	for i, chain := range chains {
		targets := []string{"", "-j ACCEPT", "-j DROP", "-j RETURN", "-j REJECT", "-j LOG"}
		for _, later := range users[max(0, i-2):] { // none that lead back
			targets = append(targets, "-j "+later, "-g "+later)
		}
		possible := conditions
		if chain == "FORWARD" {
			possible = append(slices.Clone(conditions), "-i flannel.1", "! -o eth+")
		}
		for range rapid.IntRange(0, 4).Draw(r, "rules") {
			fmt.Fprintf(&text, "[%d:%d] -A %s %s %s\n", r0(r), r0(r), chain,
				rapid.SampledFrom(possible).Draw(r, "condition"), rapid.SampledFrom(targets).Draw(r, "target"))
		}
	}
	return text.String() + "COMMIT\n"
}

// r0 is the value of a counter.
func r0(r *rapid.T) int { return rapid.IntRange(0, 1000).Draw(r, "counter") }

// A table is written back as it was read, and what is put into it and taken out again leaves no trace: neither in rules
// nor in counters.
func TestRoundTrip(t *testing.T) {
	for _, f := range ip.Families() {
		t.Run(f.String(), func(t *testing.T) {
			h := newHost(t, f)
			rapid.Check(t, func(r *rapid.T) {
				h.restore(randomTable(r, f))
				b, err := h.socket.read("filter")
				h.must(err)
				table, err := parse(f, "filter", b)
				h.must(err)
				if got := table.render(); !slices.Equal(got.data, b.data) || got.entries != b.entries ||
					!slices.Equal(got.hooks[1:4], b.hooks[1:4]) || !slices.Equal(got.underflow[1:4], b.underflow[1:4]) {
					r.Fatalf("rendered %d entries, hooks %d and %d, want %d, %d and %d",
						got.entries, got.hooks, got.underflow, b.entries, b.hooks, b.underflow)
				}
				before := h.save()
				o := opening(f, rapid.SampledFrom([]string{"INPUT", "FORWARD", "OUTPUT", "A", "DOCKER-USER"}).Draw(r, "where"))
				if o.Chain == "OUTPUT" {
					o.In, o.Out = "", o.In
				}
				if !h.edit(func(t *Table) bool { return t.Open(o) }) {
					return
				}
				first := fmt.Sprintf("[0:0] -A %s -s %s -d %s ", o.Chain, o.Src, o.Dst)
				if after := h.save(); strings.Index(after, first) != strings.Index(after, "-A "+o.Chain+" ")-len("[0:0] ") {
					r.Fatalf("%q does not come first in:\n%s", first, after)
				}
				if !h.edit(func(t *Table) bool { return t.Close(o) }) {
					r.Fatal("not found again")
				}
				if after := h.save(); after != before {
					r.Fatalf("before:\n%s\nafter:\n%s", before, after)
				}
			})
		})
	}
}

// A chain is deleted with the rules that lead to it.
func TestDeleteChain(t *testing.T) {
	for _, f := range ip.Families() {
		h := newHost(t, f)
		const rest = "*filter\n:INPUT ACCEPT [1:2]\n:FORWARD DROP [3:4]\n:OUTPUT ACCEPT [0:0]\n:LAST - [0:0]\n" +
			"[5:6] -A FORWARD -j LAST\n[7:8] -A LAST -j ACCEPT\nCOMMIT\n"
		text := strings.Replace(rest, ":LAST", ":FLANNEL-FWD - [0:0]\n:LAST", 1)
		text = strings.Replace(text, "[5:6]", "[9:9] -A FORWARD -j FLANNEL-FWD\n[5:6]", 1)
		text = strings.Replace(text, "[7:8]", "[9:9] -A FLANNEL-FWD -j LAST\n[9:9] -A LAST -g FLANNEL-FWD\n[7:8]", 1)
		h.restore(strings.Replace(text, "[9:9] -A LAST -g FLANNEL-FWD\n", "", 1))
		for _, name := range []string{"FLANNEL-FWD", "FORWARD", "MISSING"} {
			if done := h.edit(func(t *Table) bool { return t.DeleteChain(name) }); done != (name == "FLANNEL-FWD") {
				t.Errorf("%s: DeleteChain(%s) = %t", f, name, done)
			}
		}
		if got := h.save(); got != rest {
			t.Errorf("%s: got\n%s\nwant\n%s", f, got, rest)
		}
	}
}

// Whatever the kernel hands out, nothing goes out of bounds.
func TestParseSurvivesGarbage(t *testing.T) {
	for _, f := range ip.Families() {
		h := newHost(t, f)
		rapid.Check(t, func(r *rapid.T) {
			h.TB = t
			h.restore(randomTable(r, f))
			b, err := h.socket.read("filter")
			h.must(err)
			for range 50 {
				broken := b
				broken.data = slices.Clone(b.data)
				for range rapid.IntRange(1, 4).Draw(r, "bytes") {
					broken.data[rapid.IntRange(0, len(b.data)-1).Draw(r, "at")] = rapid.Byte().Draw(r, "byte")
				}
				if table, err := parse(f, "filter", broken); err == nil {
					table.Filters()
					table.Open(opening(f, "FORWARD"))
					table.render()
				}
			}
		})
	}
}

// A namespace in which nobody has used iptables-legacy has no tables, and looking makes none.
func TestNamesMakesNoTables(t *testing.T) {
	h := newHost(t, ip.IPv4)
	h.must(h.ns.Do(func() error {
		for range 2 {
			names, err := Names(ip.IPv4)
			h.must(err)
			if len(names) != 0 {
				t.Errorf("tables %q, want none", names)
			}
		}
		return nil
	}))
}
