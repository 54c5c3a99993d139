//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"tulle/internal/api"
	"tulle/internal/docker"
	"tulle/internal/holder"
	"tulle/internal/settings"
	"tulle/subnet"
)

func newDockerNetworkCommand(flags *dockerFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "network",
		Short: "Make, list and remove a Docker network that holds this host's subnet, beside docker0",
	}
	cmd.AddCommand(newDockerNetworkCreateCommand(flags), newDockerNetworkRemoveCommand(flags), newDockerNetworkListCommand(flags))
	return cmd
}

func newDockerNetworkCreateCommand(flags *dockerFlags) *cobra.Command {
	var runDir string
	var trusted []string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a network that holds this host's subnet; Docker need not restart",
		Long: `Make a user-defined bridge network that holds this host's subnet, with the network's MTU and without Docker's
masquerading if tulled masquerades. Containers join it with docker run --network NAME, and compose
projects with "external: true". Either one such network or docker0 can hold the subnet.

Docker 28.2 and newer drops what other hosts send to containers, except from links that the network trusts. Those
are the ones that traffic from other hosts comes in by now; more can be named with --trust.`,
		Args: cobra.ExactArgs(1),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			env, err := flags.lease()
			if err != nil {
				return err
			}
			engine, err := docker.Connect(cmd.Context(), flags.socket)
			if err != nil {
				return err
			}
			if err := notPromised(flags); err != nil {
				return err
			}
			networks, err := engine.Networks(cmd.Context())
			if err != nil {
				return err
			}
			// Docker's own networks are for CreateNetwork to judge.
			var own holder.Owner
			for _, n := range networks {
				own.Bridges = append(own.Bridges, n.Bridge)
			}
			if err := checkHolders(flags.confDir, defaultCNIData, env, own); err != nil {
				return err
			}
			if engine.Version.RoutesDirectly() {
				links, err := linksToHosts(cmd.Context(), runDir)
				if err != nil {
					return err
				}
				trusted = append(trusted, links...)
			}
			slices.Sort(trusted)
			created, err := engine.CreateNetwork(cmd.Context(), args[0], env, slices.Compact(trusted))
			switch {
			case err != nil:
				return err
			case !created:
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "network %s holds the lease already\n", args[0])
			default:
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "network %s: %s, MTU %d\n", args[0], subnet.KeyOf(env.Subnets), env.MTU)
			}
			adviseUpgrade(cmd.OutOrStdout(), engine.Version)
			return errors.Join(err, adviseMark(cmd, flags, engine))
		}).runE,
	}
	settings.RunDir().Define(cmd.Flags(), &runDir)
	cmd.Flags().StringSliceVar(&trusted, "trust", nil, "further `links` that Docker 28.2 and newer lets other hosts' traffic in by")
	return cmd
}

// adviseMark says what Docker's nftables rules need in order to let other hosts' packets in.
func adviseMark(cmd *cobra.Command, flags *dockerFlags, engine *docker.Engine) error {
	info, err := engine.Info(cmd.Context())
	if err != nil || info.Firewall.Driver != "nftables" {
		return err
	}
	file, err := flags.dockerFile()
	if err != nil {
		return err
	}
	accepts, err := file.AcceptsMark()
	if err != nil || accepts {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "Docker lets other hosts reach published ports only, until %s has \"bridge-accept-fwmark\": %q and Docker has restarted.\n",
		file.Path(), docker.AcceptMark())
	return err
}

// notPromised refuses what daemon.json promises to docker0: with both, Docker would not start again.
func notPromised(flags *dockerFlags) error {
	file, err := flags.dockerFile()
	if err != nil {
		return err
	}
	configured, err := file.Configured()
	if err == nil && configured {
		err = fmt.Errorf("%s gives the lease to docker0, and only one network can hold it: use docker0, or first: tulle docker unconfigure", file.Path())
	}
	return err
}

// linksToHosts are the links that traffic from other hosts comes in by.
func linksToHosts(ctx context.Context, runDir string) ([]string, error) {
	wanted, err := api.NewClient(runDir).Wanted(ctx)
	if err != nil {
		return nil, err
	}
	var links []string
	for _, l := range wanted.State.Links {
		links = append(links, l.Name)
	}
	for _, r := range wanted.State.Routes {
		links = append(links, r.Link)
	}
	if len(links) > 0 {
		return links, nil
	}
	// Plain routes, and no peer yet.
	st, err := api.NewClient(runDir).Status(ctx)
	if err != nil {
		return nil, err
	}
	if st.Uplink != nil {
		links = append(links, st.Uplink.Link)
	}
	return links, nil
}

func newDockerNetworkRemoveCommand(flags *dockerFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "rm NAME",
		Short: "Remove a network that create has made",
		Args:  cobra.ExactArgs(1),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			engine, err := docker.Connect(cmd.Context(), flags.socket)
			if err != nil {
				return err
			}
			return engine.RemoveNetwork(cmd.Context(), args[0])
		}).runE,
	}
}

func newDockerNetworkListCommand(flags *dockerFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the networks that create has made",
		Args:  cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			engine, err := docker.Connect(cmd.Context(), flags.socket)
			if err != nil {
				return err
			}
			networks, err := engine.Networks(cmd.Context())
			if err != nil {
				return err
			}
			networks = slices.DeleteFunc(networks, func(n docker.Network) bool { return !n.Ours })
			if asJSON {
				return printJSON(cmd.OutOrStdout(), networks)
			}
			t := newTable(cmd.OutOrStdout(), "NAME", "BRIDGE", "SUBNET", "MTU", "CONTAINERS")
			for _, n := range networks {
				t.row(networkCells(n)...)
			}
			return t.flush()
		}).runE,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func networkCells(n docker.Network) []string {
	return []string{n.Name, n.Bridge, list(n.Subnets), strconv.Itoa(n.MTU), cmp.Or(strings.Join(n.Containers, ","), "-")}
}
