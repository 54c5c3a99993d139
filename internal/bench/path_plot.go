//go:build linux

package bench

import (
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// PathOrder puts the paths in the order in which people compare them: the cheapest and the dearest at the ends.
func PathOrder(paths []string) []string {
	order := []string{Bare, Fast, Never, Plain, Off, Flannel}
	place := func(path string) int {
		if i := slices.Index(order, path); i >= 0 {
			return i
		}
		return len(order)
	}
	return slices.SortedStableFunc(slices.Values(paths), func(a, b string) int { return place(a) - place(b) })
}

const (
	barWidth, barGap, groupGap = 18, 3, 26 // px
	barsHeight                 = 300
	barsTop, barsBottom        = 60, 40
	barsLeft                   = 50
)

// WritePathPlot draws what each figure costs on each path, as a part of what it costs on the dearest of flannel, plain and the last one.
func WritePathPlot(w io.Writer, p Path) error {
	paths := PathOrder(p.Paths)
	if len(paths) == 0 || len(p.Results) == 0 {
		return errors.New("a plot needs something that was measured")
	}
	base := paths[len(paths)-1]
	for _, path := range []string{Flannel, Plain} {
		if slices.Contains(paths, path) {
			base = path
			break
		}
	}
	part := func(r PathResult, path string) float64 {
		if whole := r.Paths[base].CPU.Median; whole > 0 {
			return r.Paths[path].CPU.Median / whole
		}
		return 0
	}
	most := 1.0
	for _, r := range p.Results {
		for _, path := range paths {
			most = max(most, part(r, path))
		}
	}
	group := len(paths)*(barWidth+barGap) + groupGap
	width, height := max(barsLeft+len(p.Results)*group+groupGap, len(paths)*80+barsLeft), barsTop+barsHeight+barsBottom
	y := func(v float64) float64 { return barsTop + barsHeight*(1-v/most) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	title := "CPU time of both ends, " + base + " = 1"
	if p.Backend != "" {
		title += "; " + p.Backend + ", " + p.Family
	}
	fmt.Fprintf(&b, `<text x="%d" y="18">%s</text>`+"\n", barsLeft, escaped(title))
	for i, path := range paths {
		x := barsLeft + i*80
		fmt.Fprintf(&b, `<rect x="%d" y="30" width="10" height="10" fill="%s"/><text x="%d" y="39">%s</text>`+"\n", x, colourOf(path), x+14, escaped(path))
	}
	for v := 0.0; v <= most; v += 0.25 {
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%.2f</text>`+"\n", barsLeft, y(v), width-10, barsLeft-6, y(v)+4, v)
	}
	for i, r := range p.Results {
		left := barsLeft + groupGap/2 + i*group
		for j, path := range paths {
			v := part(r, path)
			x := left + j*(barWidth+barGap)
			fmt.Fprintf(&b, `<rect x="%d" y="%.1f" width="%d" height="%.1f" fill="%s"/>`+"\n", x, y(v), barWidth, y(0)-y(v), colourOf(path))
			fmt.Fprintf(&b, `<text x="%d" y="%.1f" text-anchor="middle" font-size="8">%.2f</text>`+"\n", x+barWidth/2, y(v)-3, v)
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", left+(group-groupGap)/2, height-barsBottom+18, escaped(r.Name))
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// colourOf has one for paths that people have named, too.
func colourOf(path string) string {
	colours := map[string]string{Bare: "#888888", Fast: "#1b6ca8", Never: "#7fb2d9", Plain: "#2a9d5c", Off: "#8fce9f", Flannel: "#d1495b"}
	return cmp.Or(colours[path], "#b08a3e")
}

func escaped(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a strings.Builder takes all
	return b.String()
}
