//go:build linux

package cniplugin

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"tulle/subnet/flannel"
)

// cmdAdd attaches a container. What is needed to undo it is on disk before anything is done.
func (p *Plugin) cmdAdd(ctx context.Context, c conf, args *skel.CmdArgs) error {
	s, a := states{c.DataDir}, attachment{c.Name, args.ContainerID, args.IfName}
	if err := s.check(a); err != nil {
		return err
	}
	env, err := ready(ctx, c, patience)
	if err != nil {
		return types.NewError(types.ErrTryAgainLater, err.Error(), "")
	}
	if err := checkGateway(c, env); err != nil {
		return err
	}
	delegate, err := delegateConf(c, env)
	if err != nil {
		return err
	}
	if _, err := p.find(delegate, delegationOf(args)); err != nil {
		return err
	}
	if err := s.make(); err != nil {
		return err
	}
	held, err := s.lock(ctx, a)
	if err != nil {
		return err
	}
	defer p.unlock(held)
	if err := p.clearLeftover(ctx, c, a, args); err != nil {
		return err
	}
	// What a delegate that fails has undone must not be what is there already.
	if _, err := readInterface(args.Netns, args.IfName); err == nil {
		return types.NewError(types.ErrInvalidEnvironmentVariables, fmt.Sprintf(
			"there is an interface %s in %s already, of another attachment: DEL comes before the next ADD", args.IfName, args.Netns), "")
	}
	bridge, err := missingBridge(c)
	if err != nil {
		return err
	}
	id, err := netnsID(args.Netns)
	if err != nil {
		return err
	}
	r := record{Netns: args.Netns, NetnsID: id, Args: args.Args, Delegate: delegate, Bridge: bridge}
	if err := s.write(a, r); err != nil {
		return err
	}
	result, err := p.attach(ctx, c, env, delegate, bridge != "", args)
	p.markBridge(r)
	if err != nil {
		return p.undo(ctx, c, a, delegate, args, err)
	}
	return result.PrintTo(p.stdout)
}

// attach has the delegate make an attachment. made tells that the bridge comes with it.
func (p *Plugin) attach(ctx context.Context, c conf, env flannel.Env, delegate json.RawMessage, made bool, args *skel.CmdArgs) (types.Result, error) {
	if err := p.clearBridge(c, env); err != nil {
		return nil, err
	}
	result, err := p.add(ctx, delegate, delegationOf(args))
	if err != nil {
		return nil, err
	}
	addrs, err := addrsOf(result)
	if err != nil {
		return nil, err
	}
	p.awaitGateway(ctx, bridgeOf(c), made)
	p.forgetNeighbors(bridgeOf(c), addrs)
	p.announce(bridgeOf(c), args, addrs)
	return result.GetAsVersion(cmp.Or(c.CNIVersion, "0.1.0"))
}

// undo takes back an attachment that failed for the reason err. What cannot be taken back is left to a DEL or GC.
func (p *Plugin) undo(ctx context.Context, c conf, a attachment, delegate json.RawMessage, args *skel.CmdArgs, err error) error {
	undone := p.release(ctx, c, a, delegationOf(args), delegate)
	if undone == nil {
		undone = states{c.DataDir}.remove(a, true)
	}
	if undone != nil {
		p.remark("cleaning up after a failed ADD: %v", undone)
	}
	return err
}

// clearLeftover removes what is left of the same attachment in a namespace that is gone, as after a reboot. One whose namespace and
// interface are still there may be in use.
func (p *Plugin) clearLeftover(ctx context.Context, c conf, a attachment, args *skel.CmdArgs) error {
	s := states{c.DataDir}
	if _, err := os.Lstat(s.path(a)); absent(err) {
		return nil
	}
	r, err := s.read(a)
	if err != nil {
		p.remark("%v: it is written anew", err)
		return removeFile(s.path(a))
	}
	same, err := r.isNetns(r.Netns)
	if err != nil {
		return err
	}
	if same && !lacksInterface(r.Netns, a.ifname) {
		return types.NewError(types.ErrInvalidEnvironmentVariables, fmt.Sprintf(
			"container %s has an interface %s on network %s already, in %s: DEL comes before the next ADD", a.container, a.ifname, a.network, r.Netns), "")
	}
	d := delegationOf(args)
	d.netns = ""
	return p.release(ctx, c, a, d, r.Delegate)
}
