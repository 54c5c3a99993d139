//go:build linux

package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"tulle/internal/bench"
)

func newBenchFleetCommand() *cobra.Command {
	var config bench.FleetConfig
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "Measure one etcd with many hosts",
		Long: `Measure one etcd with many hosts: each uses it as tulled does, and has no kernel. All start at once, rest for a
minute, learn of one change, and outlive a restart of etcd.`,
		Example: `  tulle bench fleet --hosts 1000`,
		Args:    cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			if err := config.Check(); err != nil {
				return usageError(err)
			}
			var err error
			if config.Tulle, err = os.Executable(); err != nil {
				return err
			}
			config.Progress = printProgress(cmd.ErrOrStderr())
			result, err := bench.RunFleet(cmd.Context(), config)
			if err != nil {
				return err
			}
			report, err := bench.NewReport(os.Args[1:], version, bench.Report{Fleet: []bench.Fleet{result}})
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), report)
			}
			if err := printFleet(cmd.OutOrStdout(), result); err != nil {
				return err
			}
			return printMissed(cmd.OutOrStdout(), report)
		}).runE,
	}
	flags := cmd.Flags()
	flags.IntVar(&config.Hosts, "hosts", 1000, "number of hosts")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printFleet(w io.Writer, f bench.Fleet) error {
	t := newTable(w, "STAGE", "P50", "P99", "LAST", "ETCD CPU", "ETCD SENT", "ETCD REQUESTS")
	for _, row := range []struct {
		name  string
		stage bench.Stage
	}{
		{"start: lease held", f.Leased}, {"start: all known", f.Known}, {fmt.Sprintf("rest of %.0f s", f.Steady.Seconds), f.Steady},
		{"one change", f.Change}, {"restart of etcd", f.Restart},
	} {
		s := row.stage
		t.row(row.name, seconds(s.Median), seconds(s.P99), seconds(s.Most), seconds(s.EtcdCPU), megabytes(uint64(s.Sent)), fmt.Sprint(s.Requests))
	}
	if err := t.flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%d of %d hosts got no lease\n", f.Failed, f.Hosts)
	return err
}
