package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "tulle",
		Short: "Operate a Tulle network",
		Long: `Operate a Tulle network. status, plan, doctor, peers, ping, bugreport and cleanup act on this host, leases, config and web on the store, and lab runs
whole networks on this machine. Settings that are tulled's too may be given as it takes them: --some-flag is TULLED_SOME_FLAG.
Exit codes: 0 done, 1 failed or not ready, 2 bad usage.`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return fromEnvironment(cmd.Flags(), os.LookupEnv)
		},
	}
	root.AddCommand(
		newStatusCommand(),
		newPlanCommand(),
		newPeersCommand(),
		newPingCommand(),
		newFastPathCommand(),
		newLeasesCommand(),
		newConfigCommand(),
		newWebCommand(),
		newEtcdCommand(),
		&cobra.Command{
			Use: "version", Short: "Print the version of this program", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "tulle version", version)
				return err
			},
		},
	)
	root.AddCommand(hostCommands()...)
	group(root)
	return root
}

// group has commands that only lead to others print their help, and say which of the others a word may have been meant for.
func group(cmd *cobra.Command) {
	if !cmd.HasSubCommands() {
		return
	}
	cmd.SuggestionsMinimumDistance = 2
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		text := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
		if meant := cmd.SuggestionsFor(args[0]); len(meant) > 0 {
			text += ": did you mean " + cmd.CommandPath() + " " + strings.Join(meant, ", or "+cmd.CommandPath()+" ") + "?"
		}
		return errors.New(text)
	}
	for _, sub := range cmd.Commands() {
		group(sub)
	}
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
