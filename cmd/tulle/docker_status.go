//go:build linux

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"tulle/internal/docker"
)

func newDockerStatusCommand(flags *dockerFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show which Docker networks hold this host's subnet; exit 1 if one holds another",
		Long: `Show every Docker network of this host that has addresses of Tulle's network, and whether they are those of the lease.
When the lease changes while containers run, nothing is torn down: the network keeps the old subnet, and what
moves it is shown here. Connecting to Docker's socket may make systemd start Docker.`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			holdings, err := dockerHoldings(cmd.Context(), flags)
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), holdings)
			} else {
				err = printHoldings(cmd, holdings)
			}
			for _, h := range holdings {
				if err == nil && h.Problem != "" {
					err = &commandError{code: exitFailed}
				}
			}
			return err
		}).runE,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func dockerHoldings(ctx context.Context, flags *dockerFlags) ([]docker.Holding, error) {
	env, err := flags.lease()
	if err != nil {
		return nil, err
	}
	engine, err := docker.Connect(ctx, flags.socket)
	if err != nil {
		return nil, err
	}
	daemon, err := flags.daemon()
	if err != nil {
		return nil, err
	}
	file, err := flags.file(daemon)
	if err != nil {
		return nil, err
	}
	configured, err := file.Configured()
	if err != nil {
		return nil, err
	}
	pools, err := docker.OverlappingPools(env, file, daemon)
	if err != nil {
		return nil, err
	}
	networks, err := engine.Networks(ctx)
	if err != nil {
		return nil, err
	}
	return docker.Holdings(env, networks, configured, pools), nil
}

func printHoldings(cmd *cobra.Command, holdings []docker.Holding) error {
	if len(holdings) == 0 {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), "no Docker network holds the lease: tulle docker configure --restart, or tulle docker network create NAME")
		return err
	}
	t := newTable(cmd.OutOrStdout(), "NAME", "BRIDGE", "SUBNET", "MTU", "CONTAINERS")
	for _, h := range holdings {
		t.row(networkCells(h.Network)...)
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, h := range holdings {
		if h.Problem != "" {
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s. When its containers may stop: %s\n", shown(h.Name), shown(h.Problem), shown(h.Remedy))
		}
	}
	return nil
}
