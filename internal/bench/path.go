//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tulle/internal/bench/traffic"
	"tulle/ip"
)

// What packets cross, by which results are named.
const (
	Bare    = "bare"    // the hosts' own addresses, on hosts that have nothing else
	Plain   = "plain"   // tulled --fast-path=off
	Fast    = "fast"    // tulled --fast-path=on
	Never   = "never"   // the same, and no flow ever becomes fast: what its programs cost those that do not
	Off     = "off"     // on, and then off by a restart: what is left of it
	Flannel = "flannel" // a real flanneld
)

// PathConfig says what is measured.
type PathConfig struct {
	Backend  string        `json:"backend"` // "vxlan" or "host-gw"
	Family   string        `json:"family"`  // "ipv4" or "ipv6"
	Rules    int           `json:"rules"`   // of others, that every forwarded packet passes
	Offloads bool          `json:"offloads"`
	Rounds   int           `json:"rounds"`
	For      time.Duration `json:"for"`   // each measurement takes, nanoseconds
	Paths    []string      `json:"paths"` // Bare and others
	Figures  []string      `json:"-"`     // names of what is measured; none: all
	// Flanneld, Tulled and Tulle are the paths of the programs.
	Flanneld      string `json:"-"`
	Tulled, Tulle string `json:"-"`
	// CPU is the core that both ends have; less than 0: the last.
	CPU int `json:"core"`
	// Targets are those other than this machine's, which are measured instead of a lab.
	Targets []PathTarget `json:"targets,omitempty"`
	// Progress is told of each step. May be nil.
	Progress func(string) `json:"-"`
}

// PathTarget is an end that somebody has started elsewhere, with `tulle bench path --server`.
type PathTarget struct {
	Path      string         `json:"path"` // its name
	Addr      netip.AddrPort `json:"addr"`
	Namespace string         `json:"namespace,omitempty"` // that it is measured from, by path; empty: this one
}

// MaxRules is how many rules are made in a moment.
const MaxRules = 10_000

// pathKind is what is measured.
type pathKind struct {
	name, unit string
	kind       traffic.Kind
	streams    int
	per        float64 // of what is counted in a unit
}

func pathKinds() []pathKind {
	return []pathKind{
		{"tcp-rr", "round trip", traffic.TCPRoundTrip, 1, 1},
		{"udp-rr", "round trip", traffic.UDPRoundTrip, 1, 1},
		{"udp-64", "datagram", traffic.UDPOneWay, 1, 1},
		{"tcp-connect", "connection", traffic.TCPConnect, 1, 1},
		{"bulk-1", "GB", traffic.TCPBulk, 1, 1e9},
		{"bulk-4", "GB", traffic.TCPBulk, 4, 1e9},
	}
}

// PathFigures names all that can be measured.
func PathFigures() []string {
	var names []string
	for _, k := range pathKinds() {
		names = append(names, k.name)
	}
	return names
}

// Check names the field that is wrong, and the remedy.
func (c PathConfig) Check() error {
	if err := eachOnce("--figures", c.Figures, PathFigures()); err != nil {
		return err
	}
	switch {
	case c.Rounds < 1:
		return fmt.Errorf("--rounds is %d, must be 1 or more", c.Rounds)
	case c.For < 10*time.Millisecond || c.For > time.Minute:
		return fmt.Errorf("--for is %v, must be 10ms to 1m", c.For)
	case len(c.Targets) == 0:
		return c.checkLab()
	}
	var names []string
	for _, t := range c.Targets {
		names = append(names, t.Path)
	}
	return eachOnce("--to", names, names)
}

func (c PathConfig) checkLab() error {
	if err := eachOnce("--paths", c.Paths, []string{Bare, Plain, Fast, Never, Off, Flannel}); err != nil {
		return err
	}
	switch flannel := slices.Contains(c.Paths, Flannel); {
	case c.Backend != "vxlan" && c.Backend != "host-gw":
		return fmt.Errorf("--backend is %q, must be vxlan or host-gw", c.Backend)
	case c.Family != "ipv4" && c.Family != "ipv6":
		return fmt.Errorf("--family is %q, must be ipv4 or ipv6", c.Family)
	case c.Rules < 0 || c.Rules > MaxRules:
		return fmt.Errorf("--rules is %d, must be 0 to %d", c.Rules, MaxRules)
	case len(c.Paths) == 0:
		return errors.New("--paths is empty, must name one or more")
	case flannel && c.Flanneld == "":
		return fmt.Errorf("--paths has %q: name a flanneld with --flanneld", Flannel)
	case flannel && c.Family == "ipv6":
		// It finds its lease by its IPv4 address, and two hosts that have none have the same: they share a subnet.
		return fmt.Errorf("--paths has %q, whose networks of IPv6 alone do not work on etcd: use --family ipv4, or leave it out", Flannel)
	}
	return nil
}

// eachOnce refuses names that are not known, and those that are given twice.
func eachOnce(flag string, given, known []string) error {
	for i, name := range given {
		if !slices.Contains(known, name) {
			return fmt.Errorf("%s has %q, must be of %s", flag, name, strings.Join(known, ", "))
		}
		if slices.Contains(given[:i], name) {
			return fmt.Errorf("%s has %q twice", flag, name)
		}
	}
	return nil
}

func (c PathConfig) family() ip.Family {
	if c.Family == ip.IPv6.String() {
		return ip.IPv6
	}
	return ip.IPv4
}

func (c PathConfig) kinds() []pathKind {
	return slices.DeleteFunc(pathKinds(), func(k pathKind) bool { return len(c.Figures) > 0 && !slices.Contains(c.Figures, k.name) })
}

func (c PathConfig) progress(format string, args ...any) {
	if c.Progress != nil {
		c.Progress(fmt.Sprintf(format, args...))
	}
}

// between are two ends, and the path from one to the other.
type between struct {
	path           string
	client, server *traffic.Remote
	to             netip.AddrPort // that the server listens at; port 0: any
}

// RunPath measures what packets between two hosts cost on each path. Rounds of all paths are interleaved, so that what else the machine does hits all alike.
func RunPath(ctx context.Context, config PathConfig) (p Path, err error) {
	if err := config.Check(); err != nil {
		return p, err
	}
	if config.CPU < 0 {
		if config.CPU, err = traffic.LastCore(); err != nil {
			return p, err
		}
	}
	w := &pathWorld{config: config}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := w.build(ctx); err != nil {
		return p, err
	}
	for _, b := range w.paths {
		if err := b.await(ctx); err != nil {
			return p, fmt.Errorf("path %s: %w", b.path, err)
		}
	}
	samples := map[string]map[string][]sample{} // by figure and path
	for round := range config.Rounds {
		config.progress("round %d of %d", round+1, config.Rounds)
		for _, k := range config.kinds() {
			for _, i := range rand.Perm(len(w.paths)) {
				b := w.paths[i]
				s, err := w.measure(ctx, b, k)
				if err != nil {
					return p, fmt.Errorf("measure %s on path %s: %w", k.name, b.path, err)
				}
				if samples[k.name] == nil {
					samples[k.name] = map[string][]sample{}
				}
				samples[k.name][b.path] = append(samples[k.name][b.path], s)
			}
		}
	}
	p = Path{PathConfig: config, Accounting: w.accounting}
	if p.FastShare, err = w.fastShares(ctx); err != nil {
		return p, err
	}
	p.Paths = nil
	for _, b := range w.paths {
		p.Paths = append(p.Paths, b.path)
	}
	for _, k := range config.kinds() {
		p.Results = append(p.Results, pathResult(k, samples[k.name]))
	}
	return p, nil
}

// awaitTimeout is how long a path may take to carry anything.
const awaitTimeout = 30 * time.Second

// await returns when the path carries packets.
func (b *between) await(ctx context.Context) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.After(awaitTimeout); ; {
		err := b.try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-deadline:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (b *between) try(ctx context.Context) error {
	if err := b.open(ctx, traffic.Order{Kind: traffic.TCPConnect}); err != nil {
		return err
	}
	return b.close(ctx)
}

func (b *between) open(ctx context.Context, o traffic.Order) error {
	o.Action, o.Addr = traffic.Listen, b.to
	a, err := b.server.Do(ctx, o)
	if err != nil {
		return err
	}
	o.Action, o.Addr = traffic.Open, netip.AddrPortFrom(b.to.Addr(), a.Addr.Port())
	_, err = b.client.Do(ctx, o)
	return err
}

func (b *between) close(ctx context.Context) error {
	_, err := b.client.Do(ctx, traffic.Order{Action: traffic.Close})
	_, serverErr := b.server.Do(ctx, traffic.Order{Action: traffic.Close})
	return errors.Join(err, serverErr)
}

// sample is one measurement.
type sample struct {
	cost float64 // CPU time of both ends for a unit, seconds
	rate float64 // units per second
}

// warmUp is for how long a path is used before it is measured: what is learnt by then is the path's, and windows are open.
const warmUp = 150 * time.Millisecond

func (w *pathWorld) measure(ctx context.Context, b *between, k pathKind) (s sample, err error) {
	if err := b.open(ctx, traffic.Order{Kind: k.kind, Streams: k.streams}); err != nil {
		return s, err
	}
	defer func() {
		if ctx.Err() == nil { // else the ends have gone
			err = errors.Join(err, b.close(ctx))
		}
	}()
	if _, err := b.client.Do(ctx, traffic.Order{Action: traffic.Run, For: warmUp}); err != nil {
		return s, err
	}
	arrived, err := b.settle(ctx, k)
	if err != nil {
		return s, err
	}
	before, err := w.spent(ctx, b)
	if err != nil {
		return s, err
	}
	ran, err := b.client.Do(ctx, traffic.Order{Action: traffic.Run, For: w.config.For})
	if err != nil {
		return s, err
	}
	count := float64(ran.Count)
	if k.kind == traffic.UDPOneWay { // what was lost counts for nothing
		now, err := b.settle(ctx, k)
		if err != nil {
			return s, err
		}
		count = float64(now - arrived)
	}
	after, err := w.spent(ctx, b)
	if err != nil {
		return s, err
	}
	if count == 0 {
		return s, errors.New("nothing comes through")
	}
	return sample{cost: (after - before).Seconds() / count * k.per, rate: count / k.per / ran.Took.Seconds()}, nil
}

// settle waits until datagrams that are under way have arrived, and returns how many those are by now.
func (b *between) settle(ctx context.Context, k pathKind) (uint64, error) {
	if k.kind != traffic.UDPOneWay {
		return 0, nil
	}
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for last, tries := uint64(0), 0; ; tries++ {
		a, err := b.server.Do(ctx, traffic.Order{Action: traffic.Count})
		if err != nil || tries > 0 && a.Count == last {
			return a.Count, err
		}
		last = a.Count
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// spent is the CPU time so far of both ends, and of what the kernel does for them apart.
func (w *pathWorld) spent(ctx context.Context, b *between) (time.Duration, error) {
	var sum time.Duration
	for _, end := range []*traffic.Remote{b.server, b.client} {
		a, err := end.Do(ctx, traffic.Order{Action: traffic.CPU})
		if err != nil {
			return 0, err
		}
		sum += a.CPU
	}
	if w.softirqs == nil {
		return sum, nil
	}
	apart, err := w.softirqs()
	return sum + apart, err
}
