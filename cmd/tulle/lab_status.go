//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"strconv"

	"github.com/spf13/cobra"

	"tulle/internal/lab"
)

func newLabStatusCommand() *cobra.Command {
	var name string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the hosts of a running network and who reaches whom",
		Long: `Show the hosts of a running network and who reaches whom. The exit code is 1
if a host is not ready or a container does not reach another.`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			l, err := openLab(name)
			if err != nil {
				return err
			}
			report, err := newLabReport(cmd.Context(), l)
			if err := errors.Join(err, l.Release()); err != nil {
				return err
			}
			if err := writeReport(cmd.OutOrStdout(), report, asJSON); err != nil {
				return err
			}
			if !report.Pass {
				return &commandError{code: exitFailed}
			}
			return nil
		}).runE,
	}
	registerLabName(cmd, &name)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func openLab(name string) (*lab.Lab, error) {
	l, err := lab.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no lab %s: `tulle lab up` makes one", name)
	}
	return l, err
}

// labReport is what "lab run" and "lab status" print.
type labReport struct {
	// Pass is whether all hosts are ready and all pairs reach each other.
	Pass  bool       `json:"pass"`
	Hosts []labHost  `json:"hosts"`
	Pairs []lab.Pair `json:"pairs"`
	// FastPath is how the fast path stands that packets between hosts may take.
	FastPath labFastPath `json:"fastPath"`
	tables   lab.Matrix
}

type labHost struct {
	Name      string         `json:"name"`
	Segment   int            `json:"segment"`
	Addresses []netip.Addr   `json:"addresses"`
	Subnets   []netip.Prefix `json:"subnets"`
	MTU       int            `json:"mtu"`
	Ready     bool           `json:"ready"`
	// Reason says why the host is not ready.
	Reason string `json:"reason,omitempty"`
}

func newLabReport(ctx context.Context, l *lab.Lab) (labReport, error) {
	before := fastPathStates(ctx, l)
	matrix, err := l.Matrix(ctx)
	if err != nil {
		return labReport{}, err
	}
	report := labReport{Pass: matrix.Pass, Pairs: matrix.Pairs, FastPath: newLabFastPath(l, before, fastPathStates(ctx, l)), tables: matrix}
	for _, host := range l.Hosts {
		row := labHost{Name: host.Name, Segment: host.Segment}
		row.Ready, row.Reason = host.Ready(ctx)
		if row.Ready {
			row.Reason = ""
		}
		// A host that is not ready may have no subnet yet.
		env, err := host.ReadSubnetFile()
		if row.Ready && err != nil {
			return labReport{}, err
		}
		row.MTU = env.MTU
		for _, family := range l.Config.Families {
			row.Addresses = append(row.Addresses, host.Addr.Of(family))
			row.Subnets = append(row.Subnets, env.Subnets.Of(family))
		}
		report.Pass = report.Pass && row.Ready
		report.Hosts = append(report.Hosts, row)
	}
	return report, nil
}

func writeReport(w io.Writer, report labReport, asJSON bool) error {
	if asJSON {
		return printJSON(w, report)
	}
	fmt.Fprintln(w)
	hosts := newTable(w, "HOST", "SEGMENT", "ADDRESSES", "SUBNETS", "MTU", "STATE")
	for _, host := range report.Hosts {
		state := "ready"
		if !host.Ready {
			state = host.Reason
		}
		hosts.row(host.Name, strconv.Itoa(host.Segment), list(host.Addresses), list(host.Subnets), strconv.Itoa(host.MTU), state)
	}
	if err := hosts.flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nfast path: %s\n\n", report.FastPath)
	return report.tables.WriteTable(w)
}
