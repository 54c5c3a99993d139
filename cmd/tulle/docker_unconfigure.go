package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"tulle/internal/docker"
)

func newDockerUnconfigureCommand(flags *dockerFlags) *cobra.Command {
	var restart bool
	cmd := &cobra.Command{
		Use:   "unconfigure",
		Short: "Undo tulle docker configure",
		Long: `Bring daemon.json back to what it was before configure, to the byte. If it was edited since, the edits
stay and only configure's own settings go. The drop-in for systemd is removed.`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			return unconfigureDocker(cmd.Context(), cmd.OutOrStdout(), flags, restart)
		}).runE,
	}
	cmd.Flags().BoolVar(&restart, "restart", false, "restart Docker if something changed")
	return cmd
}

func unconfigureDocker(ctx context.Context, w io.Writer, flags *dockerFlags, restart bool) error {
	file, err := docker.OpenFile(flags.daemonJSON)
	if err != nil {
		return err
	}
	changes, err := file.Unconfigure()
	if err != nil {
		return err
	}
	printChanges(w, file, changes)
	removed, err := docker.RemoveDropIn(dropInPath)
	if err != nil {
		return err
	}
	if removed {
		fmt.Fprintf(w, "%s removed\n", dropInPath)
		if err := systemctl(ctx, "daemon-reload"); err != nil {
			return err
		}
	}
	if len(changes) == 0 {
		return nil
	}
	engine, err := flags.connect(ctx)
	if engine == nil || err != nil {
		return err
	}
	fmt.Fprintln(w, keepsAddress)
	if !restart {
		fmt.Fprintf(w, "Docker must restart. When its containers may stop: %s\n", restartLine)
		return nil
	}
	return restartDocker(ctx, engine)
}

// keepsAddress tells of a habit of Docker's: what docker0 had last is in its store and comes back.
const keepsAddress = `Without a "bip" Docker goes on with the address that docker0 has. To free the lease, give docker0 another, such as "bip": "172.17.0.1/16".`
