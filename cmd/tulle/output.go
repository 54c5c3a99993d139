package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"tulle/internal/printable"
)

// table prints rows in aligned columns.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer, header ...string) table {
	t := table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	t.row(header...)
	return t
}

// row prints text from elsewhere as shown does. All but the last cell are short, so that one row cannot widen the others.
func (t table) row(cells ...string) {
	for i, c := range cells {
		if i < len(cells)-1 {
			c = printable.Text(c, printable.Cell)
		}
		cells[i] = shown(c)
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

func (t table) flush() error { return t.w.Flush() }

// shown makes a message of other hosts and programs, such as joined errors, fit for a line of a terminal: its lines are told apart by
// semicolons.
func shown(message string) string { return shownName(strings.ReplaceAll(message, "\n", "; ")) }

// shownName makes a name or a key from elsewhere fit for a line. Any character in it counts: two that differ are shown apart.
func shownName(name string) string { return printable.Text(name, printable.Line) }

// printJSON prints v for programs and for people.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
