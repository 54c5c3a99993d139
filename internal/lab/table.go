//go:build linux

package lab

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// WriteTable prints the matrix for people: for every family a table of round
// trips, rows from and columns to, and one of paths between hosts; then the
// reason of every failure.
func (m Matrix) WriteTable(w io.Writer) error {
	for _, family := range m.families() {
		if err := m.writeFamily(w, family); err != nil {
			return err
		}
	}
	for _, pair := range m.Pairs {
		if !pair.OK {
			if _, err := fmt.Fprintf(w, "%s: %s does not reach %s (path %s): %s\n", pair.Family, pair.From, pair.To, pair.Path, pair.Reason); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m Matrix) families() []string {
	var families []string
	for _, pair := range m.Pairs {
		if !slices.Contains(families, pair.Family) {
			families = append(families, pair.Family)
		}
	}
	return families
}

func (m Matrix) writeFamily(w io.Writer, family string) error {
	var names []string
	cells := make(map[[2]string]string)
	hosts := make(map[[2]string]string)
	for _, pair := range m.Pairs {
		if pair.Family != family {
			continue
		}
		if !slices.Contains(names, pair.From) {
			names = append(names, pair.From)
		}
		cell := "FAIL"
		if pair.OK {
			cell = fmt.Sprintf("%.2f", pair.RTTMillis)
		}
		cells[[2]string{pair.From, pair.To}] = cell
		hosts[[2]string{hostOf(pair.From), hostOf(pair.To)}] = string(pair.Path)
	}
	var hostNames []string
	for _, name := range names {
		if !slices.Contains(hostNames, hostOf(name)) {
			hostNames = append(hostNames, hostOf(name))
		}
	}
	if err := writeSquare(w, family+" round trip, ms", names, cells); err != nil {
		return err
	}
	if len(hostNames) < 2 {
		return nil
	}
	return writeSquare(w, family+" path", hostNames, hosts)
}

func hostOf(container string) string {
	host, _, _ := strings.Cut(container, "/")
	return host
}

func writeSquare(w io.Writer, title string, names []string, cells map[[2]string]string) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "%s\t%s\t\n", title, strings.Join(names, "\t"))
	for _, from := range names {
		fmt.Fprintf(table, "%s\t", from)
		for _, to := range names {
			cell, ok := cells[[2]string{from, to}]
			if !ok {
				cell = "-"
			}
			fmt.Fprintf(table, "%s\t", cell)
		}
		fmt.Fprintln(table)
	}
	fmt.Fprintln(table)
	return table.Flush()
}
