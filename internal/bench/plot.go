//go:build linux

package bench

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// series is one line of a plot.
type series struct {
	name, colour string
	value        func(Control) float64 // seconds
}

func plotted() []series {
	return []series{
		{"cold start", "#1b6ca8", func(c Control) float64 { return c.Cold.Median }},
		{"warm restart", "#2a9d5c", func(c Control) float64 { return c.Warm.Median }},
		{"kernel floor", "#888888", func(c Control) float64 { return c.Floor.Median }},
		{"lease to route, median", "#d1495b", func(c Control) float64 { return c.Change.Median }},
	}
}

const (
	plotWidth, plotHeight = 720, 440
	plotLeft, plotRight   = 70, 170 // margins, px; the names of the lines are on the right
	plotTop, plotBottom   = 30, 50
)

// axis maps the logarithm of a value to pixels.
type axis struct{ low, high, from, to float64 }

func (a axis) at(v float64) float64 {
	return a.from + (math.Log10(v)-a.low)/(a.high-a.low)*(a.to-a.from)
}

// WritePlot draws cost against the number of peers, both on logarithmic scales: what is linear has the slope of the dotted line.
func WritePlot(w io.Writer, results []Control) error {
	if len(results) < 2 {
		return fmt.Errorf("a plot needs two numbers of peers or more, there are %d", len(results))
	}
	x, y := axes(results)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", plotWidth, plotHeight)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", plotWidth, plotHeight)
	grid(&b, x, y, results)
	for _, s := range plotted() {
		line(&b, x, y, s, results)
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func axes(results []Control) (x, y axis) {
	x = axis{math.Inf(1), math.Inf(-1), plotLeft, plotWidth - plotRight}
	y = axis{math.Inf(1), math.Inf(-1), plotHeight - plotBottom, plotTop}
	for _, c := range results {
		widen(&x, float64(c.Peers))
		for _, s := range plotted() {
			widen(&y, s.value(c))
		}
	}
	y.low, y.high = math.Floor(y.low), math.Ceil(y.high)
	return x, y
}

func widen(a *axis, v float64) {
	if v > 0 {
		a.low, a.high = min(a.low, math.Log10(v)), max(a.high, math.Log10(v))
	}
}

func grid(b *strings.Builder, x, y axis, results []Control) {
	for e := y.low; e <= y.high; e++ {
		v := math.Pow(10, e)
		fmt.Fprintf(b, `<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%g s</text>`+"\n",
			plotLeft, y.at(v), plotWidth-plotRight, plotLeft-6, y.at(v)+4, v)
	}
	for _, c := range results {
		fmt.Fprintf(b, `<path d="M%.1f %dV%d" stroke="#eee"/><text x="%.1f" y="%d" text-anchor="middle">%d</text>`+"\n",
			x.at(float64(c.Peers)), plotTop, plotHeight-plotBottom, x.at(float64(c.Peers)), plotHeight-plotBottom+18, c.Peers)
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="middle">peers</text>`+"\n", (plotLeft+plotWidth-plotRight)/2, plotHeight-10)
	first, last := results[0], results[len(results)-1]
	from := first.Cold.Median
	to := from * float64(last.Peers) / float64(first.Peers)
	fmt.Fprintf(b, `<path d="M%.1f %.1fL%.1f %.1f" stroke="#bbb" stroke-dasharray="2 4"/>`+"\n",
		x.at(float64(first.Peers)), y.at(from), x.at(float64(last.Peers)), y.at(to))
}

func line(b *strings.Builder, x, y axis, s series, results []Control) {
	var points []string
	for _, c := range results {
		if v := s.value(c); v > 0 {
			points = append(points, fmt.Sprintf("%.1f %.1f", x.at(float64(c.Peers)), y.at(v)))
		}
	}
	if len(points) == 0 {
		return
	}
	fmt.Fprintf(b, `<path d="M%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(points, "L"), s.colour)
	for _, p := range points {
		px, py, _ := strings.Cut(p, " ")
		fmt.Fprintf(b, `<circle cx="%s" cy="%s" r="3" fill="%s"/>`+"\n", px, py, s.colour)
	}
	_, end, _ := strings.Cut(points[len(points)-1], " ")
	fmt.Fprintf(b, `<text x="%d" y="%s" dy="4" fill="%s">%s</text>`+"\n", plotWidth-plotRight+10, end, s.colour, s.name)
}
