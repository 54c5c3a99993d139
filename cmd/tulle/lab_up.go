//go:build linux

package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"tulle/internal/lab"
)

func newLabUpCommand() *cobra.Command {
	var flags labFlags
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Bring up a network and leave it running",
		Args:  cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			config, err := flags.config(cmd.OutOrStdout())
			if err != nil {
				return err
			}
			config.Detach = true
			l, err := lab.New(cmd.Context(), config)
			if err != nil {
				return err
			}
			if err := l.Up(cmd.Context()); err != nil {
				return errors.Join(err, l.Close())
			}
			fmt.Fprint(cmd.OutOrStdout(), howToGoOn(config.Name))
			return l.Release()
		}).runE,
	}
	flags.register(cmd)
	return cmd
}

func newLabDownCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Take down a network that `lab up` left running",
		Long: `Take down a network that "lab up" left running: its processes, namespaces and
files, and nothing else. It is not an error if there is none.`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			found, err := lab.Remove(name)
			if err != nil {
				return err
			}
			if found {
				fmt.Fprintf(cmd.OutOrStdout(), "lab %s: removed\n", name)
			} else {
				fmt.Fprintf(cmd.OutOrStdout(), "lab %s: nothing to remove\n", name)
			}
			return nil
		}).runE,
	}
	registerLabName(cmd, &name)
	return cmd
}
