//go:build linux

package cniplugin

import (
	"context"
	"net/netip"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"tulle/internal/netns"
	"tulle/ip/kernel/bridge"
)

// defaultBridge is the bridge plugin's.
const defaultBridge = "cni0"

// bridgeOf is the bridge of the delegate; empty if it is of another kind.
func bridgeOf(c conf) string {
	if textOr(c.Delegate, "type", defaultDelegate) != defaultDelegate {
		return ""
	}
	return textOr(c.Delegate, "bridge", defaultBridge)
}

// missingBridge is the bridge that the delegate has to make; empty if it is there.
func missingBridge(c conf) (string, error) {
	name := bridgeOf(c)
	if name == "" {
		return "", nil
	}
	exists, err := bridge.Exists(name)
	if exists {
		name = ""
	}
	return name, err
}

// markBridge marks the bridge that came with an attachment, which no plugin ever removes, for tulle cleanup. If the plugin was
// killed before, it is done when the attachment is undone; but a bridge that is there after a reboot may be another's.
func (p *Plugin) markBridge(r record) {
	if r.Bridge == "" {
		return
	}
	same, err := r.isNetns(r.Netns)
	if same {
		err = bridge.Mark(r.Bridge)
	}
	if err != nil {
		p.remark("mark bridge: %v", err)
	}
}

// forgetNeighbors has the host learn anew where the addresses of a container are.
func (p *Plugin) forgetNeighbors(name string, addrs []netip.Addr) {
	if name == "" || len(addrs) == 0 {
		return
	}
	if err := bridge.ForgetNeighbors(name, addrs); err != nil {
		p.remark("forget neighbors: %v", err)
	}
}

// announce tells the other containers on the bridge where the addresses of a new one are.
func (p *Plugin) announce(name string, args *skel.CmdArgs, addrs []netip.Addr) {
	if name == "" {
		return
	}
	ns, err := netns.Open(args.Netns)
	if err == nil {
		defer ns.Close()
		err = ns.Do(func() error { return bridge.Announce(args.IfName, addrs) })
	}
	if err != nil {
		p.remark("announce addresses: %v", err)
	}
}

// addrsOf are the addresses that a delegate has given.
func addrsOf(r types.Result) (addrs []netip.Addr, err error) {
	res, err := current.NewResultFromResult(r)
	if err != nil {
		return nil, err
	}
	for _, config := range res.IPs {
		if addr, ok := netip.AddrFromSlice(config.Address.IP); ok {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return addrs, nil
}

// addrsIn are the addresses of an interface in a namespace; none if either is gone.
func addrsIn(path, ifname string) (addrs []netip.Addr) {
	ns, err := netns.Open(path)
	if err != nil {
		return nil
	}
	defer ns.Close()
	_ = ns.Do(func() error {
		i, err := bridge.ReadInterface(ifname)
		for _, p := range i.Addrs {
			addrs = append(addrs, p.Addr())
		}
		return err
	})
	return addrs
}

// How long a gateway takes: the kernel asks for up to a second whether the address is free, after a random wait of up to another
// (RFC 4862, 5.4.2), and begins when the first container's interface is up.
const (
	gatewayTimeout = 4 * time.Second
	gatewayEvery   = 50 * time.Millisecond
)

// awaitGateway sees to it that the addresses of the bridge answer when the first containers come. Nobody else can have those of a
// bridge that came with this one; beside another that is just coming, that one sees to it.
func (p *Plugin) awaitGateway(ctx context.Context, name string, made bool) {
	if name == "" {
		return
	}
	if made {
		if err := bridge.Assume(name); err != nil {
			p.remark("wait for the gateway: %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, gatewayTimeout)
	defer cancel()
	for {
		tentative, err := bridge.Tentative(name)
		if err != nil {
			p.remark("wait for the gateway: %v", err)
		}
		if len(tentative) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			p.remark("after %v the kernel does not answer for %v on %s yet: containers may miss their gateway at first", gatewayTimeout, tentative, name)
			return
		case <-time.After(gatewayEvery):
		}
	}
}
