//go:build linux

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"tulle/ip"
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
		if err := host.startContainers(l.Config.Containers); err != nil {
			return err
		}
	}
	return nil
}

func (h *Host) startContainers(count int) error {
	subnet, err := h.ReadSubnetFile()
	if err != nil {
		return err
	}
	bridge, err := h.addBridge(containerBridge, subnet.MTU, localMAC(0xcc, byte(h.index)))
	if err != nil {
		return err
	}
	for _, family := range h.lab.Config.Families {
		if err := h.addAddress(bridge, subnet.Gateway.Of(family)); err != nil {
			return err
		}
	}
	for number := 1; number <= count; number++ {
		container := h.newContainer(number, subnet)
		if container.node, err = newNode(container.Name, h.lab.pins()); err != nil {
			return err
		}
		h.Containers = append(h.Containers, container)
		link, err := h.plug(bridge, fmt.Sprintf("vethc%d", number), container.node, subnet.MTU)
		if err != nil {
			return err
		}
		for _, family := range h.lab.Config.Families {
			gateway := subnet.Gateway.Of(family)
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

func (h *Host) newContainer(number int, subnet Subnet) *Container {
	container := &Container{Name: fmt.Sprintf("%s/c%d", h.Name, number), Host: h, mtu: subnet.MTU}
	for _, family := range h.lab.Config.Families {
		container.Addr.Set(family, nth(subnet.Gateway.Of(family).Addr(), int64(number)))
	}
	return container
}

// Subnet is what a host's subnet file says.
type Subnet struct {
	// Gateway is the first address of the subnet, with the subnet's length.
	Gateway ip.Dual[netip.Prefix]
	// MTU that containers must have, in bytes.
	MTU int
}

// ReadSubnetFile reads the host's subnet file as Docker and CNI would.
func (h *Host) ReadSubnetFile() (Subnet, error) {
	text, err := os.ReadFile(h.SubnetFile())
	if err != nil {
		return Subnet{}, fmt.Errorf("read subnet of %s: %w", h, err)
	}
	var subnet Subnet
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		var err error
		switch key {
		case "FLANNEL_SUBNET":
			subnet.Gateway.V4, err = netip.ParsePrefix(value)
		case "FLANNEL_IPV6_SUBNET":
			subnet.Gateway.V6, err = netip.ParsePrefix(value)
		case "FLANNEL_MTU":
			subnet.MTU, err = strconv.Atoi(value)
		}
		if err != nil {
			return Subnet{}, fmt.Errorf("read subnet of %s: %s: %w", h, key, err)
		}
	}
	for _, family := range h.lab.Config.Families {
		if !subnet.Gateway.Of(family).IsValid() {
			return Subnet{}, fmt.Errorf("read subnet of %s: %s has no %s subnet", h, h.SubnetFile(), family)
		}
	}
	return subnet, nil
}
