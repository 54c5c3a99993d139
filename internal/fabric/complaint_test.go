package fabric

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/internal/probe"
	"tulle/ip"
	"tulle/subnet"
)

// What others are told of is what has not been well for some time, and is not this host's own fault.
func TestComplaint(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	since := now.Add(-15 * time.Second)
	verdict := func(s probe.State, since time.Time) probe.Verdict {
		return probe.Verdict{State: s, Since: since, Size: 1300}
	}
	well, lost, narrow := verdict(probe.Well, since), verdict(probe.Unreachable, since), verdict(probe.Narrow, since)
	blink, long := verdict(probe.Unreachable, now.Add(-9*time.Second)), verdict(probe.Unreachable, now.Add(-30*time.Second))
	g := &Probing{prefixes: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("fc00:5::/48")}}
	g.Peers = []probe.Peer{report(2, ip.IPv4, true, well, well).Peer, report(3, ip.IPv4, true, well, well).Peer}
	says := func(family, way, state string, size, full int, since time.Time) subnet.BadPeer {
		return subnet.BadPeer{Lease: "10.5.2.0-24&fc00:5:0:2::-64", Node: "h2", Family: family, Way: way, State: state, Size: size, Full: full, Since: since}
	}
	all := func(rs ...probe.Report) probe.Bad { return probe.Bad{Reports: rs, Heard: now} }
	red := report(2, ip.IPv4, true, lost, lost)
	red.Peer.Lease = "10.6.2.0-24"
	unheard := all(report(2, ip.IPv4, true, well, lost))
	unheard.Heard = since
	longUnheard := all(report(2, ip.IPv4, true, well, long))
	longUnheard.Heard = time.Time{}
	silent := all(report(2, ip.IPv4, true, lost, lost), report(3, ip.IPv4, true, lost, lost))
	silent.Silent, silent.Blocked = true, errors.New("nobody answers")
	blocked := all(report(2, ip.IPv4, true, well, lost))
	blocked.Blocked = errors.New("open ipv6 socket")
	for name, tt := range map[string]struct {
		bad  probe.Bad
		want []subnet.BadPeer
	}{
		"all is well":         {all(), nil},
		"well again":          {all(report(2, ip.IPv4, true, well, well)), nil},
		"a blink":             {all(report(2, ip.IPv4, true, blink, blink)), nil},
		"another network's":   {all(red), nil},
		"nobody answers":      {silent, nil},
		"nobody has answered": {unheard, nil},
		"and it lasts":        {longUnheard, []subnet.BadPeer{says("ipv4", "fabric", "unreachable", 0, 0, long.Since)}},
		"no socket":           {blocked, []subnet.BadPeer{says("ipv4", "fabric", "unreachable", 0, 0, since)}},
		"one way":             {all(report(2, ip.IPv4, true, well, narrow)), []subnet.BadPeer{says("ipv4", "fabric", "narrow", 1300, 1450, since)}},
		"one way lasts":       {all(report(2, ip.IPv4, true, lost, blink)), []subnet.BadPeer{says("ipv4", "underlay", "unreachable", 0, 0, since)}},
		"all ways": {all(report(2, ip.IPv4, true, narrow, lost), report(2, ip.IPv6, true, lost, lost)), []subnet.BadPeer{
			says("ipv4", "fabric", "unreachable", 0, 0, since), says("ipv4", "underlay", "narrow", 1300, 1500, since),
			says("ipv6", "fabric", "unreachable", 0, 0, since), says("ipv6", "underlay", "unreachable", 0, 0, since),
		}},
	} {
		c := complaint(g, tt.bad, now)
		if tt.want == nil {
			if c != nil {
				t.Errorf("%s: %+v", name, c)
			}
			continue
		}
		if diff := cmp.Diff(&subnet.Complaint{Time: now, Peers: tt.want}, c); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	alone := *g
	alone.Peers = g.Peers[:1]
	if c := complaint(&alone, unheard, now); c == nil || len(c.Peers) != 1 {
		t.Errorf("nobody else is asked: %+v", c)
	}
	if c := complaint(nil, all(report(2, ip.IPv4, true, lost, lost)), now); c != nil {
		t.Errorf("without a say: %+v", c)
	}
}

// Of ten thousand peers that are lost twenty are named, each by what is worst, and the complaint fits.
func TestComplaintOfMany(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	lost, narrow := probe.Verdict{State: probe.Unreachable}, probe.Verdict{State: probe.Narrow, Size: 1300}
	g := &Probing{prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fc00:5::/32")}}
	bad := func(peers int) (bad probe.Bad) {
		for i := range peers {
			for _, f := range ip.Families() {
				r := report(0, f, true, narrow, lost)
				r.Peer.Lease, r.Peer.Node = fmt.Sprintf("10.%d.%d.0-24&fc00:5:0:%x::-64", 1+i/250, i%250, 1+i), fmt.Sprintf("h%d", i)
				bad.Reports = append(bad.Reports, r)
			}
		}
		return bad
	}
	for peers, want := range map[int]struct{ listed, more int }{1: {4, 0}, 5: {20, 0}, 6: {20, 0}, 20: {20, 0}, 21: {20, 1}, 10_000: {20, 9980}} {
		c := complaint(g, bad(peers), now)
		named := map[string]bool{}
		worst := 0
		for _, p := range c.Peers {
			named[p.Lease] = true
			if p.State == subnet.PeerUnreachable {
				worst++
			}
		}
		if len(c.Peers) != want.listed || c.More != want.more || len(named) != min(peers, 20) || worst < min(peers, 20) {
			t.Errorf("of %d peers %d are named in %d lines, %d of the worst, and %d besides: want %+v", peers, len(named), len(c.Peers), worst, c.More, want)
		}
		c.Node, c.Lease = "h", "10.0.0.0-24"
		if _, err := c.Encode(); err != nil {
			t.Error(err)
		}
	}
}
