//go:build linux

package cniplugin

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"

	"github.com/containernetworking/cni/pkg/skel"

	"tulle/ip"
	"tulle/subnet"
)

// cmdDel detaches a container. It needs neither the daemon nor its file, and can be repeated.
func (p *Plugin) cmdDel(ctx context.Context, c conf, args *skel.CmdArgs) error {
	return p.detach(ctx, c, attachment{c.Name, args.ContainerID, args.IfName}, delegationOf(args))
}

// detach undoes an attachment, by what is known of it or else by the configuration of today.
func (p *Plugin) detach(ctx context.Context, c conf, a attachment, d delegation) error {
	s := states{c.DataDir}
	held, err := lock(ctx, s.path(a))
	if err != nil {
		p.remark("%v", err)
	}
	if held != nil {
		defer held.Close()
	}
	r, err := s.read(a)
	delegate := r.Delegate
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			p.remark("%v: removing the interface by the configuration of the network", err)
		}
		if delegate, err = bestKnowledge(c); err != nil {
			return err
		}
	}
	addrs := addrsIn(d.netns, d.ifname)
	if err := p.run(ctx, "DEL", delegate, d); err != nil {
		return err
	}
	p.forgetNeighbors(bridgeOf(c), addrs)
	p.markBridge(r)
	return s.remove(a)
}

// bestKnowledge is the delegate's configuration as far as it can be told without a state file.
func bestKnowledge(c conf) (json.RawMessage, error) {
	env, err := subnet.ReadEnv(c.SubnetFile)
	if err != nil {
		// host-local frees by the owner of an address, whatever its range, but wants to be given one (RFC 5737, TEST-NET-1).
		placeholder := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, 0}), 24)
		env = subnet.Env{Subnets: ip.Dual[netip.Prefix]{V4: placeholder}, IPMasq: true}
	}
	return delegateConf(c, env)
}
