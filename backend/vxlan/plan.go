package vxlan

import (
	"fmt"
	"net/netip"

	"tulle/backend"
	"tulle/ip"
	"tulle/subnet"
)

// Plan wants a device per family, guarded against strangers, and for each peer a route over it or, if the peer is a neighbour,
// around it.
func (v *VXLAN) Plan(host backend.Host, self subnet.Lease, peers []*subnet.Lease) (ip.State, []subnet.Problem) {
	s := ip.State{
		FDB:       make([]ip.FDB, 0, len(peers)),
		Neighbors: make([]ip.Neighbor, 0, len(peers)),
		Routes:    make([]ip.Route, 0, len(peers)),
	}
	var problems []subnet.Problem
	for _, f := range v.families {
		own := self.Subnets.Of(f)
		mac, err := vtep(self.Attrs.BackendData.Of(f))
		if !own.IsValid() || err != nil {
			problems = append(problems, subnet.Problem{Key: subnet.KeyOf(self.Subnets), Reason: fmt.Sprintf("this host's lease lacks %s", f)})
			continue
		}
		p := plan{v: v, f: f, host: host, dev: v.device(f), state: &s, owners: make(map[ip.MAC]owner, len(peers)+1), admitted: backend.NewAdmission(f, v.pools.Of(f), len(peers))}
		link := p.device(own, mac)
		problems = append(problems, p.peers(mac, peers)...)
		s.Guards = append(s.Guards, p.admitted.Guard(link, host.Uplink))
	}
	return s, problems
}

// plan is the planning of one family.
type plan struct {
	v        *VXLAN
	f        ip.Family
	host     backend.Host
	dev      string
	state    *ip.State
	owners   map[ip.MAC]owner
	admitted *backend.Admission
}

// owner is the host that counts as a MAC's: of all that announce it the one that has done so for longest. A host that comes
// later with the MAC of another harms only itself.
type owner struct {
	host   netip.Addr
	lease  *subnet.Lease // nil: this host's own
	placed bool          // there is a forwarding entry
}

func (p *plan) device(own netip.Prefix, mac ip.MAC) ip.Link {
	link := ip.Link{
		Name: p.dev, MAC: mac, MTU: p.v.deviceMTU(p.f, p.host.Uplink), Up: true,
		Kind: ip.VXLAN{
			VNI: p.v.opts.VNI, Port: p.v.opts.Port, Local: p.host.Uplink.Addr.Of(p.f),
			Learning: p.v.opts.Learning, GBP: p.v.opts.GBP,
		},
	}
	p.state.Links = append(p.state.Links, link)
	p.state.Sysctls = append(p.state.Sysctls, p.v.sysctls(p.f)...)
	p.state.Addrs = append(p.state.Addrs, ip.Addr{Link: p.dev, Prefix: ip.Host(own.Addr())})
	return link
}

// endpoint is where a peer receives what is sent over the device.
type endpoint struct {
	host netip.Addr // zero: nothing is
	mac  ip.MAC
}

func (p *plan) peers(mac ip.MAC, peers []*subnet.Lease) []subnet.Problem {
	var problems []subnet.Problem
	refuse := func(l *subnet.Lease, err error) {
		problems = append(problems, subnet.Problem{Key: subnet.KeyOf(l.Subnets), Reason: err.Error()})
	}
	p.owners[mac] = owner{host: p.host.Uplink.Public.Of(p.f)}
	ends := make([]endpoint, len(peers))
	for i := range peers {
		if !peers[i].Subnets.Of(p.f).IsValid() {
			continue
		}
		end, err := p.meet(peers[i])
		if err != nil {
			refuse(peers[i], err)
			continue
		}
		ends[i] = end
		if first, taken := p.owners[end.mac]; end.host.IsValid() && (!taken || first.lease != nil && subnet.CompareAttrsClaims(peers[i], first.lease) < 0) {
			p.owners[end.mac] = owner{host: end.host, lease: peers[i]}
		}
	}
	for i, end := range ends {
		if !end.host.IsValid() {
			continue
		}
		if owner := p.owners[end.mac]; owner.host != end.host {
			refuse(peers[i], fmt.Errorf("it announces the MAC %s of the host at %s", end.mac, owner.host))
			continue
		}
		p.tunnel(peers[i].Subnets.Of(p.f), end)
	}
	return problems
}

// meet routes to a peer directly, or returns where it receives what goes over the device.
func (p *plan) meet(peer *subnet.Lease) (endpoint, error) {
	public, err := backend.Reach(p.host, *peer, p.f, Name)
	if err != nil {
		return endpoint{}, err
	}
	if p.v.opts.DirectRouting {
		if route, ok := p.host.DirectRoute(peer.Subnets.Of(p.f), public); ok {
			p.admitted.Admit(public, route.Dst) // its own route may lead through the tunnel
			p.state.Routes = append(p.state.Routes, route)
			return endpoint{}, nil
		}
	}
	announced, mac, err := decode(peer.Attrs.BackendData.Of(p.f))
	if err == nil {
		err = p.v.understands(announced)
	}
	return endpoint{host: public, mac: mac}, err
}

func (p *plan) tunnel(dst netip.Prefix, end endpoint) {
	s := p.state
	p.admitted.Admit(end.host, dst)
	if owner := p.owners[end.mac]; !owner.placed {
		owner.placed = true
		p.owners[end.mac] = owner
		s.FDB = append(s.FDB, ip.FDB{Link: p.dev, MAC: end.mac, Dst: end.host})
	}
	s.Neighbors = append(s.Neighbors, ip.Neighbor{Link: p.dev, IP: dst.Addr(), MAC: end.mac})
	s.Routes = append(s.Routes, backend.RouteOver(p.dev, dst, dst.Addr()))
}
