package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"tulle/internal/backends"
	"tulle/internal/printable"
	"tulle/subnet"
)

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show, check and write the network configuration",
	}
	var store storeFlags
	store.define(cmd)
	cmd.AddCommand(newConfigGetCommand(&store), newConfigSetCommand(&store), newConfigCheckCommand())
	return cmd
}

func newConfigGetCommand(store *storeFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "get",
		Short: "Print the network configuration as it is stored",
		Args:  cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			return store.do(func(s subnet.Operator) error {
				data, _, err := s.Config(cmd.Context())
				if err != nil {
					return err
				}
				if data == nil {
					return fmt.Errorf("%s does not exist: write it with: tulle config set", s.ConfigKey())
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), printable.JSON(string(data)))
				return err
			})
		}).runE,
	}
}

func newConfigSetCommand(store *storeFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "set JSON|@FILE|-",
		Short: "Write the network configuration, if it is valid",
		Long: `Write the network configuration, given as JSON, in a file (@FILE) or on standard input (-). An invalid one
is not written, and what is odd in a valid one is pointed out, such as addresses that this host's own networks have. A running tulled takes
it over when it is restarted.`,
		Example: `  tulle config set '{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}'
  tulle config set @dist/networks/dual-stack.json`,
		Args: cobra.ExactArgs(1),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			data, err := readConfig(cmd, args[0])
			if err != nil {
				return err
			}
			return store.do(func(s subnet.Operator) error {
				_, revision, err := s.Config(cmd.Context())
				if err != nil {
					return err
				}
				written, err := s.SetConfig(cmd.Context(), data, revision)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is at revision %d\n", s.ConfigKey(), written)
				return err
			})
		}).runE,
	}
}

func newConfigCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check JSON|@FILE|-",
		Short: "Check a network configuration without writing it",
		Long: `Check a network configuration, given as JSON, in a file (@FILE) or on standard input (-), without a store.
It prints "valid", and on standard error what is odd, such as addresses that this host's own networks have; the exit code is 1 if it is
invalid.`,
		Example: `  tulle config get | tulle config check -`,
		Args:    cobra.ExactArgs(1),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			if _, err := readConfig(cmd, args[0]); err != nil {
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "valid")
			return err
		}).runE,
	}
}

// readConfig returns the configuration that arg is or names. It fails if the configuration is invalid, and prints what is odd about it, and on
// this host.
func readConfig(cmd *cobra.Command, arg string) ([]byte, error) {
	data := []byte(arg)
	var err error
	if file, ok := strings.CutPrefix(arg, "@"); ok {
		data, err = readText(cmd.Context(), func() (io.ReadCloser, error) { return os.Open(file) }, file)
	} else if arg == "-" {
		data, err = readText(cmd.Context(), func() (io.ReadCloser, error) { return io.NopCloser(cmd.InOrStdin()), nil }, "standard input")
	}
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	n, warnings, err := backends.Check(data)
	if err != nil {
		return nil, fmt.Errorf("invalid configuration: %w", err)
	}
	for _, d := range append(warnings, overlaps(cmd.Context(), n)...) {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning:", d)
	}
	return data, nil
}

// maxConfig is far above what a network configuration takes, in bytes.
const maxConfig = 1 << 20

// readText returns what is to be read from a source, which may be a pipe: that ends when its writer likes, so when ctx ends it is not
// waited for. What is then left reading ends with the program.
func readText(ctx context.Context, open func() (io.ReadCloser, error), source string) ([]byte, error) {
	type result struct {
		text []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		// To open a named pipe takes a writer already.
		file, err := open()
		if err != nil {
			done <- result{err: err}
			return
		}
		text, err := io.ReadAll(io.LimitReader(file, maxConfig+1))
		done <- result{text, errors.Join(err, file.Close())}
	}()
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for %s: %w", source, context.Cause(ctx))
	case r := <-done:
		if len(r.text) > maxConfig {
			return nil, fmt.Errorf("%s has more than %d bytes, which no network configuration takes: name the right file", source, maxConfig)
		}
		return r.text, r.err
	}
}
