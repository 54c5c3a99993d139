package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"tulle/ip"
	"tulle/subnet"
)

func newLeasesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "leases",
		Short: "List, reserve and release subnets",
	}
	var store storeFlags
	store.define(cmd)
	cmd.AddCommand(newLeasesListCommand(&store), newLeasesReserveCommand(&store), newLeasesReleaseCommand(&store))
	return cmd
}

// leaseRow is a lease as the list shows it.
type leaseRow struct {
	Subnet   string   `json:"subnet"`
	Node     string   `json:"node,omitempty"`
	Public   []string `json:"public"`
	Backend  string   `json:"backend,omitempty"`
	Reserved bool     `json:"reserved"`
	Refused  string   `json:"refused,omitempty"` // why hosts do not use it
}

func newLeasesListCommand(store *storeFlags) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the leases of all hosts",
		Args:  cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			return store.do(func(s subnet.Operator) error {
				set, err := s.Snapshot(cmd.Context())
				if err != nil {
					return err
				}
				return printLeases(cmd, set, asJSON)
			})
		}).runE,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// leasesJSON is what the list is as JSON.
type leasesJSON struct {
	Leases       []leaseRow       `json:"leases"`
	ProblemCount int              `json:"problemCount"`
	Problems     []subnet.Problem `json:"problems"`
}

func leasesOf(set subnet.Set) leasesJSON {
	refused := map[string][]string{}
	if set.Network != nil {
		_, problems := subnet.Judge(*set.Network, set.Leases, subnet.Self{})
		for _, p := range problems {
			refused[p.Key] = append(refused[p.Key], p.Reason)
		}
	}
	rows := make([]leaseRow, 0, len(set.Leases))
	for _, l := range set.Leases {
		key := subnet.KeyOf(l.Subnets)
		rows = append(rows, leaseRow{
			Subnet: key, Node: l.Attrs.Node, Public: publics(l.Attrs.Public),
			Backend: l.Attrs.BackendType, Reserved: l.Reserved, Refused: strings.Join(refused[key], "; "),
		})
	}
	// An empty list, not null, when there is no problem.
	return leasesJSON{Leases: rows, Problems: append([]subnet.Problem{}, set.Problems...), ProblemCount: len(set.Problems) + set.Unlisted}
}

func printLeases(cmd *cobra.Command, set subnet.Set, asJSON bool) error {
	all := leasesOf(set)
	if asJSON {
		return printJSON(cmd.OutOrStdout(), all)
	}
	t := newTable(cmd.OutOrStdout(), "SUBNET", "NODE", "PUBLIC", "BACKEND", "STATE")
	for _, r := range all.Leases {
		state := "leased"
		if r.Reserved {
			state = "reserved"
		}
		if r.Refused != "" {
			state = "refused: " + r.Refused
		}
		t.row(r.Subnet, cmp.Or(r.Node, "-"), cmp.Or(strings.Join(r.Public, ","), "-"), cmp.Or(r.Backend, "-"), state)
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, p := range set.Problems {
		fmt.Fprintf(cmd.OutOrStdout(), "left out: %s: %s\n", shownName(p.Key), shown(p.Reason))
	}
	if set.Unlisted > 0 {
		fmt.Fprintf(cmd.OutOrStdout(), "left out: %d more\n", set.Unlisted)
	}
	return nil
}

func newLeasesReleaseCommand(store *storeFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "release SUBNET[,SUBNET6]",
		Short: "End a lease or reservation",
		Long: `End a lease or reservation, so that its subnet is free. A host that is live takes it again at once:
stop its tulled first.`,
		Example: `  tulle leases release 10.5.34.0/24`,
		Args:    cobra.ExactArgs(1),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			subnets, err := parseSubnets(args[0])
			if err != nil {
				return usageError(err)
			}
			return store.do(func(s subnet.Operator) error {
				if err := s.Release(cmd.Context(), subnets); err != nil {
					return err
				}
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "released %s\n", subnet.KeyOf(subnets))
				return err
			})
		}).runE,
	}
}

// parseSubnets reads one prefix per family, or a key as the list shows it.
func parseSubnets(arg string) (subnet.Subnets, error) {
	if s, err := subnet.ParseKey(arg); err == nil {
		return s, nil
	}
	var s subnet.Subnets
	for text := range strings.SplitSeq(arg, ",") {
		p, err := netip.ParsePrefix(text)
		if err != nil || p != p.Masked() {
			return s, fmt.Errorf("subnet %q: want ADDRESS/LENGTH with no bits set after the length, such as 10.5.34.0/24", text)
		}
		if f := ip.FamilyOf(p.Addr()); s.Of(f).IsValid() {
			return s, fmt.Errorf("subnets %q: want one of each family", arg)
		}
		s.Set(ip.FamilyOf(p.Addr()), p)
	}
	return s, nil
}

func publics(d ip.Dual[netip.Addr]) []string {
	out := []string{}
	for _, f := range ip.Families() {
		if a := d.Of(f); a.IsValid() && !a.IsUnspecified() {
			out = append(out, a.String())
		}
	}
	return out
}
