package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tulle/ip"
	"tulle/subnet"
)

func newLeasesReserveCommand(store *storeFlags) *cobra.Command {
	var node string
	var public, public6 string
	cmd := &cobra.Command{
		Use:   "reserve SUBNET[,SUBNET6]",
		Short: "Pin subnets to a host, for ever",
		Long: `Pin subnets to a host: to the one that leases exactly them now, else to the one with the
given node id or public address. A reservation never expires; release ends it.`,
		Example: `  tulle leases reserve 10.5.34.0/24 --public-ip 192.0.2.7`,
		Args:    cobra.ExactArgs(1),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			subnets, err := parseSubnets(args[0])
			if err != nil {
				return usageError(err)
			}
			attrs := subnet.Attrs{Node: node}
			if node != "" {
				if err := subnet.CheckNodeID(node); err != nil {
					return usageError(err)
				}
			}
			texts := ip.Dual[string]{V4: public, V6: public6}
			for _, f := range ip.Families() {
				if texts.Of(f) == "" {
					continue
				}
				addr, err := publicAddress(f, texts.Of(f), subnets.Of(f))
				if err != nil {
					return usageError(err)
				}
				attrs.Public.Set(f, addr)
			}
			return store.do(func(s subnet.Operator) error {
				set, err := s.Snapshot(cmd.Context())
				if err != nil {
					return err
				}
				if err := checkReservation(set, subnets, attrs); err != nil {
					return err
				}
				lease, err := s.Reserve(cmd.Context(), subnets, attrs)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "reserved %s for %s\n", subnet.KeyOf(lease.Subnets),
					cmp.Or(shownName(lease.Attrs.Node), strings.Join(publics(lease.Attrs.Public), ",")))
				return err
			})
		}).runE,
	}
	cmd.Flags().StringVar(&node, "node-id", "", "node `id` of the host")
	cmd.Flags().StringVar(&public, publicFlags().V4, "", "public IPv4 `address` of the host")
	cmd.Flags().StringVar(&public6, publicFlags().V6, "", "public IPv6 `address` of the host")
	return cmd
}

// publicFlags are the names of the flags for a public address.
func publicFlags() ip.Dual[string] { return ip.Dual[string]{V4: "public-ip", V6: "public-ipv6"} }

// publicAddress reads the public address of the host that shall have a subnet.
func publicAddress(f ip.Family, text string, reserved netip.Prefix) (netip.Addr, error) {
	refuse := func(why string) (netip.Addr, error) {
		return netip.Addr{}, fmt.Errorf("--%s is %q, %s: give the %s address by which other hosts reach the host", publicFlags().Of(f), text, why, f)
	}
	addr, err := netip.ParseAddr(text)
	switch {
	case err != nil || ip.FamilyOf(addr) != f || addr.Is4In6() || addr.Zone() != "":
		return refuse(fmt.Sprintf("which is not an %s address", f))
	case !ip.BetweenHosts(addr):
		return refuse("at which no host is reached from others")
	case reserved.Contains(addr):
		return refuse(fmt.Sprintf("which lies in %s itself, where containers will be", reserved))
	}
	return addr, nil
}

// checkReservation refuses subnets that no host would take, by the network configuration, or that other hosts would refuse.
func checkReservation(set subnet.Set, subnets subnet.Subnets, attrs subnet.Attrs) error {
	if set.Network == nil {
		return nil
	}
	for _, f := range ip.Families() {
		var one subnet.Network
		var its subnet.Subnets
		pool, p := set.Network.Pools.Of(f), subnets.Of(f)
		one.Pools.Set(f, pool)
		its.Set(f, p)
		switch {
		case one.Fits(its):
			continue
		case !pool.Enabled():
			return fmt.Errorf("SUBNET has %s, and the network configuration has no %s: leave it out", p, f)
		}
		wants := fmt.Sprintf("give a /%d of %s, from %s to %s", pool.SubnetLen, pool.Network, pool.Min, pool.Max)
		if !p.IsValid() {
			return fmt.Errorf("SUBNET is %s, and lacks the %s subnet that each host of the network has: %s too", subnet.KeyOf(subnets), f, wants)
		}
		return fmt.Errorf("SUBNET has %s, which hosts of the network do not take: %s", p, wants)
	}
	// Those that it overlaps are named when it is written, or are what is to be pinned.
	others := slices.DeleteFunc(slices.Clone(set.Leases), func(l *subnet.Lease) bool { return len(subnet.Overlap(l.Subnets, subnets)) > 0 })
	_, problems := subnet.Judge(*set.Network, append(others, &subnet.Lease{Subnets: subnets, Attrs: attrs, Created: subnet.Unwritten}), subnet.Self{})
	for _, p := range problems {
		if p.Key == subnet.KeyOf(subnets) {
			return fmt.Errorf("SUBNET is %s, which hosts would refuse: %s: choose another subnet or address", p.Key, p.Reason)
		}
	}
	return nil
}
