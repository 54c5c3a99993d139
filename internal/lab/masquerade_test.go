//go:build linux

package lab_test

import (
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
