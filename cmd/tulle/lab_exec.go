//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"tulle/internal/lab"
)

func newLabExecCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "exec [--name LAB] HOST[/cN] -- COMMAND [ARG...]",
		Short: "Run a command inside a host or container of a running network",
		Long: `Run a command inside a host, a container or the router of a running network.
The exit code is that of the command. In a host, tulle itself acts on that host.`,
		DisableFlagsInUseLine: true,
		Example: `  tulle lab exec h1 -- tulle status
  tulle lab exec h1 -- ip route
  tulle lab exec h1/c1 -- ping -c 3 10.244.2.2
  tulle lab exec router -- ip -br address`,
		Args: hostAndCommand,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return completeNodes(name, args)
		},
		RunE: action(func(cmd *cobra.Command, args []string) error {
			l, err := openLab(name)
			if err != nil {
				return err
			}
			line := args[1:]
			if line[0] == "--" {
				line = line[1:]
			}
			return errors.Join(execIn(cmd, l, args[0], line), l.Release())
		}).runE,
	}
	registerLabName(cmd, &name)
	// What follows HOST belongs to the command even without "--".
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func hostAndCommand(_ *cobra.Command, args []string) error {
	if len(args) < 2 || len(args) == 2 && args[1] == "--" {
		return errors.New("say where and what to run, as in `tulle lab exec h1 -- ip route`")
	}
	return nil
}

func execIn(cmd *cobra.Command, l *lab.Lab, node string, line []string) error {
	ns, err := l.Namespace(node)
	if err != nil {
		return usageError(err)
	}
	// Not bound to the context: a Ctrl-C is for the command to handle.
	program := exec.Command(line[0], line[1:]...)
	if line[0] == "tulle" {
		// This very program, wherever it is.
		if program.Path, err = os.Executable(); err != nil {
			return fmt.Errorf("find own executable: %w", err)
		}
		program.Err = nil
	}
	program.Stdin, program.Stdout, program.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
	if host := l.Host(node); host != nil {
		program.Env = append(os.Environ(), host.Environment()...)
	}
	if err := ns.Do(program.Start); err != nil {
		return fmt.Errorf("run %s in %s: %w", line[0], node, err)
	}
	err = program.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return &commandError{code: exit.ExitCode()}
	}
	return err
}

func completeNodes(name string, args []string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	l, err := lab.Open(name)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer l.Release()
	return l.Names(), cobra.ShellCompDirectiveNoFileComp
}
