//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"tulle/internal/lab"
)

func newLabRunCommand() *cobra.Command {
	var flags labFlags
	var keep, asJSON bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Bring up a network, try every pair of containers, tear it down",
		Long: `Bring up a network, try every pair of containers, tear it down.

It ends with PASS and exit code 0 if every container reaches every other with
its source address preserved and at full MTU; else with FAIL and exit code 1.`,
		Example: `  tulle lab run
  tulle lab run --hosts 5 --segments 2 --direct-routing
  tulle lab run --backend host-gw --family ipv6 --json`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			progress := cmd.OutOrStdout()
			if asJSON {
				progress = cmd.ErrOrStderr()
			}
			config, err := flags.config(progress)
			if err != nil {
				return err
			}
			config.Detach = keep
			if keep || lab.Permitted() {
				return runLab(cmd, config, asJSON)
			}
			// What runs in there does the rest and has said why it failed.
			code, err := lab.RunUnprivileged(cmd.Context(), os.Args[1:])
			if err == nil && code != exitOK {
				err = &commandError{code: code}
			}
			return err
		}).runE,
	}
	flags.register(cmd)
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the network up at the end, as lab up does")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

func runLab(cmd *cobra.Command, config lab.Config, asJSON bool) error {
	if err := lab.EnterUnprivileged(); err != nil {
		return err
	}
	report, err := bringUp(cmd.Context(), config, cmd.ErrOrStderr())
	if err == nil {
		err = writeReport(cmd.OutOrStdout(), report, asJSON)
	}
	if err == nil && !report.Pass {
		err = &commandError{code: exitFailed}
	}
	if asJSON {
		return err
	}
	var failure *commandError
	switch {
	case err == nil:
		fmt.Fprintln(cmd.OutOrStdout(), "PASS")
	case errors.As(err, &failure):
		fmt.Fprintln(cmd.OutOrStdout(), "FAIL")
	default:
		fmt.Fprintln(cmd.ErrOrStderr(), "tulle:", err)
		fmt.Fprintln(cmd.OutOrStdout(), "FAIL")
		err = &commandError{code: exitFailed}
	}
	return err
}

// bringUp runs a network, looks at it, and takes it down again unless it is
// detached.
func bringUp(ctx context.Context, config lab.Config, notes io.Writer) (report labReport, err error) {
	l, err := lab.New(ctx, config)
	if err != nil {
		return labReport{}, err
	}
	if config.Detach {
		defer fmt.Fprint(notes, howToGoOn(config.Name))
		defer func() { err = errors.Join(err, l.Release()) }()
	} else {
		defer func() { err = errors.Join(err, l.Close()) }()
	}
	if err := l.Up(ctx); err != nil {
		return labReport{}, err
	}
	return newLabReport(ctx, l)
}

// howToGoOn tells what to do with a lab that is left running.
func howToGoOn(name string) string {
	var option string
	if name != defaultLabName {
		option = " --name " + name
	}
	return fmt.Sprintf(`The lab runs on. Its files are in %s. To go on:
  tulle lab status%[2]s
  tulle lab exec%[2]s h1 -- COMMAND
  tulle lab exec%[2]s h1/c1 -- COMMAND
  tulle lab down%[2]s
`, lab.Dir(name), option)
}
