//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"tulle/internal/api"
	"tulle/internal/netns"
	"tulle/ip"
	"tulle/subnet/flannel"
)

// containerBridge joins the containers of a host. It has the name that CNI's
// flannel configuration gives it.
const containerBridge = "cni0"

// Container is a namespace behind the bridge of a host.
type Container struct {
	*node
	// Name is that of the host, a slash, "c" and the container's number.
	Name string
	Host *Host
	Addr ip.Dual[netip.Addr]

	mtu int
}

// StartContainers gives every host its bridge and containers, with addresses
// from the subnet that the host has leased.
func (l *Lab) StartContainers(ctx context.Context) error {
	for _, host := range l.Hosts {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := host.StartContainers(); err != nil {
			return err
		}
	}
	return nil
}

// awaitBridges waits for every host.
func (l *Lab) awaitBridges(ctx context.Context) error {
	for _, host := range l.Hosts {
		if err := host.AwaitBridge(ctx); err != nil {
			return err
		}
	}
	return nil
}

// AwaitBridge waits until tulled has taken in the bridge, so that its rules hold for what the containers send.
func (h *Host) AwaitBridge(ctx context.Context) error {
	var err error
	if failed := poll(ctx, readyTimeout, func() bool {
		var known bool
		known, err = h.knowsBridge(ctx)
		return known
	}); failed != nil {
		return fmt.Errorf("wait for tulled on %s to take in its bridge: %w", h, errors.Join(failed, err))
	}
	return nil
}

// knowsBridge reports whether the rules that tulled wants name the bridge, if there are any that name bridges.
func (h *Host) knowsBridge(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	wanted, err := api.NewClient(h.runDir()).Wanted(ctx)
	if err != nil {
		return false, err
	}
	for _, t := range wanted.State.Tables {
		named := slices.ContainsFunc(t.Rules, func(r ip.Rule) bool { return r.In == containerBridge })
		if t.Counts() && !named {
			return false, nil
		}
	}
	return true, nil
}

// StartContainers gives the host its bridge and containers.
func (h *Host) StartContainers() error {
	env, err := h.ReadSubnetFile()
	if err != nil {
		return err
	}
	bridge, err := h.addBridge(containerBridge, env.MTU, localMAC(0xcc, byte(h.index)))
	if err != nil {
		return err
	}
	for _, family := range h.lab.Config.Families {
		if err := h.addAddress(bridge, env.Gateway(family)); err != nil {
			return err
		}
	}
	for number := 1; number <= h.lab.Config.Containers; number++ {
		container := h.newContainer(number, env)
		if container.node, err = newNode(container.Name, h.lab.pins()); err != nil {
			return err
		}
		h.Containers = append(h.Containers, container)
		link, err := h.plug(bridge, fmt.Sprintf("vethc%d", number), container.node, env.MTU)
		if err != nil {
			return err
		}
		for _, family := range h.lab.Config.Families {
			gateway := env.Gateway(family)
			if err := container.addAddress(link, netip.PrefixFrom(container.Addr.Of(family), gateway.Bits())); err != nil {
				return err
			}
			if err := container.addDefaultRoute(gateway.Addr()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h *Host) newContainer(number int, env flannel.Env) *Container {
	container := &Container{Name: fmt.Sprintf("%s/c%d", h.Name, number), Host: h, mtu: env.MTU}
	for _, family := range ip.Families() {
		if gateway := env.Gateway(family); gateway.IsValid() {
			container.Addr.Set(family, nth(gateway.Addr(), int64(number)))
		}
	}
	return container
}

// OpenContainer returns a container that another program runs on the host, by the path of its namespace. It is the
// caller's to close, and no part of the lab's matrix.
func (h *Host) OpenContainer(name, namespace string, addr ip.Dual[netip.Addr]) (*Container, error) {
	ns, err := netns.Open(namespace)
	if err != nil {
		return nil, err
	}
	n, err := attach(name, ns)
	if err != nil {
		return nil, err
	}
	return &Container{node: n, Name: name, Host: h, Addr: addr}, nil
}

// Close lets go of a container from OpenContainer.
func (c *Container) Close() error { return c.close() }

// ReadSubnetFile reads what the daemon wrote for Docker and CNI.
func (h *Host) ReadSubnetFile() (flannel.Env, error) {
	env, err := flannel.ReadEnv(h.SubnetFile())
	if err != nil {
		return flannel.Env{}, fmt.Errorf("read subnet of %s: %w", h, err)
	}
	for _, family := range h.lab.Config.Families {
		if !env.Subnets.Of(family).IsValid() {
			return flannel.Env{}, fmt.Errorf("read subnet of %s: %s has no %s subnet", h, h.SubnetFile(), family)
		}
	}
	return env, nil
}
