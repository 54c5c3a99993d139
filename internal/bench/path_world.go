//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/google/nftables/expr"

	"tulle/internal/bench/traffic"
	"tulle/internal/lab"
	"tulle/internal/netns"
	"tulle/ip"
)

// pathWorld has two hosts for each path, with a container on each, or no hosts of its own.
type pathWorld struct {
	config     PathConfig
	lab        *lab.Lab
	ends       []*endProcess
	remotes    []*traffic.Remote
	paths      []*between
	hosts      map[string][]*lab.Host // by path
	softirqs   func() (time.Duration, error)
	accounting string
}

func (w *pathWorld) build(ctx context.Context) error {
	if len(w.config.Targets) > 0 {
		w.accounting = "all that runs on both machines"
		return w.dial(ctx)
	}
	apart, err := traffic.ApartSoftirqs()
	if err != nil {
		return err
	}
	w.accounting = "both processes and ksoftirqd"
	if apart {
		w.accounting = "both processes, and all interrupts of their core"
	}
	if w.softirqs, err = traffic.SoftirqClock(w.config.CPU); err != nil {
		return err
	}
	w.lab, err = lab.New(ctx, lab.Config{
		Hosts: 2 * len(w.config.Paths), Containers: 1, Families: []ip.Family{w.config.family()}, Backend: map[string]any{"Type": w.config.Backend},
		FindUplink: true, Tulled: w.config.Tulled, Tulle: w.config.Tulle,
	})
	if err != nil {
		return err
	}
	if err := w.lab.Etcd.Start(ctx); err != nil {
		return err
	}
	w.hosts = map[string][]*lab.Host{}
	for i, path := range w.config.Paths {
		w.config.progress("hosts of %s", path)
		hosts := w.lab.Hosts[2*i : 2*i+2]
		w.hosts[path] = hosts
		if err := w.addPath(ctx, path, hosts); err != nil {
			return fmt.Errorf("build path %s: %w", path, err)
		}
	}
	return nil
}

func (w *pathWorld) close() error {
	var errs []error
	for _, end := range w.ends {
		end.stop()
	}
	for _, r := range w.remotes {
		errs = append(errs, r.Close())
	}
	if w.lab != nil {
		errs = append(errs, w.lab.Close())
	}
	return errors.Join(errs...)
}

// addPath makes two hosts a network of their own: what they announce to each other is below a prefix of theirs.
func (w *pathWorld) addPath(ctx context.Context, path string, hosts []*lab.Host) error {
	f := w.config.family()
	if err := addWire(hosts[0], hosts[1], f); err != nil {
		return err
	}
	if !w.config.Offloads {
		for _, h := range hosts {
			if err := segmentInSoftware(h, wire); err != nil {
				return err
			}
		}
	}
	if path == Bare {
		return w.addEnds(path, hosts[0], hosts[1], wireAddr(f, 1))
	}
	prefix := "/bench/" + path
	if err := w.lab.Etcd.Put(ctx, prefix+"/config", w.lab.NetworkConfig()); err != nil {
		return err
	}
	start := w.startTulled
	if path == Flannel {
		start = w.startFlanneld
	}
	for _, h := range hosts {
		if err := start(ctx, path, prefix, h); err != nil {
			return err
		}
		if err := h.StartContainers(); err != nil {
			return err
		}
		if path != Flannel {
			if err := h.AwaitBridge(ctx); err != nil {
				return err
			}
		}
		if err := h.Do(func() error { return addForwardRules(f, w.config.Rules, &expr.Counter{}) }); err != nil {
			return fmt.Errorf("add rules to %s: %w", h, err)
		}
	}
	for _, h := range hosts {
		if err := w.awaitFastPath(ctx, path, h); err != nil {
			return err
		}
	}
	to := hosts[1].Containers[0]
	return w.addEnds(path, hosts[0].Containers[0], to, to.Addr.Of(f))
}

// startTulled starts it, and again if that is what makes the path.
func (w *pathWorld) startTulled(ctx context.Context, path, prefix string, h *lab.Host) error {
	runs := map[string][][]string{
		Plain: {{"--fast-path=off"}},
		Fast:  {{"--fast-path=on"}},
		Never: {{"--fast-path=on", "--fast-path-life=-1s"}},
		Off:   {{"--fast-path=on"}, {"--fast-path=off"}},
	}[path]
	for i, args := range runs {
		if i > 0 {
			if err := w.awaitFastPath(ctx, Fast, h); err != nil {
				return err
			}
			if err := h.StopDaemon(); err != nil {
				return err
			}
		}
		// Programs that are kept nowhere end with tulled, and so with the lab.
		line := append([]string{"--etcd-prefix", prefix, "--iface", wire, "--bpf-dir", filepath.Join(h.Dir, "bpf")}, args...)
		if err := h.StartDaemon(line...); err != nil {
			return err
		}
		if err := h.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (w *pathWorld) startFlanneld(ctx context.Context, _, prefix string, h *lab.Host) error {
	f, err := h.StartFlanneld(lab.FlanneldConfig{Program: w.config.Flanneld, Prefix: prefix, Uplink: wire})
	if err != nil {
		return err
	}
	return f.AwaitRunning(ctx)
}

// fastPathStatus is the part of tulled's status that says how the fast path stands.
type fastPathStatus struct {
	FastPath *ip.FastPathState `json:"fastPath"`
}

// awaitFastPath waits until the programs of those paths hang where they should.
func (w *pathWorld) awaitFastPath(ctx context.Context, path string, h *lab.Host) error {
	if path != Fast && path != Never {
		return nil
	}
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.After(awaitTimeout); ; {
		var st fastPathStatus
		if err := h.Status(ctx, &st); err != nil {
			return err
		}
		if st.FastPath != nil && st.FastPath.On && (st.FastPath.Ports > 0 || len(h.Containers) == 0) {
			return nil
		}
		select {
		case <-ticker.C:
		case <-deadline:
			return fmt.Errorf("the fast path of %s is not on: %+v", h, st.FastPath)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// fastShares tells of each path with programs which part of the bytes went fast.
func (w *pathWorld) fastShares(ctx context.Context) (map[string]float64, error) {
	shares := map[string]float64{}
	for _, path := range []string{Fast, Never} {
		var fast, all uint64
		for _, h := range w.hosts[path] {
			var st fastPathStatus
			if err := h.Status(ctx, &st); err != nil {
				return nil, err
			}
			if st.FastPath == nil {
				return nil, fmt.Errorf("the fast path of %s has gone", h)
			}
			for _, t := range []ip.FastTraffic{st.FastPath.Out, st.FastPath.In} {
				fast, all = fast+t.FastBytes, all+t.FastBytes+t.SlowBytes
			}
		}
		if all > 0 {
			shares[path] = float64(fast) / float64(all)
		}
	}
	return shares, nil
}

// place is where an end runs.
type place interface{ Do(func() error) error }

func (w *pathWorld) addEnds(path string, client, server place, to netip.Addr) error {
	b := &between{path: path, to: netip.AddrPortFrom(to, 0)}
	for _, end := range []struct {
		at     place
		remote **traffic.Remote
	}{{client, &b.client}, {server, &b.server}} {
		e, err := startEnd(end.at.Do, w.config.Tulle, w.config.CPU)
		if err != nil {
			return err
		}
		w.ends = append(w.ends, e)
		*end.remote = e.Remote
	}
	w.paths = append(w.paths, b)
	return nil
}

// dial reaches the ends that were started elsewhere.
func (w *pathWorld) dial(ctx context.Context) error {
	for _, t := range w.config.Targets {
		in := func(fn func() error) error { return fn() }
		if t.Namespace != "" {
			ns, err := netns.Open(t.Namespace)
			if err != nil {
				return err
			}
			defer ns.Close()
			in = ns.Do
		}
		var conn net.Conn
		if err := in(func() (err error) {
			conn, err = (&net.Dialer{Timeout: awaitTimeout, FallbackDelay: -1}).DialContext(ctx, "tcp", t.Addr.String())
			return err
		}); err != nil {
			return fmt.Errorf("reach the server of path %s, tulle bench path --server: %w", t.Path, err)
		}
		server := traffic.NewRemote(conn)
		w.remotes = append(w.remotes, server)
		client, err := startEnd(in, w.config.Tulle, -1)
		if err != nil {
			return err
		}
		w.ends = append(w.ends, client)
		w.paths = append(w.paths, &between{path: t.Path, client: client.Remote, server: server, to: t.Addr})
	}
	return nil
}
