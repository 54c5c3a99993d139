package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tulle/internal/agent"
	"tulle/internal/api"
	"tulle/internal/settings"
	"tulle/subnet"
)

func newPeersCommand() *cobra.Command {
	var runDir string
	var asJSON, allHosts bool
	var store storeFlags
	cmd := &cobra.Command{
		Use:   "peers",
		Short: "List the peers of this host, and whether packets arrive there",
		Long: `List the peers of this host, and whether packets arrive there, where tulled runs with --probe=on. STATE is that of the way that stands worst, over the
fabric or over the underlay, with its SIZE, the bytes of the largest packet that arrives, and since when that is. RTT is of the way that
packets of containers take, LOSS of all questions since the peer is known. --json has each way in each family by itself.

With --all-hosts, what all hosts say in the store instead: from which to which of them packets have not arrived, or only small ones, for some time. It
needs no tulled here, only the settings of the store.`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			if allHosts {
				return store.do(func(s subnet.Operator) error {
					all, err := readComplaints(cmd.Context(), s)
					if err != nil {
						return err
					}
					if asJSON {
						return printJSON(cmd.OutOrStdout(), all)
					}
					return printComplaints(cmd.OutOrStdout(), all)
				})
			}
			all, err := api.NewClient(runDir).Peers(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), all)
			}
			return printPeerReports(cmd.OutOrStdout(), all)
		}).runE,
	}
	settings.RunDir().Define(cmd.Flags(), &runDir)
	store.define(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&allHosts, "all-hosts", false, "list what all hosts say in the store of peers that packets do not arrive at")
	return cmd
}

func printPeerReports(w io.Writer, all agent.PeerReports) error {
	t := newTable(w, "NODE", "SUBNET", "VIA", "STATE", "RTT p50/p99", "LOSS", "SIZE", "SINCE")
	for _, p := range all.Peers {
		state, rtt, loss, size, since := "not asked", "-", "-", "-", "-"
		if len(p.Verdicts) > 0 {
			state, size, since = worstOf(p.Verdicts)
			rtt, loss = rttOf(p.Verdicts), lossOf(p.Verdicts)
		}
		t.row(cmp.Or(p.Node, "-"), list(p.Subnets), p.Via, state, rtt, loss, size, since)
	}
	if err := t.flush(); err != nil || all.Asked {
		return err
	}
	_, err := fmt.Fprintln(w, "\ntulled asks no peers whether packets arrive: start it with --probe=on, on all hosts")
	return err
}

// badness orders the states of ways, the worst last.
func badness(v agent.Verdict) int {
	return slices.Index([]string{"well", "unknown", "narrow", "unreachable"}, v.State)
}

// worstOf tells of the way that stands worst; of several, one over the fabric, and the one that takes the least.
func worstOf(vs []agent.Verdict) (state, size, since string) {
	worst := slices.MaxFunc(vs, func(a, b agent.Verdict) int {
		return cmp.Or(cmp.Compare(badness(a), badness(b)), strings.Compare(b.Way, a.Way), cmp.Compare(b.Size, a.Size))
	})
	state, size, since = worst.State, "-", "-"
	if worst.State == "narrow" || worst.State == "unreachable" {
		same := func(v agent.Verdict) bool { return v.State == worst.State }
		if slices.ContainsFunc(vs, func(v agent.Verdict) bool { return !same(v) }) {
			state += " (" + worst.Way + ")"
		}
	}
	switch {
	case worst.State == "unreachable" || worst.Size == 0:
	case worst.Size < worst.Full:
		size = fmt.Sprintf("%d of %d", worst.Size, worst.Full)
	default:
		size = strconv.Itoa(worst.Size)
	}
	if !worst.Since.IsZero() {
		since = worst.Since.UTC().Format(time.RFC3339)
	}
	return state, size, since
}

// rttOf is of the way that packets of containers take: the fabric, where that is asked.
func rttOf(vs []agent.Verdict) string {
	used := vs[0]
	if i := slices.IndexFunc(vs, func(v agent.Verdict) bool { return v.Way == "fabric" }); i >= 0 {
		used = vs[i]
	}
	if used.P50 == 0 {
		return "-"
	}
	return brief(used.P50) + "/" + brief(used.P99)
}

// brief is a duration with three digits or fewer.
func brief(d time.Duration) string {
	for unit := time.Second; unit > 1; unit /= 10 {
		if d >= 10*unit {
			return d.Round(unit / 10).String()
		}
	}
	return d.String()
}

func lossOf(vs []agent.Verdict) string {
	var asked, lost uint64
	for _, v := range vs {
		asked, lost = asked+v.Asked, lost+v.Lost
	}
	if asked == 0 {
		return "-"
	}
	return strconv.FormatFloat(100*float64(lost)/float64(asked), 'f', 1, 64) + "%"
}

func newPingCommand() *cobra.Command {
	var runDir string
	var count int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ping PEER",
		Short: "Ask a peer now whether packets arrive there",
		Long: `Ask a peer now whether packets arrive there, small ones and the largest, over the underlay and over the fabric, in each family. PEER is a node id, a lease or its
subnet, an address of the host, or one of a container there. Both hosts' tulled run with --probe=on. The exit code is 1 unless all arrive.`,
		Args: cobra.ExactArgs(1),
		RunE: action(func(cmd *cobra.Command, args []string) error {
			if count < 1 || count > api.MaxPings {
				return usageError(fmt.Errorf("--count is %d: want 1 to %d", count, api.MaxPings))
			}
			answers, err := api.NewClient(runDir).Ping(cmd.Context(), args[0], count)
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), answers)
			} else {
				err = printPing(cmd.OutOrStdout(), answers)
			}
			if err == nil && slices.ContainsFunc(answers.Answers, falls) {
				err = &commandError{code: exitFailed}
			}
			return err
		}).runE,
	}
	settings.RunDir().Define(cmd.Flags(), &runDir)
	cmd.Flags().IntVar(&count, "count", 5, "how often each way")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// falls reports whether something did not arrive.
func falls(a agent.PingAnswer) bool {
	return len(a.RTTs) < a.Asked || a.Size < a.Full || a.Reason != ""
}

func printPing(w io.Writer, p agent.Pinged) error {
	fmt.Fprintf(w, "%s, %s\n", shownName(cmp.Or(p.Node, "a host without node id")), shownName(p.Lease))
	t := newTable(w, "WAY", "ADDRESS", "ANSWERED", "RTT min/p50/max", "SIZE", "")
	for _, a := range p.Answers {
		rtt := "-"
		if sorted := slices.Sorted(slices.Values(a.RTTs)); len(sorted) > 0 {
			rtt = brief(sorted[0]) + "/" + brief(sorted[len(sorted)/2]) + "/" + brief(sorted[len(sorted)-1])
		}
		t.row(a.Family+" "+a.Way, a.Address.Addr().String(), fmt.Sprintf("%d of %d", len(a.RTTs), a.Asked), rtt, fmt.Sprintf("%d of %d", a.Size, a.Full), a.Reason)
	}
	return t.flush()
}

// probesLine says in one line how the peers stand that are asked.
func probesLine(st agent.ProbeStatus) string {
	text := "probes   "
	for _, way := range []struct {
		name string
		of   agent.ProbeCounts
	}{{"over the fabric", st.Fabric}, {"over the underlay", st.Underlay}} {
		if way.of.Total() == 0 {
			continue
		}
		if text != "probes   " {
			text += "; "
		}
		text += fmt.Sprintf("%s %d of %d well", way.name, way.of.Well, way.of.Total())
		for _, s := range []struct {
			n    int
			what string
		}{{way.of.Narrow, "narrow"}, {way.of.Unreachable, "unreachable"}, {way.of.Unknown, "not known yet"}} {
			if s.n > 0 {
				text += fmt.Sprintf(", %d %s", s.n, s.what)
			}
		}
	}
	switch {
	case text == "probes   " && st.Blocked == "":
		text += "no peer says where it is asked"
	case text == "probes   ":
		text += shown(st.Blocked)
	case st.Blocked != "":
		text += "; " + shown(st.Blocked)
	}
	return text
}
