//go:build linux

package cniplugin

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"

	"tulle/ip"
	"tulle/subnet/flannel"
)

// ipRange is one address range of the host-local plugin; a container gets one address of each list of ranges.
type ipRange struct {
	Subnet netip.Prefix `json:"subnet"`
}

type route struct {
	Dst netip.Prefix `json:"dst"`
}

// delegateConf is the configuration with which the delegate makes an attachment: the one that the flannel plugin would build.
func delegateConf(c conf, env flannel.Env) (json.RawMessage, error) {
	d := maps.Clone(c.Delegate)
	if d == nil {
		d = object{}
	}
	kind := textOr(d, "type", defaultDelegate)
	ipam, err := ipamConf(c, env)
	if err != nil {
		return nil, err
	}
	set := map[string]any{"name": c.Name, "type": kind, "ipam": ipam}
	if c.CNIVersion != "" {
		set["cniVersion"] = c.CNIVersion
	}
	if c.RuntimeConfig != nil {
		set["runtimeConfig"] = c.RuntimeConfig
	}
	// Masquerading twice hides the containers from each other; never would keep them from the world.
	absent := map[string]any{"ipMasq": !env.IPMasq, "mtu": env.MTU}
	if kind == defaultDelegate {
		absent["isGateway"] = true
	}
	for name, value := range absent {
		if _, ok := d[name]; !ok {
			set[name] = value
		}
	}
	if err := d.put(set); err != nil {
		return nil, err
	}
	return json.Marshal(d)
}

// ipamConf hands out addresses of this host's subnets, and leads to the whole network.
func ipamConf(c conf, env flannel.Env) (object, error) {
	routes, err := c.userRoutes()
	if err != nil {
		return nil, err
	}
	all := []any{}
	for _, r := range routes {
		all = append(all, r)
	}
	ranges := [][]ipRange{}
	for _, f := range ip.Families() {
		if p := env.Subnets.Of(f); p.IsValid() {
			ranges = append(ranges, []ipRange{{p}})
		}
	}
	for _, n := range networks(env) {
		all = append(all, route{n})
	}
	o := maps.Clone(c.IPAM)
	if o == nil {
		o = object{}
	}
	err = o.put(map[string]any{"type": textOr(o, "type", defaultIPAM), "ranges": ranges, "routes": all})
	return o, err
}

// networks lists the prefixes of the network.
func networks(env flannel.Env) []netip.Prefix {
	var all []netip.Prefix
	for _, f := range ip.Families() {
		if p := env.Network.Of(f); p.IsValid() {
			all = append(all, p)
		}
	}
	return append(all, env.More...)
}

// put sets members of o.
func (o object) put(members map[string]any) error {
	for name, value := range members {
		text, err := json.Marshal(value)
		if err != nil {
			return fmt.Errorf("encode %s: %w", name, err)
		}
		o[name] = text
	}
	return nil
}

// with returns a JSON object with members set.
func with(conf json.RawMessage, members map[string]any) (json.RawMessage, error) {
	var o object
	if err := json.Unmarshal(conf, &o); err != nil {
		return nil, fmt.Errorf("decode delegate's configuration: %w", err)
	}
	if err := o.put(members); err != nil {
		return nil, err
	}
	return json.Marshal(o)
}
