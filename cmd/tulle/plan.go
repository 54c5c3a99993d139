package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"tulle/internal/api"
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
			want, err := api.NewClient(runDir).Wanted(cmd.Context())
			if err != nil {
				return err
			}
			k, err := kernel.Open()
			if err != nil {
				return err
			}
			defer k.Close()
			snap, err := k.Snapshot(cmd.Context(), want.Scope)
			if err != nil {
				return err
			}
			snap.Fixed = nil // what cannot be written is shown, what does not exist is not
			plan, _ := snap.Settable(ip.Diff(snap.Owned, want.State), nil)
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
