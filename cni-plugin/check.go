//go:build linux

package cniplugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"tulle/internal/netns"
	"tulle/ip"
	"tulle/ip/kernel/bridge"
	"tulle/subnet/flannel"
)

// cmdCheck tells whether an attachment is still as ADD made it, and still of this host's lease.
func (p *Plugin) cmdCheck(ctx context.Context, c conf, args *skel.CmdArgs) error {
	if c.PrevResult == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "prevResult is missing: the runtime hands the result of ADD to CHECK", "")
	}
	s, a := states{c.DataDir}, attachment{c.Name, args.ContainerID, args.IfName}
	r, err := s.read(a)
	if errors.Is(err, fs.ErrNotExist) {
		return types.NewError(types.ErrUnknownContainer, fmt.Sprintf(
			"container %s has no interface %s on network %s: %s is missing", a.container, a.ifname, a.network, s.path(a)), "")
	}
	if err != nil {
		return err
	}
	prevResult, err := withoutImplied(c.PrevResult)
	if err != nil {
		return err
	}
	delegate, err := with(r.Delegate, map[string]any{"prevResult": prevResult, "cniVersion": c.CNIVersion})
	if err != nil {
		return err
	}
	if err := p.run(ctx, "CHECK", delegate, delegationOf(args)); err != nil {
		return err
	}
	env, err := flannel.ReadEnv(c.SubnetFile)
	if err != nil {
		return types.NewError(types.ErrTryAgainLater, err.Error(), "")
	}
	i, err := readInterface(args.Netns, args.IfName)
	if err != nil {
		return err
	}
	return checkInterface(i, c.PrevResult, env)
}

func readInterface(path, name string) (i bridge.Interface, err error) {
	ns, err := netns.Open(path)
	if err != nil {
		return i, types.NewError(types.ErrInvalidNetNS, err.Error(), "")
	}
	defer ns.Close()
	err = ns.Do(func() (err error) {
		i, err = bridge.ReadInterface(name)
		return err
	})
	return i, err
}

// withoutImplied returns a result without the routes that show no gateway, as the delegate gets it for CHECK. They lead through that
// of an address; the plugins up to 1.1.1 look for routes without any, and find none. checkInterface looks for them.
func withoutImplied(prevResult json.RawMessage) (json.RawMessage, error) {
	var result struct {
		Routes []object `json:"routes"`
	}
	if err := json.Unmarshal(prevResult, &result); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "prevResult: "+err.Error(), "")
	}
	if result.Routes == nil {
		return prevResult, nil
	}
	return with(prevResult, map[string]any{"routes": slices.DeleteFunc(result.Routes, func(r object) bool { return textOr(r, "gw", "") == "" })})
}

// checkInterface compares an interface with the lease, and the routes with those of the earlier result.
func checkInterface(i bridge.Interface, prevResult json.RawMessage, env flannel.Env) error {
	if i.MTU > env.MTU {
		return fmt.Errorf("MTU is %d, must be at most the %d that the network carries: start the container again", i.MTU, env.MTU)
	}
	var earlier struct {
		Routes []struct {
			Dst netip.Prefix `json:"dst"`
		} `json:"routes"`
	}
	if err := json.Unmarshal(prevResult, &earlier); err != nil {
		return types.NewError(types.ErrDecodingFailure, "prevResult: "+err.Error(), "")
	}
	for _, f := range ip.Families() {
		p := env.Subnets.Of(f)
		if !p.IsValid() {
			continue
		}
		if err := checkAddrs(i.Addrs, p, f); err != nil {
			return err
		}
	}
	for _, r := range earlier.Routes {
		if !slices.Contains(i.Routes, r.Dst.Masked()) {
			return fmt.Errorf("the route to %s is gone: start the container again", r.Dst)
		}
	}
	return nil
}

// checkAddrs wants every address of the family, and at least one, to be in the subnet.
func checkAddrs(addrs []netip.Prefix, p netip.Prefix, f ip.Family) error {
	found := false
	for _, addr := range addrs {
		if ip.FamilyOf(addr.Addr()) != f || !addr.Addr().IsGlobalUnicast() {
			continue
		}
		if !p.Contains(addr.Addr()) {
			return fmt.Errorf("address %s is not in %s, which is this host's subnet now: start the container again", addr.Addr(), p)
		}
		found = true
	}
	if !found {
		return fmt.Errorf("there is no address in %s, this host's %s subnet: start the container again", p, f)
	}
	return nil
}
