package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"
)

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "tulle",
		Short: "Operate a Tulle network",
		Long: `Operate a Tulle network. status, plan and cleanup act on this host, leases and config on the store, and lab runs
whole networks on this machine. Settings that are tulled's too may be given as it takes them: --some-flag is TULLED_SOME_FLAG.
Exit codes: 0 done, 1 failed or not ready, 2 bad usage.`,
		Version:       version,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return fromEnvironment(cmd.Flags(), os.LookupEnv)
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(
		newStatusCommand(),
		newPlanCommand(),
		newLeasesCommand(),
		newConfigCommand(),
		newEtcdCommand(),
	)
	root.AddCommand(hostCommands()...)
	return root
}

// action is the body of a command.
type action func(cmd *cobra.Command, args []string) error

// runE tells the errors of the command itself from those of its command line.
func (a action) runE(cmd *cobra.Command, args []string) error {
	err := a(cmd, args)
	var classified *commandError
	if err == nil || errors.As(err, &classified) {
		return err
	}
	return &commandError{code: exitFailed, err: err}
}
