//go:build linux

package cniplugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"

	"github.com/containernetworking/cni/pkg/skel"

	"tulle/ip"
	"tulle/ip/kernel/bridge"
	"tulle/subnet/flannel"
)

// cmdDel detaches a container. It needs neither the daemon nor its file, and can be repeated.
func (p *Plugin) cmdDel(ctx context.Context, c conf, args *skel.CmdArgs) error {
	return p.detach(ctx, c, attachment{c.Name, args.ContainerID, args.IfName}, delegationOf(args))
}

// detach undoes an attachment, by what is known of it or else by the configuration of today.
func (p *Plugin) detach(ctx context.Context, c conf, a attachment, d delegation) error {
	s := states{c.DataDir}
	held, err := s.lock(ctx, a)
	unused := errors.Is(err, fs.ErrNotExist) // no ADD has ever made the directory
	switch {
	case err == nil:
		defer p.unlock(held)
	case !absent(err):
		p.remark("%v", err)
	}
	r, err := s.read(a)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.remark("%v: removing the interface by the configuration of the network", err)
	}
	if r.NetnsID != "" && d.netns != "" {
		same, err := r.isNetns(d.netns)
		switch {
		case err != nil:
			p.remark("%v: taking %s for the namespace that %s of container %s was attached in", err, d.netns, a.ifname, a.container)
		case !same:
			p.remark("%s is not the namespace that %s of container %s was attached in, which is gone", d.netns, a.ifname, a.container)
			d.netns = ""
		}
	}
	addrs := addrsIn(d.netns, d.ifname)
	if err := p.release(ctx, c, a, d, r.Delegate); err != nil {
		if _, statErr := os.Stat(s.dir); unused && statErr == nil { // the first ADD has come meanwhile: after it, again
			return p.detach(ctx, c, a, d)
		}
		return err
	}
	p.forgetNeighbors(bridgeOf(c), addrs)
	p.markBridge(r)
	return s.remove(a, held != nil)
}

// release has the delegate undo an attachment: by the configuration that it got, if there is one, else by that of today. A
// delegate that has refused a configuration at ADD refuses it at DEL too. If none of them serves and there is nothing left to undo, that
// is as good.
func (p *Plugin) release(ctx context.Context, c conf, a attachment, d delegation, recorded json.RawMessage) error {
	var tried []error
	try := func(delegate json.RawMessage) bool {
		had := !lacksInterface(d.netns, d.ifname)
		err := p.run(ctx, "DEL", delegate, d)
		if err != nil && had && lacksInterface(d.netns, d.ifname) {
			// Something took the interface away under the delegate's hands, such as a command that waited for the lock too long: the rest is still to be undone.
			err = p.run(ctx, "DEL", delegate, d)
		}
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
	case !bytes.Equal(today, recorded) && try(today) && (recorded == nil || freed(a, ipamOf(recorded))):
		return nil
	}
	if undone(c, a, d, recorded) {
		p.remark("%v: but neither interface nor address of the attachment is there", tried[0])
		return nil
	}
	return tried[0]
}

// undone reports whether an attachment is known to have neither interface nor address, by the configurations of the ADD and of today.
func undone(c conf, a attachment, d delegation, recorded json.RawMessage) bool {
	if !freed(a, c.IPAM) || recorded != nil && !freed(a, ipamOf(recorded)) {
		return false
	}
	id, err := netnsID(d.netns)
	return err == nil && id == "" || lacksInterface(d.netns, d.ifname)
}

// freed reports whether an attachment is known to have no address by an address management.
func freed(a attachment, ipam object) bool {
	if !hostLocal(ipam) {
		return false
	}
	held, err := holders(ipam, a.network)
	return err == nil && len(held[a]) == 0
}

// ipamOf is the address management in a delegate's configuration.
func ipamOf(delegate json.RawMessage) object {
	var conf struct {
		IPAM object `json:"ipam"`
	}
	if err := json.Unmarshal(delegate, &conf); err != nil || conf.IPAM == nil {
		return object{"type": json.RawMessage(`"unknown"`)}
	}
	return conf.IPAM
}

// lacksInterface reports whether a namespace is known to have no interface of that name.
func lacksInterface(path, ifname string) bool {
	_, err := readInterface(path, ifname)
	return bridge.IsNotFound(err)
}

// bestKnowledge is the delegate's configuration as far as it can be told without a state file.
func bestKnowledge(c conf) (json.RawMessage, error) {
	env, err := flannel.ReadEnv(c.SubnetFile)
	if err != nil {
		// host-local frees by the owner of an address, whatever its range, but wants to be given one (RFC 5737, TEST-NET-1).
		placeholder := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, 0}), 24)
		env = flannel.Env{Subnets: ip.Dual[netip.Prefix]{V4: placeholder}, IPMasq: true}
	}
	return delegateConf(c, env)
}
