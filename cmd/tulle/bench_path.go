//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tulle/internal/bench"
	"tulle/internal/lab"
)

// defaultPathPort is that of orders; traffic comes to the next one. Nothing is registered there, and nothing that conntrack has helpers for.
const defaultPathPort = 8474

// pathFlags are those of bench path that are not the measurement's as they stand.
type pathFlags struct {
	offloads, tulled   string
	server             bool
	to                 []string
	port               uint16
	jsonFile, plotFile string
}

func newBenchPathCommand() *cobra.Command {
	var config bench.PathConfig
	var flags pathFlags
	cmd := &cobra.Command{
		Use:   "path",
		Short: "Measure what packets between containers of two hosts cost",
		Long: `Measure what packets between containers of two hosts cost: CPU time of both ends together, for a round trip, a datagram, a
connection and a gigabyte. In a lab, each path has two hosts of its own that a wire joins, and rounds of all paths are
interleaved; both ends share one core. The paths:

  bare     the hosts' own addresses, on hosts that have nothing else
  plain    tulled --fast-path=off
  fast     tulled --fast-path=on
  never    the same, where no flow ever becomes fast
  off      on, and then off by a restart
  flannel  a real flanneld, of --flanneld

Between real hosts, run it with --server on one, in the host and in a container, and with --to on the other. The CPU time is then all that
either machine spends, so that nothing else should run there. Whoever reaches the server can send it traffic: stop it when you are done.`,
		Example: `  tulle bench path --flanneld /usr/local/bin/flanneld --json path.json --svg path.svg
  tulle bench path --paths plain,fast --backend host-gw --figures tcp-rr,udp-rr
  tulle bench path --server
  tulle bench path --to bare=192.0.2.2 --to fast=10.1.7.2@/proc/4711/ns/net`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			config.Progress = printProgress(cmd.ErrOrStderr())
			if flags.server {
				return bench.ServePath(cmd.Context(), flags.port, config.Progress)
			}
			if err := flags.complete(cmd, &config); err != nil {
				return usageError(err)
			}
			if err := config.Check(); err != nil {
				return usageError(err)
			}
			result, err := bench.RunPath(cmd.Context(), config)
			if err != nil {
				return err
			}
			return flags.report(cmd.OutOrStdout(), result)
		}).runE,
	}
	f := cmd.Flags()
	f.StringVar(&config.Backend, "backend", "vxlan", "vxlan or host-gw")
	f.StringVar(&config.Family, "family", "ipv4", "ipv4 or ipv6")
	f.StringSliceVar(&config.Paths, "paths", nil, "which paths (default: bare, plain, fast, and flannel with --flanneld)")
	f.StringSliceVar(&config.Figures, "figures", nil, "what is measured, of "+strings.Join(bench.PathFigures(), ", ")+" (default: all)")
	f.IntVar(&config.Rules, "rules", 0, "how many rules of another program forwarded packets pass")
	f.StringVar(&flags.offloads, "offloads", "on", "on: packets of 64 KB cross the wire, as veth links take them; off: the kernel cuts them into segments before")
	f.IntVar(&config.Rounds, "rounds", 9, "how often each figure is measured on each path")
	f.DurationVar(&config.For, "for", time.Second, "how long each time")
	f.IntVar(&config.CPU, "core", -1, "which core both ends have (default: the last)")
	f.StringVar(&config.Flanneld, "flanneld", "", "path of flanneld")
	f.StringVar(&flags.tulled, "tulled", "", "path of tulled (default: beside this program)")
	f.BoolVar(&flags.server, "server", false, "be the far end of --to, until stopped")
	f.StringArrayVar(&flags.to, "to", nil, "measure to a server, `NAME=ADDRESS[@NAMESPACE]`: the path's name, the server's address, and the network namespace to measure from; repeatable")
	f.Uint16Var(&flags.port, "port", defaultPathPort, "of the server, which takes traffic on the next one, TCP and UDP")
	f.StringVar(&flags.jsonFile, "json", "", "write JSON, with all rounds, into a `file`")
	f.StringVar(&flags.plotFile, "svg", "", "draw the costs into an SVG `file`")
	return cmd
}

// complete makes the measurement of the flags.
func (f *pathFlags) complete(cmd *cobra.Command, config *bench.PathConfig) error {
	switch f.offloads {
	case "on", "off":
		config.Offloads = f.offloads == "on"
	default:
		return fmt.Errorf("--offloads is %q, must be on or off", f.offloads)
	}
	var err error
	if config.Tulle, err = os.Executable(); err != nil {
		return err
	}
	for _, text := range f.to {
		target, err := pathTarget(text, f.port)
		if err != nil {
			return err
		}
		config.Targets = append(config.Targets, target)
	}
	if len(config.Targets) > 0 {
		for _, lab := range []string{"backend", "family", "paths", "rules", "offloads", "core", "flanneld", "tulled"} {
			if cmd.Flags().Changed(lab) {
				return fmt.Errorf("--%s is for a lab, and --to for real hosts: leave one out", lab)
			}
		}
		config.Backend, config.Family = "", ""
		return nil
	}
	if config.Paths == nil {
		config.Paths = []string{bench.Bare, bench.Plain, bench.Fast}
		if config.Flanneld != "" {
			config.Paths = append(config.Paths, bench.Flannel)
		}
	}
	if config.Flanneld != "" {
		if config.Flanneld, err = filepath.Abs(config.Flanneld); err != nil {
			return err
		}
	}
	var programs lab.Config
	if err := (&labFlags{tulled: f.tulled}).setPrograms(&programs); err != nil {
		return err
	}
	config.Tulled = programs.Tulled
	return nil
}

func pathTarget(text string, port uint16) (t bench.PathTarget, err error) {
	name, rest, named := strings.Cut(text, "=")
	address, namespace, _ := strings.Cut(rest, "@")
	addr, err := netip.ParseAddr(address)
	if err != nil || !named || name == "" || addr.Zone() != "" {
		return t, fmt.Errorf("--to is %q, must be NAME=ADDRESS, as in fast=10.1.7.2, and may end in @NAMESPACE, a path such as /run/netns/c1", text)
	}
	return bench.PathTarget{Path: name, Addr: netip.AddrPortFrom(addr, port), Namespace: namespace}, nil
}

// report writes what was found to files and for people.
func (f *pathFlags) report(w io.Writer, result bench.Path) error {
	report, err := bench.NewReport(os.Args[1:], version, bench.Report{Path: []bench.Path{result}})
	if err != nil {
		return err
	}
	if f.jsonFile != "" {
		var text bytes.Buffer
		if err := printJSON(&text, report); err != nil {
			return err
		}
		if err := os.WriteFile(f.jsonFile, text.Bytes(), 0o644); err != nil {
			return err
		}
	}
	if f.plotFile != "" {
		var svg bytes.Buffer
		if err := bench.WritePathPlot(&svg, result); err != nil {
			return err
		}
		if err := os.WriteFile(f.plotFile, svg.Bytes(), 0o644); err != nil {
			return err
		}
	}
	if err := printPath(w, result); err != nil {
		return err
	}
	return printMissed(w, report)
}

// printPath has a block of rows for each figure.
func printPath(w io.Writer, p bench.Path) error {
	t := newTable(w, "FIGURE", "PATH", "CPU", "LEAST", "MOST", "RATE", "OF BARE", "OF PLAIN", "OF FLANNEL", "GAP CLOSED")
	for _, r := range p.Results {
		for _, path := range bench.PathOrder(p.Paths) {
			c := r.Paths[path]
			closed := "-"
			if c.Closed != nil {
				closed = fmt.Sprintf("%.0f %%", *c.Closed*100)
			}
			t.row(r.Name, path, cost(c.CPU.Median)+" per "+r.Unit, cost(c.CPU.Least), cost(c.CPU.Most), fmt.Sprintf("%.4g/s", c.Rate.Median),
				times(c.OfBare), times(c.OfPlain), times(c.OfFlannel), closed)
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, path := range bench.PathOrder(p.Paths) {
		if part, ok := p.FastShare[path]; ok {
			if _, err := fmt.Fprintf(w, "%s: %.1f %% of the bytes went fast\n", path, part*100); err != nil {
				return err
			}
		}
	}
	_, err := fmt.Fprintf(w, "CPU: medians of %d rounds, of %s\n", p.Rounds, p.Accounting)
	return err
}

func cost(s float64) string {
	if s < 1e-3 {
		return fmt.Sprintf("%.2f µs", s*1e6)
	}
	return fmt.Sprintf("%.3f s", s)
}

func times(ratio float64) string {
	if ratio == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", ratio)
}

// newTrafficCommand is one end of what bench path measures, run by it.
func newTrafficCommand() *cobra.Command {
	var core int
	cmd := &cobra.Command{
		Use:    bench.TrafficCommand,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   action(func(*cobra.Command, []string) error { return bench.ServeTraffic(core) }).runE,
	}
	cmd.Flags().IntVar(&core, "core", -1, "the core that it has; -1: any")
	return cmd
}
