//go:build linux

package lab_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet"
)

// askedWithin is how long a host may take to find out what befalls its packets to a peer, which it asks every ten seconds while all is well. That
// large ones arrive again it finds out within a minute.
const (
	askedWithin  = 60 * time.Second
	mendedWithin = 90 * time.Second
)

// askingStatus is what a host says of its peers.
type askingStatus struct {
	Ready    bool
	Troubles trouble.List
	Probes   struct {
		Underlay, Fabric struct{ Unknown, Well, Narrow, Unreachable int }
	}
}

// Hosts that ask each other find out which packets between two of them are dropped: these two alone tell, the routes between them name the size that
// arrives, and all is well once it is.
//
//	h1 ──┐             ┌── h3
//	     ├── segment ──┤
//	h2 ──┘             └── h4      between h1 and h2 tunnelled packets are dropped: large ones, all
func TestHostsAskEachOther(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 4, Containers: 1, DaemonArgs: func(*lab.Host) []string { return []string{"--probe=on"} }})
	status := func(host *lab.Host) (st askingStatus) {
		if err := host.Status(t.Context(), &st); err != nil {
			t.Fatal(err)
		}
		return st
	}
	leases := map[*lab.Host]subnet.Subnets{}
	for _, host := range l.Hosts {
		env, err := host.ReadSubnetFile()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range l.Config.Families {
			s := leases[host]
			s.Set(f, env.Subnets.Of(f).Masked())
			leases[host] = s
		}
	}
	one, two := l.Hosts[0], l.Hosts[1]
	// told reports whether one and two have the trouble about each other, and nobody has any other.
	told := func(code trouble.Code) bool {
		return !slices.ContainsFunc(l.Hosts, func(host *lab.Host) bool {
			about := map[*lab.Host]string{one: subnet.KeyOf(leases[two]), two: subnet.KeyOf(leases[one])}[host]
			st := status(host)
			found := st.Troubles.Of(trouble.PeerUnreachable, trouble.PeerNarrow, trouble.ProbeBlocked)
			return !st.Ready || slices.ContainsFunc(found, func(tr trouble.Trouble) bool { return tr.Code != code || tr.Subject != about }) || len(found) == 0 && about != ""
		})
	}
	// mtu is what the route of one host to another's containers names.
	mtu := func(host, peer *lab.Host, f ip.Family) (bytes int) {
		route := run(t, host, "", "ip", "-"+strings.TrimPrefix(f.String(), "ipv"), "route", "show", leases[peer].Of(f).String())
		if _, text, ok := strings.Cut(route, " mtu "); ok {
			_, _ = fmt.Sscan(text, &bytes) // else it is 0
		}
		return bytes
	}
	// complained reports whether one and two complain of each other, or else nobody of anybody, to who asks the store on a third host.
	complained := func(mutual bool) bool {
		var all struct {
			Complaints []subnet.Complaint
			Problems   []subnet.Problem
		}
		if err := json.Unmarshal([]byte(tulle(t, l, l.Hosts[2], "peers", "--all-hosts", "--json")), &all); err != nil {
			t.Fatal(err)
		}
		if !mutual || len(all.Complaints) != 2 || len(all.Problems) > 0 {
			return !mutual && len(all.Complaints)+len(all.Problems) == 0
		}
		other := map[string]string{subnet.KeyOf(leases[one]): subnet.KeyOf(leases[two]), subnet.KeyOf(leases[two]): subnet.KeyOf(leases[one])}
		return !slices.ContainsFunc(all.Complaints, func(c subnet.Complaint) bool {
			return slices.ContainsFunc(c.Peers, func(p subnet.BadPeer) bool { return p.Lease != other[c.Lease] })
		})
	}
	well := func() bool {
		return !slices.ContainsFunc(l.Hosts, func(host *lab.Host) bool {
			st := status(host)
			ways := 2 * (len(l.Hosts) - 1) // in both families
			return st.Probes.Fabric.Well != ways || st.Probes.Underlay.Well != ways || st.Troubles.Has(trouble.PeerNarrow) || st.Troubles.Has(trouble.PeerUnreachable)
		})
	}
	show := func() {
		for _, host := range l.Hosts {
			t.Logf("%s: %+v\n%s", host, status(host), tulle(t, l, host, "peers"))
		}
	}
	// drop has tunnelled packets between one and two dropped, in both directions and families; match says which.
	drop := func(match string) {
		for host, peer := range map[*lab.Host]*lab.Host{one: two, two: one} {
			var rules strings.Builder
			rules.WriteString("table netdev cut\ndelete table netdev cut\ntable netdev cut {\nchain in {\ntype filter hook ingress device eth0 priority -500;\n")
			for _, f := range l.Config.Families {
				fmt.Fprintf(&rules, "%s saddr %s udp dport 8472 %s drop\n", ip.Dual[string]{V4: "ip", V6: "ip6"}.Of(f), peer.Addr.Of(f), match)
			}
			run(t, host, rules.String()+"}\n}\n", "nft", "-f", "-")
		}
	}
	for _, host := range []*lab.Host{one, two} {
		run(t, host, "", "ip", "link", "set", "eth0", "gso_max_segs", "1") // a filter is to see packets as a wire has them
		for _, f := range l.Config.Families {
			// Senders keep a size that they are told for ten minutes, unless told otherwise (ip-sysctl).
			err := host.Containers[0].Do(func() error {
				return os.WriteFile("/proc/sys/net/"+f.String()+"/route/mtu_expires", []byte("5"), 0o644)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if !eventually(askedWithin, well) {
		show()
		t.Fatal("not all is well at first")
	}
	if !complained(false) {
		t.Errorf("at first the store is told\n%s", tulle(t, l, one, "peers", "--all-hosts"))
	}

	const outer = 1370
	drop(fmt.Sprintf("meta length > %d", outer))
	narrow := func() bool {
		for _, f := range l.Config.Families {
			inner := outer - ip.Dual[int]{V4: 50, V6: 70}.Of(f)
			if mtu(one, two, f) != inner || mtu(two, one, f) != inner || mtu(one, l.Hosts[2], f) != 0 {
				return false
			}
		}
		return told(trouble.PeerNarrow)
	}
	if !eventually(askedWithin, narrow) {
		show()
		t.Fatal("that large packets are dropped is not told, or routes do not say so")
	}
	for _, f := range l.Config.Families {
		if _, err := transfer(t.Context(), one.Containers[0], two.Containers[0], f, 4<<20); err != nil {
			t.Errorf("%s past what drops large packets: %v", f, err)
		}
	}

	drop("")
	if !eventually(askedWithin, func() bool { return told(trouble.PeerUnreachable) }) {
		show()
		t.Error("that packets are dropped is not told")
	}
	if !eventually(askedWithin, func() bool { return complained(true) }) {
		t.Errorf("the store is told\n%s", tulle(t, l, one, "peers", "--all-hosts"))
	}
	if peers := tulle(t, l, one, "peers"); !strings.Contains(peers, "unreachable (fabric)") {
		t.Errorf("tulle peers shows\n%s", peers)
	}

	for _, host := range []*lab.Host{one, two} {
		run(t, host, "", "nft", "delete", "table", "netdev", "cut")
	}
	mended := func() bool { return well() && mtu(one, two, ip.IPv4) == 0 && mtu(two, one, ip.IPv6) == 0 }
	if !eventually(mendedWithin, mended) {
		show()
		t.Error("not all is well in the end")
	}
	if !eventually(mendedWithin, func() bool { return complained(false) }) {
		t.Errorf("in the end the store is told\n%s", tulle(t, l, one, "peers", "--all-hosts"))
	}
	requireMatrix(t, l)
}
