//go:build linux

package lab_test

import (
	"net/netip"
	"strings"
	"testing"

	"tulle/internal/lab"
	"tulle/ip"
)

// Traffic that leaves the network has its host's address if tulled or the containers' bridge masquerades. Traffic inside keeps its
// own in any case.
func TestMasquerade(t *testing.T) {
	for name, test := range map[string]struct {
		daemon string
		bridge ip.Engine // that masquerades as Docker and the bridge plugin do; empty: it does not
		leaves bool      // with the host's address
	}{
		"tulled":                  {"--ip-masq", "", true},
		"tulled and bridge":       {"--ip-masq", ip.NFTables, true},
		"bridge":                  {"--ip-masq=false", ip.NFTables, true},
		"bridge, iptables-legacy": {"--ip-masq=false", ip.IPTables, true},
		"none":                    {"--ip-masq=false", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := upLab(t, lab.Config{Hosts: 2, Containers: 1, DaemonArgs: func(*lab.Host) []string { return []string{test.daemon} }})
			if test.bridge != "" {
				for _, host := range l.Hosts {
					bridgeMasquerades(t, host, test.bridge)
				}
			}
			requireMatrix(t, l)
			for _, family := range l.Config.Families {
				requireOutside(t, l, family, test.leaves)
			}
		})
	}
}

// bridgeMasquerades adds the rules that Docker has for docker0.
func bridgeMasquerades(t *testing.T, host *lab.Host, engine ip.Engine) {
	t.Helper()
	env, err := host.ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	for family, program := range map[ip.Family]string{ip.IPv4: "iptables", ip.IPv6: "ip6tables"} {
		run(t, host, "", program+engines()[engine], "-w", "5", "-t", "nat", "-A", "POSTROUTING",
			"-s", env.Subnets.Of(family).String(), "!", "-o", "cni0", "-j", "MASQUERADE")
	}
}

// requireOutside sends from a container to the router, which is no part of the network, and has no route to answer containers by.
func requireOutside(t *testing.T, l *lab.Lab, family ip.Family, masqueraded bool) {
	t.Helper()
	container := l.Hosts[0].Containers[0]
	want := container.Addr.Of(family)
	if masqueraded {
		want = l.Hosts[0].Addr.Of(family)
	}
	if got, err := l.SourceOutside(t.Context(), container, family); err != nil || got != want {
		t.Errorf("%s source outside the network = %s (%v), want %s", family, got, err, want)
	}
}

// What comes into the network from elsewhere for a container of another host has an address of this host there, so that the answer
// comes back through it. What is for a container of this host keeps its own, and what kube-proxy has marked is left to kube-proxy.
func TestMasqueradeIntoTheNetwork(t *testing.T) {
	for _, backend := range bothBackends() {
		t.Run(backend, func(t *testing.T) {
			t.Parallel()
			l := upLab(t, lab.Config{Hosts: 2, Containers: 2, Backend: map[string]any{"Type": backend}})
			w := newFlowWorld(t, l)
			for _, f := range l.Config.Families {
				gate := w.gate(f)
				remote := netip.AddrPortFrom(w.remote.addr.Of(f), podPort)
				own := netip.AddrPortFrom(w.one.addr.Of(f), podPort)
				published := netip.AddrPortFrom(w.host.Addr.Of(f), hostPort)
				outside, stranger := w.outside.addr.Of(f), w.stranger.addr.Of(f)
				for name, test := range map[string]struct {
					from   end
					source netip.Addr // zero: the kernel's choice
					to     end
					by     netip.AddrPort
					want   netip.Addr
				}{
					"process with the uplink's address":     {w.here, w.host.Addr.Of(f), w.remote, remote, gate},
					"process":                               {w.here, netip.Addr{}, w.remote, remote, gate},
					"another network of this host":          {w.stranger, netip.Addr{}, w.remote, remote, gate},
					"container":                             {w.one, netip.Addr{}, w.remote, remote, w.one.addr.Of(f)},
					"outside, to this host's container":     {w.outside, netip.Addr{}, w.one, own, outside},
					"outside, to a published port":          {w.outside, netip.Addr{}, w.one, published, outside},
					"another network, to a container":       {w.stranger, netip.Addr{}, w.one, own, stranger},
					"another network, to a published port":  {w.stranger, netip.Addr{}, w.one, published, stranger},
					"process with the uplink's, to its own": {w.here, w.host.Addr.Of(f), w.one, own, w.host.Addr.Of(f)},
				} {
					var seen netip.Addr
					var err error
					if !eventually(openingTime, func() bool {
						seen, err = w.connect(test.from, test.source, test.to, test.by)
						return seen == test.want
					}) {
						t.Errorf("%s: %s arrives as %s (%v), want %s", f, name, seen, err, test.want)
					}
				}
				w.requireLeftToKubeProxy(t, f)
			}
		})
	}
}

// gate is the address that a host's own packets to other hosts' containers have.
func (w *flowWorld) gate(f ip.Family) netip.Addr {
	w.t.Helper()
	if w.lab.Config.Backend["Type"] != "vxlan" {
		return w.host.Addr.Of(f)
	}
	env, err := w.host.ReadSubnetFile()
	if err != nil {
		w.t.Fatal(err)
	}
	return env.Subnets.Of(f).Masked().Addr()
}

// requireLeftToKubeProxy marks what a process sends as kube-proxy does, and has it masqueraded after Tulle's rules.
func (w *flowWorld) requireLeftToKubeProxy(t *testing.T, f ip.Family) {
	t.Helper()
	family := map[ip.Family]string{ip.IPv4: "ip", ip.IPv6: "ip6"}[f]
	remote := netip.AddrPortFrom(w.remote.addr.Of(f), podPort)
	run(t, w.host, strings.ReplaceAll(`table FAMILY kube {
	chain output { type route hook output priority mangle; tcp dport 8080 meta mark set 0x4000
	}
	chain postrouting { type nat hook postrouting priority srcnat + 10; meta mark & 0x4000 == 0x4000 counter masquerade
	}
}
`, "FAMILY", family), "nft", "-f", "-")
	if !eventually(openingTime, func() bool {
		seen, err := w.connect(w.here, w.host.Addr.Of(f), w.remote, remote)
		return err == nil && seen == w.gate(f)
	}) {
		t.Errorf("%s: what kube-proxy masquerades does not arrive", f)
	}
	if text := run(t, w.host, "", "nft", "list", "table", family, "kube"); strings.Contains(text, "packets 0 ") {
		t.Errorf("%s: masqueraded before kube-proxy does:\n%s", f, text)
	}
	run(t, w.host, "", "nft", "delete", "table", family, "kube")
}

// Without masquerading nothing that comes into the network is given an address of it.
func TestNoMasqueradeIntoTheNetwork(t *testing.T) {
	t.Parallel()
	l := upLab(t, lab.Config{Hosts: 2, Containers: 2, DaemonArgs: func(*lab.Host) []string { return []string{"--ip-masq=false"} }})
	requireMatrix(t, l)
	requireHostsReach(t, l)
	w := newFlowWorld(t, l)
	for _, f := range l.Config.Families {
		remote := netip.AddrPortFrom(w.remote.addr.Of(f), podPort)
		for _, source := range []netip.Addr{w.host.Addr.Of(f), w.gate(f)} {
			// What has another address than the host's own in the network is the other side's to take or leave.
			if seen, err := w.connect(w.here, source, w.remote, remote); seen != source && (err == nil || source == w.gate(f)) {
				t.Errorf("%s: %s arrives as %s (%v)", f, source, seen, err)
			}
		}
	}
}
