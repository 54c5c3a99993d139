//go:build linux

package lab_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/internal/trouble"
	"tulle/ip"
)

// join puts a host into networks besides the one of its uplink, by a link of its own.
func join(t *testing.T, host *lab.Host, networks ...netip.Prefix) {
	t.Helper()
	commands := []string{"link add lan0 link eth0 type macvlan mode bridge", "link set lan0 up"}
	for _, p := range networks {
		commands = append(commands, "address add "+netip.PrefixFrom(p.Addr().Next(), p.Bits()).String()+" dev lan0"+map[bool]string{true: " nodad"}[p.Addr().Is6()])
	}
	for _, command := range commands {
		run(t, host, "", "ip", strings.Fields(command)...)
	}
}

// A new lease keeps out of the networks that its host is in. One that is held stays, and is named; if there is none without an overlap, that is
// said, and what to do.
func TestLeasesKeepOutOfNetworksOfTheHost(t *testing.T) {
	l := newLab(t, lab.Config{Hosts: 2, Containers: 1})
	begin(t, l)
	var all, allButOne []netip.Prefix
	var last ip.Dual[netip.Prefix]
	for _, f := range ip.Families() {
		upper := l.Config.Network.Of(f)
		all = append(all, upper)
		for bits := upper.Bits() + 1; bits <= (ip.Dual[int]{V4: 24, V6: 64}).Of(f); bits++ {
			allButOne = append(allButOne, netip.PrefixFrom(upper.Addr(), bits))
			upper = netip.PrefixFrom(ip.Last(upper), bits).Masked()
		}
		last.Set(f, upper)
	}
	host, crowded := l.Hosts[0], l.Hosts[1]
	join(t, host, allButOne...)
	join(t, crowded, all...)
	start := func() {
		t.Helper()
		if err := host.StartDaemon(); err != nil {
			t.Fatal(err)
		}
		if err := host.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	holds := func() {
		t.Helper()
		env, err := host.ReadSubnetFile()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range ip.Families() {
			if got := env.Subnets.Of(f).Masked(); got != last.Of(f) {
				t.Errorf("the lease has %s, want %s, the only one that overlaps no network of the host", got, last.Of(f))
			}
		}
	}
	start()
	holds()

	if err := host.StopDaemon(); err != nil {
		t.Fatal(err)
	}
	run(t, host, "", "ip", "link", "delete", "lan0")
	join(t, host, all...)
	start()
	holds()
	for _, p := range all {
		if !eventually(healTimeout, func() bool { return named(t, host, trouble.NetworkOverlaps, p.String()) }) {
			t.Errorf("that the host is in %s is not named", p)
		}
	}

	if err := crowded.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	for code, text := range map[trouble.Code]string{
		trouble.LeaseExhausted:  "no free subnet that does not overlap [" + all[0].String() + "], which this host is in: give the network other addresses",
		trouble.NetworkOverlaps: "lan0 is in " + all[0].String(),
	} {
		if !eventually(15*time.Second, func() bool { return named(t, crowded, code, text) }) {
			var st uplinkStatus
			t.Errorf("%s does not say %q: %v, ready %t, %+v", code, text, crowded.Status(t.Context(), &st), st.Ready, st.Troubles)
		}
	}
}

// named reports whether a host tells of a trouble with a text.
func named(t *testing.T, host *lab.Host, code trouble.Code, text string) bool {
	t.Helper()
	var st uplinkStatus
	return host.Status(t.Context(), &st) == nil && slices.ContainsFunc(st.Troubles.Of(code), func(tr trouble.Trouble) bool { return strings.Contains(tr.Text, text) })
}

// Before a network is configured, what the host at hand has of its addresses is pointed out, and nothing is refused. What Tulle made itself is
// nothing to point out.
func TestConfigOfWhatTheHostHasIsPointedOut(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 2, Containers: 1})
	host := l.Hosts[0]
	config := `{"Network":"` + l.Config.Network.V4.String() + `","EnableIPv6":true,"IPv6Network":"` + l.Config.Network.V6.String() + `","Backend":{"Type":"vxlan"}}`
	says := func(command string) string {
		t.Helper()
		return run(t, host, config, "sh", "-c", "env "+strings.Join(host.Environment(), " ")+" "+l.Config.Tulle+" config "+command+" - 2>&1")
	}
	if got := says("check"); got != "valid\n" {
		t.Errorf("beside nothing but Tulle's own, tulle config check says %q", got)
	}
	for _, f := range ip.Families() {
		network := l.Config.Network.Of(f)
		lan := netip.PrefixFrom(network.Addr(), network.Bits()+4)
		if f == ip.IPv4 {
			join(t, host, lan)
		} else {
			run(t, host, "", "ip", "address", "add", netip.PrefixFrom(lan.Addr().Next(), lan.Bits()).String(), "dev", "lan0", "nodad")
		}
		there := netip.PrefixFrom(ip.Last(network), network.Bits()+7).Masked()
		run(t, host, "", "ip", "route", "add", there.String(), "via", l.RouterAddr(f, 1).String())
		for _, command := range []string{"check", "set"} {
			got := says(command)
			for _, want := range []string{
				"warning: this host is in " + lan.String() + " by lan0, which overlaps with the network " + network.String(),
				"warning: this host has a route to " + there.String() + " via " + l.RouterAddr(f, 1).String(),
			} {
				if !strings.Contains(got, want) {
					t.Errorf("tulle config %s does not say %q: %s", command, want, got)
				}
			}
		}
	}
}
