//go:build linux

package bench

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/ip"
)

func samplesOf(costs ...float64) (of []sample) {
	for _, c := range costs {
		of = append(of, sample{cost: c, rate: 1 / max(c, 1e-9)})
	}
	return of
}

// Each round counts as a pair, so that one in which the machine was busy spoils no ratio.
func TestPathResult(t *testing.T) {
	k := pathKind{name: "tcp-rr", unit: "round trip"}
	r := pathResult(k, map[string][]sample{
		Bare: samplesOf(2, 20, 2), Fast: samplesOf(3, 30, 2.5), Plain: samplesOf(6, 60, 6), Flannel: samplesOf(6, 60, 4),
	})
	fast := r.Paths[Fast]
	for name, got := range map[string][2]float64{
		"cost": {fast.CPU.Median, 3}, "rate": {fast.Rate.Median, 1. / 3}, "of bare": {fast.OfBare, 1.5}, "of plain": {fast.OfPlain, 0.5},
		"of flannel": {fast.OfFlannel, 0.5}, "gap closed": {*fast.Closed, 0.75}, "plain's gap closed": {*r.Paths[Plain].Closed, 0},
		"flannel of flannel": {r.Paths[Flannel].OfFlannel, 1},
	} {
		if math.Abs(got[0]-got[1]) > 1e-9 {
			t.Errorf("%s is %v, want %v", name, got[0], got[1])
		}
	}
	if r.Paths[Bare].Closed != nil || r.Paths[Flannel].Closed != nil {
		t.Error("the ends of the gap close a part of it, too")
	}
	r = pathResult(k, map[string][]sample{Bare: samplesOf(2), Fast: samplesOf(3), Plain: samplesOf(6)})
	if fast := r.Paths[Fast]; fast.OfFlannel != 0 || fast.Closed == nil || *fast.Closed != 0.75 {
		t.Errorf("without flannel: %+v, want the plain path's gap", fast)
	}
	r = pathResult(k, map[string][]sample{Bare: samplesOf(0, 2), Plain: samplesOf(0, 6)})
	if plain := r.Paths[Plain]; plain.OfBare != 3 {
		t.Errorf("a round in which nothing was counted: %+v, want that it does not count", plain)
	}
	r = pathResult(k, map[string][]sample{Fast: samplesOf(3), Plain: samplesOf(6)})
	if fast := r.Paths[Fast]; fast.OfBare != 0 || fast.OfPlain != 0.5 || fast.Closed != nil {
		t.Errorf("without bare hosts: %+v, want no gap", fast)
	}
}

func TestPathMissed(t *testing.T) {
	closed := func(part, ofFlannel float64) PathCost { return PathCost{Closed: &part, OfFlannel: ofFlannel} }
	of := func(flannel, plain float64) PathCost { return PathCost{OfFlannel: flannel, OfPlain: plain} }
	path := func(backend, family string, rules int, offloads bool, results ...PathResult) Path {
		return Path{PathConfig: PathConfig{Backend: backend, Family: family, Rules: rules, Offloads: offloads, Rounds: leastRounds}, Results: results}
	}
	on := func(name, path string, c PathCost) PathResult {
		return PathResult{Name: name, Paths: map[string]PathCost{path: c}}
	}
	vxlan := path("vxlan", "ipv4", 0, true,
		on("tcp-rr", Fast, closed(0.76, 0.6)), on("udp-rr", Fast, closed(0.74, 0.6)), on("udp-64", Fast, closed(0.66, 0.6)),
		on("tcp-connect", Fast, of(1.01, 1)), on("bulk-1", Fast, of(0.66, 1)), on("bulk-4", Fast, of(0.65, 1)),
		on("tcp-rr", Never, of(1, 1.09)), on("tcp-connect", Never, of(1, 1.15)), on("udp-rr", Off, of(1, 0.97)), on("tcp-rr", Off, of(1, 1.019)))
	hasty, elsewhere := vxlan, vxlan
	hasty.Rounds = leastRounds - 1
	elsewhere.Targets = []PathTarget{{Path: Fast, Addr: netip.MustParseAddrPort("192.0.2.1:1")}}
	for _, tt := range []struct {
		name string
		path Path
		want []string
	}{
		{"vxlan", vxlan, []string{
			"vxlan, ipv4, 0 rules, packets of 64 KB: fast, udp-rr, gap closed is 0.74, want at least 0.75",
			"vxlan, ipv4, 0 rules, packets of 64 KB: fast, tcp-connect, of flannel is 1.01, want at most 1",
			"vxlan, ipv4, 0 rules, packets of 64 KB: fast, bulk-1, of flannel is 0.66, want at most 0.65",
			"vxlan, ipv4, 0 rules, packets of 64 KB: never, tcp-rr, of plain is 1.09, want at most 1.08",
			"vxlan, ipv4, 0 rules, packets of 64 KB: off, udp-rr, of plain is 0.97, want 1 ± 0.02",
		}},
		{"real segments", path("vxlan", "ipv4", 0, false, on("bulk-1", Fast, of(0.86, 1)), on("tcp-rr", Fast, closed(0.1, 1))), []string{
			"vxlan, ipv4, 0 rules, real segments: fast, bulk-1, of flannel is 0.86, want at most 0.85",
		}},
		{"rules", path("vxlan", "ipv4", 200, true, on("tcp-rr", Fast, of(0.61, 1)), on("bulk-1", Fast, of(0.9, 1)), on("tcp-rr", Never, of(1, 2))), []string{
			"vxlan, ipv4, 200 rules, packets of 64 KB: fast, tcp-rr, of flannel is 0.61, want at most 0.6",
		}},
		{"host-gw", path("host-gw", "ipv4", 0, true, on("tcp-rr", Fast, of(0, 0.84))), []string{
			"host-gw, ipv4, 0 rules, packets of 64 KB: fast, tcp-rr, of plain is 0.84, want at most 0.83",
		}},
		{"IPv6", path("vxlan", "ipv6", 0, true, on("tcp-rr", Fast, of(0, 0.80)), on("bulk-4", Fast, of(0, 0.71))), []string{
			"vxlan, ipv6, 0 rules, packets of 64 KB: fast, bulk-4, of plain is 0.71, want at most 0.7",
		}},
		{"without flannel", path("vxlan", "ipv4", 0, true, on("tcp-rr", Fast, closed(0.1, 0))), nil},
		{"too few rounds", hasty, nil},
		{"real hosts", elsewhere, nil},
	} {
		if missed := tt.path.Missed(); !slices.Equal(missed, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, missed, tt.want)
		}
	}
}

// Every figure is measured on every path; what it costs is not this test's.
func TestPathsAreMeasured(t *testing.T) {
	for _, config := range []PathConfig{
		{Backend: "vxlan", Family: "ipv4", Paths: []string{Bare, Plain, Fast, Never, Off}, Offloads: true},
		{Backend: "vxlan", Family: "ipv6", Paths: []string{Plain, Fast}, Rules: 200, Offloads: true, Figures: []string{"tcp-rr", "bulk-1"}},
		{Backend: "host-gw", Family: "ipv4", Paths: []string{Bare, Fast}, Figures: []string{"udp-rr", "bulk-4"}},
	} {
		t.Run(strings.Join([]string{config.Backend, config.Family}, " "), func(t *testing.T) {
			config.CPU, config.Rounds, config.For, config.Progress = -1, 1, 50*time.Millisecond, func(text string) { t.Log(text) }
			config.Tulled, config.Tulle = filepath.Join(labtest.Programs(), "tulled"), filepath.Join(labtest.Programs(), "tulle")
			p, err := RunPath(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Results) != len(config.kinds()) {
				t.Errorf("%d figures, want %d", len(p.Results), len(config.kinds()))
			}
			for _, r := range p.Results {
				for _, path := range config.Paths {
					if c := r.Paths[path]; c.CPU.Samples != config.Rounds || c.CPU.Least <= 0 || c.Rate.Least <= 0 {
						t.Errorf("%s on path %s: %+v", r.Name, path, c)
					}
				}
			}
			if share, measured := p.FastShare[Never]; measured && share > 0 {
				t.Errorf("%v of the bytes of path never went fast", share)
			}
			if share := p.FastShare[Fast]; share < 0.5 {
				t.Errorf("%v of the bytes of path fast went fast", share)
			}
			var plot bytes.Buffer
			if err := WritePathPlot(&plot, p); err != nil {
				t.Error(err)
			}
			if err := xml.Unmarshal(plot.Bytes(), new(struct{ XMLName xml.Name })); err != nil {
				t.Errorf("the plot is no XML: %v", err)
			}
		})
	}
}

// Between hosts that are no lab's, one serves and the other measures.
func TestPathsToServers(t *testing.T) {
	l := labtest.New(t, lab.Config{Hosts: 2})
	client, server := l.Hosts[0], l.Hosts[1]
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	served := make(chan error, 1)
	listening := make(chan string, 1)
	const port = 8474
	go func() {
		served <- server.Do(func() error { return ServePath(ctx, port, func(text string) { listening <- text }) })
	}()
	<-listening
	for _, f := range ip.Families() {
		p, err := RunPath(t.Context(), PathConfig{
			Rounds: 1, For: 200 * time.Millisecond, Tulle: filepath.Join(labtest.Programs(), "tulle"),
			Targets: []PathTarget{{Path: "here", Addr: netip.AddrPortFrom(server.Addr.Of(f), port), Namespace: fmt.Sprintf("/proc/self/fd/%d", client.Namespace().FD())}},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range p.Results {
			if c := r.Paths["here"]; c.Rate.Median <= 0 {
				t.Errorf("%s over %s: %+v", r.Name, f, c)
			}
		}
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
