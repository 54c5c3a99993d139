package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tulle/internal/fabric"
	"tulle/internal/hostfiles"
	"tulle/internal/hostfiles/hostfilestest"
	"tulle/internal/sealed"
	"tulle/ip"
	"tulle/ip/iptest"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

// gated is a store that is away until the gate opens.
type gated struct {
	subnet.Store
	gate chan struct{}
}

func (g gated) pass(ctx context.Context) error {
	select {
	case <-g.gate:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g gated) Acquire(ctx context.Context, claim subnet.Claim) (subnet.Held, error) {
	if err := g.pass(ctx); err != nil {
		return nil, err
	}
	return g.Store.Acquire(ctx, claim)
}

func (g gated) Watch(ctx context.Context, deliver func(subnet.Set)) error {
	if err := g.pass(ctx); err != nil {
		return err
	}
	return g.Store.Watch(ctx, deliver)
}

// reboot empties the kernel and the run directory of a host whose agent is stopped.
func (h *node) reboot() {
	h.t.Helper()
	h.kernel = iptest.New()
	h.uplink(h.n)
	for _, path := range []string{filepath.Join(h.dir, "run"), filepath.Join(h.dir, "subnet.env")} {
		if err := os.RemoveAll(path); err != nil {
			h.t.Fatal(err)
		}
	}
}

// A view that was damaged on disk, by its end alone, is written anew by a run that sees the store: the next start may have nothing else.
func TestDamagedViewIsWrittenAnew(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		h.stop()
		path := filepath.Join(h.dir, "state", "view.json.gz")
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		hostfilestest.Write(t, path, string(file[:len(file)-9]))
		h.start()
		w.converged(soon)
		h.stop()
		h.reboot()
		h.store = gated{w.store, make(chan struct{})}
		h.start()
		w.within(10*time.Second, "up without the store", func(o *node) bool { return o != h || h.agent.Status().Of("").PeerCount == 1 })
	})
}

func TestStartsWithoutTheStore(t *testing.T) {
	simulate(t, dualConfig, 3, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		was, subnets := h.owned().String(), h.agent.Status().Of("").Lease.Subnets
		h.stop()
		h.reboot()
		store := gated{w.store, make(chan struct{})}
		h.store = store
		h.start()
		w.within(10*time.Second, "up", func(o *node) bool {
			st := h.agent.Status()
			return st.Ready && strings.Contains(st.Degraded, "not been reached") && len(st.Of("").Peers) == 2
		})
		if got := h.owned().String(); got != was {
			t.Errorf("the kernel is\n%s\nwant what it was:\n%s", got, was)
		}
		st := h.agent.Status()
		if st.Of("").Lease.Held || !slices.Equal(st.Of("").Lease.Subnets, subnets) {
			t.Errorf("lease %+v, want %v, not held", st.Of("").Lease, subnets)
		}
		if env, err := flannel.ReadEnv(filepath.Join(h.dir, "subnet.env")); err != nil || env.Subnets.V4 != subnets[0] {
			t.Errorf("subnet file %+v, %v, want %v", env, err, subnets)
		}

		// The store is back.
		close(store.gate)
		w.within(soon, "held", func(*node) bool {
			st := h.agent.Status()
			return st.Degraded == "" && st.Ready && st.Of("").Lease.Held && slices.Equal(st.Of("").Lease.Subnets, subnets)
		})
		w.converged(soon)
	})
}

func TestCachedViewTakesNothingAway(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		h.stop()
		newer := ip.Route{Dst: netip.MustParsePrefix("10.5.250.0/24"), Via: netip.MustParseAddr("10.5.250.0"), Link: "flannel.1", Metric: 77, Protocol: ip.Protocol, OnLink: true}
		var moved ip.FDB
		for _, f := range h.owned().FDB {
			if f.Link == "flannel.1" {
				moved = f
			}
		}
		elsewhere := moved
		elsewhere.Dst = netip.MustParseAddr("172.30.0.99")
		h.external(ip.Op{Verb: ip.Add, New: newer}, ip.Op{Verb: ip.Replace, Old: moved, New: elsewhere})
		store := gated{w.store, make(chan struct{})}
		h.store = store
		h.start()
		w.within(10*time.Second, "up", func(*node) bool { return h.agent.Status().Ready })
		got := h.owned()
		if !slices.Contains(got.Routes, newer) || !slices.Contains(got.FDB, elsewhere) {
			t.Errorf("a view of the past changed what may be newer:\n%s", got)
		}
		close(store.gate)
		w.converged(soon)
		got = h.owned()
		if slices.Contains(got.Routes, newer) || !slices.Contains(got.FDB, moved) {
			t.Errorf("the store's view was not carried out:\n%s", got)
		}
	})
}

// While tulled was away the configuration and all leases were deleted.
func TestStartsWithoutConfiguration(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		w.start()
		w.converged(soon)
		for _, h := range w.hosts {
			h.stop()
		}
		was := w.hosts[0].owned().String()
		for _, key := range w.store.Keys() {
			w.store.Delete(key)
		}
		w.start()
		w.within(10*time.Second, "up", func(h *node) bool {
			st := h.agent.Status()
			return st.Ready && strings.Contains(st.Degraded, "tulle config set") && !st.Of("").Lease.Held
		})
		if got := w.hosts[0].owned().String(); got != was {
			t.Errorf("the kernel is\n%s\nwant what it was:\n%s", got, was)
		}
		w.store.Put("config", dualConfig, 0)
		w.converged(time.Minute)
	})
}

// Seed 75 of internal/sim.
func TestCachedViewWithALeaseThatNobodyUses(t *testing.T) {
	simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
		w.store.Put("subnets/10.5.0.0-17", flannelLease("172.30.0.66", "02:00:00:00:00:66"), 0)
		w.store.Put("subnets/10.5.128.0-17", flannelLease("172.30.0.67", "02:00:00:00:00:67"), 0)
		w.store.Put("subnets/10.5.7.0-24&fc00:5:0:7::-64", `{"PublicIP":"172.30.0.1","PublicIPv6":"fd30::1"}`, 0)
		w.store.Put("subnets/10.5.8.0-24&fc00:5:0:8::-64", `{"PublicIP":"172.30.0.2","PublicIPv6":"fd30::2"}`, 0)
		w.start()
		w.converged(soon)
		h := w.hosts[0]
		// Later than this host's lease, and so nobody's either.
		w.store.Put("subnets/10.5.7.128-25", flannelLease("172.30.0.68", "02:00:00:00:00:68"), 0)
		<-time.After(2 * hostfiles.ViewEvery)
		h.stop()
		h.reboot()
		h.store = silent{}
		h.start()
		<-time.After(2 * fabric.StorePatience)
		synctest.Wait()
		if st := h.agent.Status(); st.Degraded == "" || len(st.Of("").Peers) != 1 {
			t.Errorf("status %+v, want it degraded, with a peer", st)
		}
	})
}

func TestCachedViewOfOthersIsPassedOver(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil  func(t *testing.T, h *node, path string)
		change func(*Config)
		reason string
	}{
		"cut off": {spoil: func(t *testing.T, _ *node, path string) {
			if err := os.Truncate(path, 100); err != nil {
				t.Fatal(err)
			}
		}, reason: "of no use"},
		"garbled": {spoil: func(t *testing.T, _ *node, path string) { hostfilestest.Write(t, path, "x") }, reason: "of no use"},
		"changed": {spoil: func(t *testing.T, _ *node, path string) {
			text := hostfilestest.Unzip(t, path)
			hostfilestest.Write(t, path, hostfilestest.Zip(t, strings.Replace(text, `"revision":`, `"revision":1`, 1)))
		}, reason: "checksum"},
		"of a newer format": {spoil: func(t *testing.T, _ *node, path string) {
			hostfilestest.Write(t, path, hostfilestest.Zip(t, string(sealed.Seal([]byte(`{"format":2,"leases":"elsewhere"}`)))))
		}, reason: "its format is 2"},
		"of another prefix":  {change: func(c *Config) { c.Networks[0].Keys.Config = "other/config" }, reason: "not of other/config"},
		"of another cluster": {change: func(c *Config) { c.Networks[0].Keys.Endpoints = []string{"http://192.0.2.1:2379"} }, reason: "192.0.2.1"},
		"on other hardware":  {change: func(c *Config) { c.Host.Hardware = []string{"another"} }, reason: "other hardware"},
		"of another node":    {change: func(c *Config) { c.Host.Node = "other" }, reason: "node other"},
		"of a lost lease": {spoil: func(t *testing.T, _ *node, path string) {
			var view members
			if err := json.Unmarshal([]byte(hostfilestest.Unzip(t, path)), &view); err != nil {
				t.Fatal(err)
			}
			delete(view, "sha256")
			for _, l := range view["leases"].([]any) {
				l.(members)["attrs"].(members)["Tulle"].(members)["Node"] = "thief"
			}
			data, err := json.Marshal(view)
			if err != nil {
				t.Fatal(err)
			}
			hostfilestest.Write(t, path, hostfilestest.Zip(t, string(sealed.Seal(data))))
		}, reason: "thief"},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, dualConfig, 2, func(t *testing.T, w *world) {
				w.start()
				w.converged(soon)
				h := w.hosts[0]
				h.stop()
				h.reboot()
				if tt.spoil != nil {
					tt.spoil(t, h, filepath.Join(h.dir, "state", "view.json.gz"))
				}
				var log bytes.Buffer
				h.store, h.change, h.log = silent{}, tt.change, slog.NewTextHandler(&log, nil)
				h.start()
				<-time.After(time.Minute)
				synctest.Wait()
				if st := h.agent.Status(); st.Ready || st.Degraded != "" || len(h.owned().Links) > 0 {
					t.Errorf("status %+v, want nothing done", st)
				}
				h.stop()
				if got := log.String(); strings.Count(got, "cached view passed over") != 1 || !strings.Contains(got, tt.reason) {
					t.Errorf("log %q, want one line with %q", got, tt.reason)
				}
			})
		})
	}
}
