//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"

	"tulle/internal/docker"
	"tulle/ip/kernel/bridge"
)

func newDockerUnconfigureCommand(flags *dockerFlags) *cobra.Command {
	var restart bool
	cmd := &cobra.Command{
		Use:   "unconfigure",
		Short: "Undo tulle docker configure",
		Long: `Bring daemon.json back to what it was before configure, to the byte. If it was edited since, the edits
stay and only configure's own settings go. The drop-in for systemd is removed.

Docker stores which addresses docker0 has, and goes on with them unless daemon.json has a bip. So if docker0 holds the lease,
daemon.json has the address that docker0 had before as bip, until Docker has restarted and unconfigure is run again. With
--restart this is one step.`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			return unconfigureDocker(cmd.Context(), cmd.OutOrStdout(), flags, restart)
		}).runE,
	}
	cmd.Flags().BoolVar(&restart, "restart", false, "restart Docker if it must")
	return cmd
}

func unconfigureDocker(ctx context.Context, w io.Writer, flags *dockerFlags, restart bool) error {
	engine, err := flags.connect(ctx)
	if err != nil {
		return err
	}
	file, err := flags.dockerFile()
	if err != nil {
		return err
	}
	changed, leaving, err := unconfigure(ctx, w, file, engine)
	if err != nil {
		return err
	}
	if err := removeDropIn(ctx, w); err != nil {
		return err
	}
	switch {
	case leaving && engine == nil:
		fmt.Fprintln(w, "docker0 holds the lease until Docker starts, which does not run. Then run tulle docker unconfigure again.")
	case leaving && !restart:
		fmt.Fprintf(w, "docker0 holds the lease until Docker restarts. When its containers may stop: %s && tulle docker unconfigure\n", restartLine)
	case leaving:
		return leave(ctx, w, file, engine)
	case changed && engine != nil && !restart:
		fmt.Fprintf(w, "Docker must restart. When its containers may stop: %s\n", restartLine)
	case changed && engine != nil:
		return restartDocker(ctx, engine)
	}
	return nil
}

// leave restarts Docker, whereupon docker0 lets go of the lease, and removes what was kept for that.
func leave(ctx context.Context, w io.Writer, file docker.File, engine *docker.Engine) error {
	if err := restartDocker(ctx, engine); err != nil {
		return err
	}
	_, leaving, err := unconfigure(ctx, w, file, engine)
	if err == nil && leaving {
		err = errors.New("restart docker: it has restarted, and docker0 still holds the lease")
	}
	return err
}

// unconfigure puts back as much of the file as docker0 allows, and takes from docker0 what Docker forgets to. changed tells
// whether Docker has something to read.
func unconfigure(ctx context.Context, w io.Writer, file docker.File, engine *docker.Engine) (changed, leaving bool, err error) {
	addrs, err := bridge.Addrs(docker.DefaultBridge)
	if err != nil {
		return false, false, err
	}
	held, err := heldByDocker0(ctx, addrs, engine)
	if err != nil {
		return false, false, err
	}
	oldAddrs, oldRoutes, err := file.Leftovers(addrs)
	if err != nil {
		return false, false, err
	}
	changes, leaving, err := file.Unconfigure(held)
	if err != nil {
		return false, leaving, err
	}
	printChanges(w, file, changes)
	if leaving {
		return true, true, nil
	}
	for _, a := range oldAddrs {
		err = errors.Join(err, bridge.RemoveAddr(docker.DefaultBridge, a))
	}
	for _, r := range oldRoutes {
		err = errors.Join(err, bridge.RemoveRoute(docker.DefaultBridge, r))
	}
	if err != nil {
		return false, false, err
	}
	// The address of docker0 is what it would be by the file.
	changes = slices.DeleteFunc(changes, func(c docker.Change) bool { return c.Key == "bip" })
	return len(changes) > 0, false, nil
}

// heldByDocker0 is what docker0 holds by Docker's word, or while it does not run, what it would go on with.
func heldByDocker0(ctx context.Context, addrs []netip.Prefix, engine *docker.Engine) ([]netip.Prefix, error) {
	if engine == nil {
		return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Prefix) bool { return a.Addr().Is6() }), nil
	}
	networks, err := engine.Networks(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range networks {
		if n.Name == docker.DefaultNetwork {
			return n.Subnets, nil
		}
	}
	return nil, nil
}

func removeDropIn(ctx context.Context, w io.Writer) error {
	removed, err := docker.RemoveDropIn(dropInPath)
	if !removed || err != nil {
		return err
	}
	fmt.Fprintf(w, "%s removed\n", dropInPath)
	return systemctl(ctx, "daemon-reload")
}
