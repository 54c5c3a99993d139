package vxlan

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"tulle/backend"
	"tulle/ip"
	"tulle/subnet"
)

// mostMACs is how many MACs a host derives from its node id. Each gives way to the next, never to one before it, so that
// nobody can make a host change its MAC for ever.
const mostMACs = 16

// Advertise publishes a MAC per family: the one that peers know, else the one of an existing device, else one derived from the
// node id. If an older lease announces it for another host, the next one is taken that nobody announces.
func (v *VXLAN) Advertise(host backend.Host, earlier subnet.Attrs) (subnet.Attrs, error) {
	if err := host.Makes(Name); err != nil {
		return subnet.Attrs{}, err
	}
	attrs := subnet.Attrs{Public: host.Uplink.Public, BackendType: Name}
	var outranked error
	for _, f := range v.families {
		mac := v.mac(f, host, earlier)
		if elder := v.announcer(f, host, mac); elder != nil {
			next, ok := v.nextMAC(f, host, mac)
			if !ok {
				outranked = errors.Join(outranked, fmt.Errorf("%w: the MAC %s is also that of %s, an older lease, and all others of this host are taken: run: tulle leases release '%s'",
					backend.ErrOutranked, mac, elder.Attrs.Address(), subnet.KeyOf(elder.Subnets)))
			}
			mac = next
		}
		announced := data{VNI: v.opts.VNI, VtepMAC: mac.String()}
		if v.saysPort(f, host, earlier) {
			announced.Port = v.opts.Port
		}
		raw, err := json.Marshal(announced)
		if err != nil {
			return subnet.Attrs{}, fmt.Errorf("encode backend data: %w", err)
		}
		attrs.BackendData.Set(f, raw)
	}
	return attrs, outranked
}

// saysPort reports whether the port must be announced. The default one goes without saying, so that a lease of flannel's stays as it is, but for when
// some hosts may have another: the configuration in the store has, this host had, or whoever was there before it.
func (v *VXLAN) saysPort(f ip.Family, host backend.Host, earlier subnet.Attrs) bool {
	if v.opts.Port != DefaultPort || host.Stored != nil && portOf(*host.Stored) != DefaultPort {
		return true
	}
	said := func(attrs subnet.Attrs) bool {
		if attrs.BackendType != Name {
			return false
		}
		d, _, err := decode(attrs.BackendData.Of(f))
		return err == nil && d.Port != 0
	}
	if earlier.BackendType != "" {
		return said(earlier)
	}
	return slices.ContainsFunc(host.Leases, func(l *subnet.Lease) bool { return said(l.Attrs) })
}

// portOf is the port of a configuration, the default if it has none.
func portOf(n subnet.Network) uint16 {
	if n.Backend.Type != Name {
		return DefaultPort
	}
	opts, _, err := optionsOf(n)
	if err != nil {
		return DefaultPort
	}
	return opts.Port
}

func (v *VXLAN) mac(f ip.Family, host backend.Host, earlier subnet.Attrs) ip.MAC {
	if earlier.BackendType == Name {
		if mac, err := vtep(earlier.BackendData.Of(f)); err == nil {
			return mac
		}
	}
	for _, l := range host.Links {
		if l.Name == v.device(f) && !l.MAC.IsZero() {
			return l.MAC
		}
	}
	return v.derivedMAC(f, host, 0)
}

// derivedMAC is the n-th MAC of a host.
func (v *VXLAN) derivedMAC(f ip.Family, host backend.Host, n int) ip.MAC {
	text := fmt.Appendf(nil, "tulle vtep %s %s", host.Node, v.device(f))
	if n > 0 {
		text = fmt.Appendf(text, " %d", n)
	}
	sum := sha256.Sum256(text)
	mac := ip.MAC(sum[:6])
	mac[0] = mac[0]&^1 | 2 // unicast, locally administered
	return mac
}

// nextMAC returns what a host announces instead of a MAC; the same one if there is nothing else.
func (v *VXLAN) nextMAC(f ip.Family, host backend.Host, mac ip.MAC) (next ip.MAC, ok bool) {
	announced := make(map[ip.MAC]bool, len(host.Leases))
	for _, l := range host.Leases {
		if other, err := vtep(l.Attrs.BackendData.Of(f)); err == nil {
			announced[other] = true
		}
	}
	from := 0
	for n := range mostMACs {
		if v.derivedMAC(f, host, n) == mac {
			from = n + 1
		}
	}
	for n := from; n < mostMACs; n++ {
		if next := v.derivedMAC(f, host, n); !announced[next] {
			return next, true
		}
	}
	return mac, false
}

// announcer returns the oldest lease by which another host announces a MAC, if that is older than this host's by the age of
// their keys, which is all that a host knows that has seen neither before. A lease that no host uses takes nothing away.
func (v *VXLAN) announcer(f ip.Family, host backend.Host, mac ip.MAC) (elder *subnet.Lease) {
	for _, l := range host.Leases {
		if l == host.Self || l.HeldBack || l.Attrs.BackendType != Name || host.Self != nil && (l.Created > host.Self.Created || l.AbandonedBy(*host.Self)) {
			continue
		}
		own, pool, public := l.Subnets.Of(f), v.pools.Of(f), l.Attrs.Public.Of(f)
		if !own.IsValid() || own.Bits() < pool.SubnetLen || !ip.Contains(pool.Network, own) || !public.IsValid() || public == host.Uplink.Public.Of(f) || host.Own[public] {
			continue
		}
		if other, err := vtep(l.Attrs.BackendData.Of(f)); err == nil && other == mac && (elder == nil || l.Created < elder.Created) {
			elder = l
		}
	}
	return elder
}
