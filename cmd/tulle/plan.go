package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"tulle/internal/api"
	"tulle/internal/hostfiles"
	"tulle/internal/settings"
	"tulle/ip"
	"tulle/ip/kernel"
)

func newPlanCommand() *cobra.Command {
	var runDir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what tulled would change on this host now, as commands",
		Long: `Compare the kernel with what tulled last wanted it to look like, and print the difference as the
ip(8), bridge(8), sysctl(8) and nft(8) commands that would mend it. Nothing is changed. A running tulled
mends within moments, so that a plan usually shows something only while tulled is stopped.`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			want, _, plan, err := planned(cmd.Context(), api.NewClient(runDir))
			if err != nil {
				return err
			}
			if asJSON {
				commands := make([]string, len(plan))
				for i, op := range plan {
					commands[i] = op.String()
				}
				return printJSON(cmd.OutOrStdout(), map[string]any{"time": want.Time, "commands": commands})
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), plan)
			return err
		}).runE,
	}
	settings.RunDir().Define(cmd.Flags(), &runDir)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// planned returns what is wanted of the kernel, what it has, and what leads from there to what is wanted.
func planned(ctx context.Context, client *api.Client) (want hostfiles.Wanted, have ip.State, plan ip.Plan, err error) {
	if want, err = client.Wanted(ctx); err != nil {
		return want, have, nil, err
	}
	k, err := kernel.Open()
	if err != nil {
		return want, have, nil, err
	}
	defer k.Close()
	snap, err := k.Snapshot(ctx, want.Scope)
	if err != nil {
		return want, have, nil, err
	}
	snap.Fixed = nil // what cannot be written is shown, what does not exist is not
	plan, _ = snap.Settable(ip.Diff(snap.Owned, want.State), nil)
	return want, snap.Owned, plan, nil
}
