package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tulle/internal/agent"
	"tulle/internal/api"
	"tulle/internal/fabric"
	"tulle/internal/settings"
	"tulle/internal/trouble"
)

func newStatusCommand() *cobra.Command {
	var runDir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how tulled on this host stands",
		Long: `Show how tulled on this host stands: its lease, its peers and how they are reached, and whatever it left out,
with the reason. The exit code is 1 if it is not ready.`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			st, err := api.NewClient(runDir).Status(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), st)
			} else {
				err = printStatus(cmd.OutOrStdout(), st)
			}
			if err == nil && !st.Ready {
				err = &commandError{code: exitFailed}
			}
			return err
		}).runE,
	}
	settings.RunDir().Define(cmd.Flags(), &runDir)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printStatus(w io.Writer, st agent.Status) error {
	state := "ready"
	if st.Degraded != "" {
		state += ", degraded: " + st.Degraded
	}
	if !st.Ready {
		state = "not ready: " + st.Reason
	}
	fmt.Fprintf(w, "%s is %s\n", shownName(st.Node), shown(state))
	for _, n := range st.Networks {
		printNetwork(w, n)
		printFullOnly(w, n, st.Time)
	}
	if st.Uplink != nil {
		narrow := ""
		if u := st.Uplink; u.Route.IsValid() {
			narrow = fmt.Sprintf("MTU %d of its route to %s, ", u.MTU, u.Route)
		}
		fmt.Fprintf(w, "uplink   %s, %s%s, peers send to %s\n", shownName(st.Uplink.Link), narrow, list(st.Uplink.Addr), list(st.Uplink.Public))
	}
	if st.FastPath != nil {
		fmt.Fprintln(w, fastPathLine(*st.FastPath))
	}
	if st.Probes != nil {
		fmt.Fprintln(w, probesLine(*st.Probes))
	}
	for _, d := range []struct {
		packets uint64
		what    string
	}{
		{st.Strangers, "from strangers: no peer has the address that they came from"},
		{st.Forged, "from peers: the source inside is not in the sender's subnet"},
		{st.Injected, "made by containers for tunnels of hosts"},
		{st.Spoofed, "of containers: their source is not in this host's subnet"},
	} {
		if d.packets > 0 {
			fmt.Fprintf(w, "dropped  %d packets %s\n", d.packets, d.what)
		}
	}
	for _, t := range st.Troubles.All {
		if t.Severity == trouble.Error && strings.Contains(st.Reason, t.Text) {
			continue // the first line says so
		}
		subject := ""
		if t.Subject != "" && !strings.Contains(t.Text, t.Subject) {
			subject = shownName(t.Subject) + ": "
		}
		fmt.Fprintf(w, "%-8s %s  %s%s\n", t.Severity, shownName(string(t.Code)), subject, shown(t.Text))
	}
	for _, k := range trouble.Kinds() {
		if more := st.Troubles.Unlisted(k.Code); more > 0 {
			fmt.Fprintf(w, "%-8s %s  and %d more\n", k.Severity, k.Code, more)
		}
	}
	for _, n := range st.Networks {
		if err := printPeers(w, n.Peers); err != nil {
			return err
		}
	}
	return nil
}

// printNetwork tells of one network, by its name if it has one.
func printNetwork(w io.Writer, n fabric.Status) {
	if n.Network != nil {
		name := ""
		if n.Name != "" {
			name = shownName(n.Name) + ": "
		}
		fmt.Fprintf(w, "network  %s%s over %s, configuration at revision %d\n", name, list(n.Network.Prefixes), shownName(n.Network.Backend), n.Network.Revision)
	}
	if n.Lease != nil {
		kind := "leased"
		if n.Lease.Reserved {
			kind = "reserved"
		}
		fmt.Fprintf(w, "subnet   %s, %s, MTU %d for containers\n", list(n.Lease.Subnets), kind, n.MTU)
	}
}

// fullOnlyLasting is how long every change takes a full pass until that is worth a line: after a start or a change there is one or the other.
const fullOnlyLasting = time.Minute

// printFullOnly tells why a network of many peers costs more than it would have to, while that is all that is wrong.
func printFullOnly(w io.Writer, n fabric.Status, now time.Time) {
	if o := n.FullOnly; n.Ready && o != nil && now.Sub(o.Since) >= fullOnlyLasting {
		fmt.Fprintf(w, "passes   every change takes a full one, since %s: %s\n", o.Since.UTC().Format(time.RFC3339), shown(o.Text))
	}
}

func printPeers(w io.Writer, peers []fabric.PeerStatus) error {
	if len(peers) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := newTable(w, "PEER", "SUBNET", "PUBLIC", "VIA")
	for _, p := range peers {
		t.row(cmp.Or(p.Node, "-"), list(p.Subnets), list(p.Public), p.Via)
	}
	return t.flush()
}

// list prints values with commas between them.
func list[T fmt.Stringer](values []T) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = v.String()
	}
	return strings.Join(texts, ",")
}
