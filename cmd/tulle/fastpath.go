package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"tulle/internal/api"
	"tulle/internal/settings"
	"tulle/ip"
)

func newFastPathCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fast-path",
		Short: "Look at the fast path of this host, and switch it off for a while",
		Long: `Look at the fast path of this host, and switch it off for a while. How it stands is in tulle status.
Packets on it are seen by tcpdump at the uplink and in containers, and nowhere between: tulle fast-path off --for 5m has them seen everywhere.`,
	}
	var runDir string
	settings.RunDir().Define(cmd.PersistentFlags(), &runDir)
	cmd.AddCommand(newFastFlowsCommand(&runDir), newFastPeersCommand(&runDir), newFastFlushCommand(&runDir), newFastOffCommand(&runDir), newFastOnCommand(&runDir))
	return cmd
}

func newFastFlowsCommand(runDir *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "flows",
		Short: "List the flows that take the fast path now",
		Long: `List the flows that take the fast path now, those with the most bytes first. AGE is how long ago a packet of the flow was seen to pass
the packet filters; packets and bytes are those that went fast since the flow was first seen.`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			flows, err := api.NewClient(*runDir).Flows(cmd.Context())
			if err != nil {
				return err
			}
			slices.SortFunc(flows, compareFlows)
			if asJSON {
				return printJSON(cmd.OutOrStdout(), flows)
			}
			return printFlows(cmd.OutOrStdout(), flows)
		}).runE,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func compareFlows(a, b ip.FastFlow) int {
	return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), a.Src.Compare(b.Src), a.Dst.Compare(b.Dst), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(direction(a), direction(b)))
}

func direction(f ip.FastFlow) string {
	if f.In {
		return "in"
	}
	return "out"
}

// protocolName is the name of a transport protocol by its number (IANA, Assigned Internet Protocol Numbers).
func protocolName(n uint8) string {
	switch n {
	case 6:
		return "tcp"
	case 17:
		return "udp"
	}
	return strconv.Itoa(int(n))
}

func printFlows(w io.Writer, flows []ip.FastFlow) error {
	t := newTable(w, "WAY", "PROTOCOL", "FROM", "TO", "PEER", "LINK", "PACKETS", "BYTES", "AGE")
	for _, f := range flows {
		t.row(direction(f), protocolName(f.Protocol), f.Src.String(), f.Dst.String(), host(f.Peer), f.Link,
			strconv.FormatUint(f.Packets, 10), strconv.FormatUint(f.Bytes, 10), f.Age.Round(time.Millisecond).String())
	}
	return t.flush()
}

func host(addr netip.Addr) string {
	if !addr.IsValid() {
		return "-"
	}
	return addr.String()
}

// fastPeer is what goes fast between this host and another.
type fastPeer struct {
	Node  string     `json:"node,omitempty"`
	Peer  netip.Addr `json:"peer"` // the host
	Flows int        `json:"flows"`
	Out   traffic    `json:"out"`
	In    traffic    `json:"in"`
}

type traffic struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

func newFastPeersCommand(runDir *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "peers",
		Short: "List the peers that packets take the fast path to and from now",
		Long: `List the peers that packets take the fast path to and from now: the sums of tulle fast-path flows for each host,
those with the most bytes first.`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			peers, err := fastPeers(cmd.Context(), api.NewClient(*runDir))
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), peers)
			}
			return printFastPeers(cmd.OutOrStdout(), peers)
		}).runE,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func fastPeers(ctx context.Context, client *api.Client) ([]fastPeer, error) {
	flows, err := client.Flows(ctx)
	if err != nil {
		return nil, err
	}
	st, err := client.Status(ctx)
	if err != nil {
		return nil, err
	}
	nodes := map[netip.Addr]string{}
	for _, n := range st.Networks {
		for _, p := range n.Peers {
			for _, addr := range p.Public {
				nodes[addr] = p.Node
			}
		}
	}
	return sumFlows(flows, nodes), nil
}

// sumFlows sums flows up by the peer's host.
func sumFlows(flows []ip.FastFlow, nodes map[netip.Addr]string) []fastPeer {
	at, peers := map[netip.Addr]int{}, []fastPeer{}
	for _, f := range flows {
		i, known := at[f.Peer]
		if !known {
			i, at[f.Peer] = len(peers), len(peers)
			peers = append(peers, fastPeer{Node: nodes[f.Peer], Peer: f.Peer})
		}
		sum := &peers[i].Out
		if f.In {
			sum = &peers[i].In
		}
		peers[i].Flows++
		sum.Packets += f.Packets
		sum.Bytes += f.Bytes
	}
	slices.SortFunc(peers, func(a, b fastPeer) int {
		return cmp.Or(cmp.Compare(b.Out.Bytes+b.In.Bytes, a.Out.Bytes+a.In.Bytes), a.Peer.Compare(b.Peer))
	})
	return peers
}

func printFastPeers(w io.Writer, peers []fastPeer) error {
	t := newTable(w, "PEER", "HOST", "FLOWS", "PACKETS OUT", "BYTES OUT", "PACKETS IN", "BYTES IN")
	for _, p := range peers {
		t.row(cmp.Or(p.Node, "-"), host(p.Peer), strconv.Itoa(p.Flows), strconv.FormatUint(p.Out.Packets, 10), strconv.FormatUint(p.Out.Bytes, 10),
			strconv.FormatUint(p.In.Packets, 10), strconv.FormatUint(p.In.Bytes, 10))
	}
	return t.flush()
}

func newFastFlushCommand(runDir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "flush",
		Short: "Have the next packet of every flow pass the packet filters",
		Args:  cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			return api.NewClient(*runDir).FlushFastPath(cmd.Context())
		}).runE,
	}
}

func newFastOffCommand(runDir *string) *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "off",
		Short: "Switch the fast path off for a while",
		Long: `Switch the fast path off for a while: all packets pass bridge, IP stack and packet filters, where tcpdump and counters see each of them. tulle fast-path on
ends that before its time, and so does a restart of tulled. To have none for good, start tulled with --fast-path=off.`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			if wait <= 0 || wait > api.MaxPause {
				return usageError(fmt.Errorf("--for is %v: want more than 0, and %v at most: for longer, start tulled with --fast-path=off", wait, api.MaxPause))
			}
			if err := api.NewClient(*runDir).PauseFastPath(cmd.Context(), wait); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "all packets take the plain path for %v\n", wait)
			return err
		}).runE,
	}
	cmd.Flags().DurationVar(&wait, "for", 5*time.Minute, "for how long")
	return cmd
}

func newFastOnCommand(runDir *string) *cobra.Command {
	return &cobra.Command{
		Use:   "on",
		Short: "End what tulle fast-path off has begun",
		Args:  cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			return api.NewClient(*runDir).PauseFastPath(cmd.Context(), 0)
		}).runE,
	}
}
