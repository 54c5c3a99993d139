//go:build linux

package cniplugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"

	"github.com/containernetworking/cni/pkg/skel"

	"tulle/ip"
	"tulle/ip/kernel/bridge"
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
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.remark("%v: removing the interface by the configuration of the network", err)
	}
	if r.NetnsID != "" && d.netns != "" && !r.isNetns(d.netns) {
		p.remark("%s is not the namespace that %s of container %s was attached in, which is gone", d.netns, a.ifname, a.container)
		d.netns = ""
	}
	addrs := addrsIn(d.netns, d.ifname)
	if err := p.release(ctx, c, a, d, r.Delegate); err != nil {
		return err
	}
	p.forgetNeighbors(bridgeOf(c), addrs)
	p.markBridge(r)
	return s.remove(a)
}

// release has the delegate undo an attachment: by the configuration that it got, if there is one, else by that of today. A
// delegate that has refused a configuration at ADD refuses it at DEL too. If none of them serves and there is nothing left to undo, that
// is as good.
func (p *Plugin) release(ctx context.Context, c conf, a attachment, d delegation, recorded json.RawMessage) error {
	var tried []error
	try := func(delegate json.RawMessage) bool {
		err := p.run(ctx, "DEL", delegate, d)
		if err != nil {
			tried = append(tried, err)
		}
		return err == nil
	}
	if recorded != nil && try(recorded) {
		return nil
	}
	switch today, err := bestKnowledge(c); {
	case err != nil:
		tried = append(tried, err)
	case !bytes.Equal(today, recorded) && try(today):
		return nil
	}
	if undone(c, a, d) {
		p.remark("%v: but neither interface nor address of the attachment is there", tried[0])
		return nil
	}
	return tried[0]
}

// undone reports whether an attachment is known to have neither interface nor address.
func undone(c conf, a attachment, d delegation) bool {
	if !hostLocal(c) {
		return false
	}
	held, err := holders(c)
	if err != nil || len(held[a]) > 0 {
		return false
	}
	return netnsID(d.netns) == "" || lacksInterface(d.netns, d.ifname)
}

// lacksInterface reports whether a namespace is known to have no interface of that name.
func lacksInterface(path, ifname string) bool {
	_, err := readInterface(path, ifname)
	return bridge.IsNotFound(err)
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
