//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"tulle/internal/bench"
	"tulle/internal/lab"
)

func newBenchControlCommand() *cobra.Command {
	var config bench.Config
	var peers []int
	var family, tulled, plot string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "control",
		Short: "Measure one host among many peers",
		Long: `Measure one host among many peers: a real tulled, kernel and etcd, in namespaces of their own; the peers are
leases that nobody stands behind. Beside each start stands the kernel's floor: the same objects written by one
loop that knows them beforehand. It takes some two minutes for each number of peers, and needs root.`,
		Example: `  tulle bench control --peers 10000
  tulle bench control --backend host-gw --peers 1000,2000,4000 --json`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			var base lab.Config
			flags := labFlags{family: family, tulled: tulled, fastPath: config.FastPath}
			for _, set := range []func(*lab.Config) error{flags.setFamilies, flags.setPrograms, flags.checkFastPath} {
				if err := set(&base); err != nil {
					return usageError(err)
				}
			}
			config.Families, config.Tulle, config.Tulled = base.Families, base.Tulle, base.Tulled
			config.Progress = printProgress(cmd.ErrOrStderr())
			if plot != "" && len(peers) < 2 {
				return usageError(fmt.Errorf("--plot needs two numbers of --peers or more"))
			}
			for _, config.Peers = range peers {
				if err := config.Check(); err != nil {
					return usageError(err)
				}
			}
			var results []bench.Control
			for _, config.Peers = range peers {
				c, err := bench.RunControl(cmd.Context(), config)
				if err != nil {
					return err
				}
				results = append(results, c)
			}
			if plot != "" {
				if err := writePlot(plot, results); err != nil {
					return err
				}
			}
			report, err := bench.NewReport(os.Args[1:], version, bench.Report{Control: results})
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), report)
			}
			if err := printControl(cmd.OutOrStdout(), results); err != nil {
				return err
			}
			return printMissed(cmd.OutOrStdout(), report)
		}).runE,
	}
	flags := cmd.Flags()
	flags.StringVar(&config.Backend, "backend", "vxlan", "vxlan or host-gw")
	flags.StringVar(&family, "family", "ipv4", "ipv4, ipv6 or dual")
	flags.IntSliceVar(&peers, "peers", []int{1000}, "number of peers, or several numbers")
	flags.IntVar(&config.Rounds, "rounds", 5, "how often each start is measured")
	flags.DurationVar(&config.Churn, "churn", 10*time.Second, "for how long 100 leases are written per second")
	flags.DurationVar(&config.Idle, "idle", time.Minute, "for how long nothing happens, from 20s after the last start on")
	flags.IntVar(&config.ForeignRoutes, "foreign-routes", 0, "how many routes another program changes per second, for as long as --idle")
	flags.IntVar(&config.VethChurn, "veth-churn", 0, "how many veth pairs another program makes and deletes per second, for as long as --idle")
	flags.IntVar(&config.ForeignRules, "foreign-rules", 0, "how many rules another program has in nftables")
	flags.IntVar(&config.OddLeases, "odd-leases", 0, "how many leases there are besides, with half a subnet each")
	flags.StringVar(&config.FastPath, "fast-path", "auto", "auto, on or off, for tulled")
	flags.StringVar(&tulled, "tulled", "", "path of tulled (default: beside this program)")
	flags.StringVar(&plot, "plot", "", "draw cost against the number of peers into an SVG `file`")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func writePlot(path string, results []bench.Control) error {
	var svg bytes.Buffer
	if err := bench.WritePlot(&svg, results); err != nil {
		return err
	}
	return os.WriteFile(path, svg.Bytes(), 0o644)
}

// share is the CPU time that a load has cost, if it was measured.
func share(load *bench.Load) string {
	if load == nil {
		return "-"
	}
	return fmt.Sprintf("%s at %.0f/s", percent(load.CPU), load.Others)
}

// printControl has a column for each number of peers.
func printControl(w io.Writer, results []bench.Control) error {
	header := []string{"PEERS"}
	for _, c := range results {
		header = append(header, strconv.Itoa(c.Peers))
	}
	t := newTable(w, header...)
	for _, row := range []struct {
		name string
		cell func(bench.Control) string
	}{
		{"kernel floor", func(c bench.Control) string { return seconds(c.Floor.Median) }},
		{"cold start", func(c bench.Control) string { return seconds(c.Cold.Median) }},
		{"  CPU", func(c bench.Control) string { return seconds(c.Cold.CPU.Median) }},
		{"  kernel changes", func(c bench.Control) string { return fmt.Sprint(c.Cold.Changes) }},
		{"  in the kernel", func(c bench.Control) string {
			return fmt.Sprintf("%s (%.2f of the floor)", seconds(c.Cold.Apply.Median), c.Cold.Apply.Median/c.Floor.Median)
		}},
		{"  netlink calls", func(c bench.Control) string { return fmt.Sprint(c.Cold.Calls) }},
		{"  etcd requests", func(c bench.Control) string { return fmt.Sprint(c.Cold.Requests) }},
		{"  bytes from etcd", func(c bench.Control) string { return fmt.Sprintf("%.0f", c.Cold.Received) }},
		{"warm restart", func(c bench.Control) string { return seconds(c.Warm.Median) }},
		{"  kernel changes", func(c bench.Control) string { return fmt.Sprint(c.Warm.Changes) }},
		{"  etcd requests", func(c bench.Control) string { return fmt.Sprint(c.Warm.Requests) }},
		{"lease to route, p50", func(c bench.Control) string { return seconds(c.Change.Median) }},
		{"  p99", func(c bench.Control) string { return seconds(c.Change.P99) }},
		{"loss to route, p50", func(c bench.Control) string { return seconds(c.Loss.Median) }},
		{"  p99", func(c bench.Control) string { return seconds(c.Loss.P99) }},
		{"churn of 100/s, CPU", func(c bench.Control) string { return percent(c.Churn.CPU) }},
		{"  lag at the end", func(c bench.Control) string { return seconds(c.Churn.Lag) }},
		{"idle, CPU", func(c bench.Control) string { return percent(c.Idle.CPU) }},
		{"  wake-ups/s", func(c bench.Control) string { return fmt.Sprintf("%.1f", c.Idle.Wakeups/c.Idle.Seconds) }},
		{"  kernel changes", func(c bench.Control) string { return fmt.Sprint(c.Idle.Changes) }},
		{"  log bytes", func(c bench.Control) string { return fmt.Sprint(c.Idle.LogBytes) }},
		{"  etcd requests", func(c bench.Control) string { return fmt.Sprint(c.Idle.Requests) }},
		{"foreign routes, CPU", func(c bench.Control) string { return share(c.Foreign) }},
		{"veth churn, CPU", func(c bench.Control) string { return share(c.Veths) }},
		{"RSS", func(c bench.Control) string { return megabytes(c.RSS) }},
		{"  at most", func(c bench.Control) string { return megabytes(c.MostRSS) }},
		{"  Go heap", func(c bench.Control) string { return megabytes(c.Heap) }},
		{"programs started", func(c bench.Control) string { return fmt.Sprint(c.Spawned) }},
	} {
		cells := []string{row.name}
		for _, c := range results {
			cells = append(cells, row.cell(c))
		}
		t.row(cells...)
	}
	return t.flush()
}
