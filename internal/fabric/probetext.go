package fabric

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"tulle/internal/probe"
	"tulle/internal/trouble"
	"tulle/ip"
)

// mostBad is how many troubles of one code are worded; the rest is counted.
const mostBad = 20

// ProbeCodes are those of ProbeTroubles.
func ProbeCodes() []trouble.Code {
	return []trouble.Code{trouble.PeerUnreachable, trouble.PeerNarrow, trouble.ProbeBlocked}
}

// ProbeTroubles tell which peers packets do not arrive at, or only small ones. all are the networks of this host.
func ProbeTroubles(all []*Probing, bad probe.Bad) (list trouble.List) {
	peers := byLease(bad.Reports)
	if bad.Blocked != nil {
		list.Add(trouble.New(trouble.ProbeBlocked, "", bad.Blocked.Error()))
		if bad.Silent && len(peers)+bad.More != 1 { // what they have in common is this host
			return list
		}
	}
	more := trouble.PeerNarrow
	for _, reports := range peers {
		network := networkOf(all, reports[0].Peer)
		for _, state := range []probe.State{probe.Unreachable, probe.Narrow} {
			if !slices.ContainsFunc(reports, func(r probe.Report) bool { return has(r, state) }) {
				continue
			}
			code := trouble.PeerNarrow
			if state == probe.Unreachable {
				code, more = trouble.PeerUnreachable, trouble.PeerUnreachable
			}
			if list.Count[code] >= mostBad {
				list.AddUnlisted(code, 1)
				continue
			}
			t := trouble.New(code, reports[0].Peer.Lease, describe(network, reports, state))
			t.Network = network.network
			list.Add(t)
		}
	}
	list.AddUnlisted(more, bad.More)
	return list
}

// byLease puts together what is known of a peer in its families, which come one after the other.
func byLease(reports []probe.Report) (peers [][]probe.Report) {
	for i, r := range reports {
		if i == 0 || reports[i-1].Peer.Lease != r.Peer.Lease {
			peers = append(peers, nil)
		}
		last := &peers[len(peers)-1]
		*last = append(*last, r)
	}
	return peers
}

// networkOf is the network that a peer is of.
func networkOf(all []*Probing, p probe.Peer) *Probing {
	for _, g := range all {
		if g.has(p) {
			return g
		}
	}
	return &Probing{}
}

func has(r probe.Report, state probe.State) bool {
	return slices.ContainsFunc(r.Ways[:], func(v probe.Verdict) bool { return v.State == state })
}

// describe says what does not arrive at a peer, and where to look.
func describe(g *Probing, reports []probe.Report, state probe.State) string {
	var parts []string
	for _, r := range reports {
		if has(r, state) && state == probe.Unreachable {
			parts = append(parts, describeUnreachable(g.carriers.Of(r.Peer.Family), r))
		} else if has(r, state) {
			parts = append(parts, describeNarrow(r))
		}
	}
	who := reports[0].Peer
	return fmt.Sprintf("node %s, %s: %s", who.Node, who.Lease, strings.Join(parts, "; "))
}

func describeUnreachable(carrier string, r probe.Report) string {
	under, over := r.Ways[probe.Underlay], r.Ways[probe.Fabric]
	host, device, port := r.Peer.At[probe.Underlay].Addr(), r.Peer.At[probe.Fabric].Addr(), portOf(r.Peer)
	lost := func(v probe.Verdict) bool { return v.State == probe.Unreachable }
	off := fmt.Sprintf("the host or its tulled is off, the network between is cut, or its UDP port %d is filtered", port)
	switch {
	case lost(over) && !host.IsValid():
		return fmt.Sprintf("%s does not answer over the fabric%s: %s", device, since(over), off)
	case lost(over) && lost(under):
		return fmt.Sprintf("neither %s nor, over the fabric, %s answers%s: %s", host, device, since(under), off)
	case lost(over):
		return fmt.Sprintf("%s does not answer over the fabric%s, and %s does over the underlay: %s is dropped between the hosts: check the filters at both ends",
			device, since(over), host, carrier)
	case device.IsValid():
		return fmt.Sprintf("%s does not answer%s, and %s does over the fabric: its UDP port %d is filtered, and packets of containers arrive", host, since(under), device, port)
	}
	return fmt.Sprintf("%s does not answer%s: %s", host, since(under), off)
}

func portOf(p probe.Peer) uint16 {
	if under := p.At[probe.Underlay]; under.IsValid() {
		return under.Port()
	}
	return p.At[probe.Fabric].Port()
}

// since says from when on, and what this host's own kernel said last.
func since(v probe.Verdict) string {
	text := ""
	if !v.Since.IsZero() {
		text = " since " + v.Since.UTC().Format(time.RFC3339)
	}
	if v.Reason != "" {
		text += " (" + v.Reason + ")"
	}
	return text
}

func describeNarrow(r probe.Report) string {
	var parts []string
	for _, way := range probe.Ways() {
		v := r.Ways[way]
		if v.State != probe.Narrow {
			continue
		}
		arrives := "only small packets arrive"
		if v.Size > 0 {
			arrives = fmt.Sprintf("packets of %d bytes arrive and larger ones do not", v.Size)
		}
		parts = append(parts, fmt.Sprintf("%s over the %s at %s%s, of %d that should", arrives, way, r.Peer.At[way].Addr(), since(v), r.Peer.Size[way]))
	}
	text := strings.Join(parts, ", and ")
	for dst, mtu := range RouteMTUs([]probe.Report{r}) { // one at most
		return fmt.Sprintf("%s; the route to %s names an MTU of %d meanwhile", text, dst, mtu)
	}
	return text
}

// carrier names what a filter would look at in the packets of a tunnel.
func carrier(links []ip.Link, name string) string {
	i := slices.IndexFunc(links, func(l ip.Link) bool { return l.Name == name && l.Kind != nil })
	if i < 0 {
		return ""
	}
	if t := links[i].Kind.Tunnel(); !t.IPIP {
		return fmt.Sprintf("UDP port %d", t.Port)
	}
	return "IP protocol 4"
}
