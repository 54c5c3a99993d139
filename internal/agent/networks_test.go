package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/internal/fabric"
	"tulle/internal/hostfiles"
	"tulle/internal/hostfiles/hostfilestest"
	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet/subnettest"
)

const redConfig = `{"Network":"10.6.0.0/16","Backend":{"Type":"vxlan","VNI":6}}`

// second gives all hosts of a world a second network, red, with a store of its own.
func (w *world) second() *subnettest.Store {
	red := subnettest.NewStore()
	red.Put("config", redConfig, 0)
	for _, h := range w.hosts {
		store := red.Open().(*subnettest.Store)
		h.change = func(c *Config) {
			network := c.Networks[0]
			network.Name, network.Store = "red", store
			network.SubnetFile = filepath.Join(h.dir, "red.env")
			c.Networks = append(c.Networks, network)
		}
	}
	return red
}

// all is what Tulle has made on the host, in all of its networks.
func (h *node) all(names ...string) ip.State {
	h.t.Helper()
	var scope ip.Scope
	for _, name := range names {
		rec, err := hostfiles.ReadRecord(hostfiles.NetworkDir(filepath.Join(h.dir, "state"), name))
		if err != nil {
			h.t.Fatal(err)
		}
		scope = scope.Join(rec.Scope())
	}
	snap, err := h.kernel.Snapshot(context.Background(), scope)
	if err != nil {
		h.t.Fatal(err)
	}
	return snap.Owned
}

// of is the part of a state that is of the network of that name, red or the first.
func of(s ip.State, name string) ip.State {
	other := map[string]string{"": "red", "red": ""}[name]
	scope := map[string]ip.Scope{
		"":    {Links: []string{"flannel.1"}, Networks: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")}},
		"red": {Links: []string{"flannel.6"}, Networks: []netip.Prefix{netip.MustParsePrefix("10.6.0.0/16")}},
	}[other]
	return s.Except(ip.Part{Net: other, Scope: scope})
}

func bothReady(peers int) func(*node) bool {
	return func(h *node) bool {
		st := h.agent.Status()
		return st.Ready && len(st.Of("").Peers) == peers && len(st.Of("red").Peers) == peers && len(h.drift()) == 0
	}
}

// Two networks on a host have two leases, two devices and two guards. What happens to the store of one, or that one goes, is nothing to the other.
func TestTwoNetworks(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 3, func(t *testing.T, w *world) {
		red := w.second()
		w.start()
		w.within(soon, "ready", bothReady(2))
		h := w.hosts[0]
		st, state := h.agent.Status(), h.all("", "red")
		for name, in := range map[string]string{"": "10.5.0.0/16", "red": "10.6.0.0/16"} {
			n, part := st.Of(name), of(state, name)
			if !n.Lease.Held || !netip.MustParsePrefix(in).Contains(n.Lease.Subnets[0].Addr()) {
				t.Errorf("network %q has the lease %+v", name, n.Lease)
			}
			if len(part.Links) != 1 || len(part.Guards) != 1 || len(part.Tables) != 1 || len(part.Routes) != 2 || len(part.FDB) != 2 || len(part.Guards[0].Peers) != 4 {
				t.Errorf("network %q has\n%s", name, part)
			}
		}
		if sysctls := state.Sysctls; len(sysctls) > 0 {
			t.Errorf("settings in no scope: %v", sysctls)
		}
		for _, file := range []string{"subnet.env", "red.env", "state/host.json", "state/networks/red/host.json"} {
			if matches, _ := filepath.Glob(filepath.Join(h.dir, file)); len(matches) == 0 {
				t.Errorf("no file %s", file)
			}
		}

		// What others do to one network is mended, and nothing of the other is touched.
		mend := func(what string, o ip.Object) {
			t.Helper()
			was, first := h.all("", "red"), h.agent.work.Changes
			h.external(ip.Op{Verb: ip.Delete, Old: o})
			w.within(soon, what, bothReady(2))
			if diff := cmp.Diff(was.String(), h.all("", "red").String()); diff != "" {
				t.Errorf("after %s:\n%s", what, diff)
			}
			if n := h.agent.work.Changes - first; n != 1 {
				t.Errorf("after %s, %d things were done", what, n)
			}
		}
		mend("a route of red", of(state, "red").Routes[0])
		mend("the guard of red", of(state, "red").Guards[0])
		mend("the table of the first", of(state, "").Tables[0])

		// A lease of red that comes and goes is an incremental pass, and one for red alone.
		passes := h.agent.Status().Work
		was := of(h.all("", "red"), "").String()
		red.Put("subnets/10.6.200.0-24", strings.Replace(flannelLease("172.30.0.99", "02:00:00:00:00:99"), `"VNI":1`, `"VNI":6`, 1), 0)
		w.within(soon, "one more of red", func(n *node) bool { return len(n.agent.Status().Of("red").Peers) == 3 && n.agent.Status().Ready })
		red.Delete("subnets/10.6.200.0-24")
		w.within(soon, "one less of red", bothReady(2))
		now := h.agent.Status().Work
		if now.Incremental-passes.Incremental != 2 || now.Passes != passes.Passes {
			t.Errorf("it took %d full and %d incremental passes", now.Passes-passes.Passes, now.Incremental-passes.Incremental)
		}
		if diff := cmp.Diff(was, of(h.all("", "red"), "").String()); diff != "" {
			t.Errorf("the first network changed:\n%s", diff)
		}
	})
}

// A host that starts while the store of one network does not answer leaves what an earlier run made for it, and does what there is to do for the other.
func TestOneNetworkWaitsForItsStore(t *testing.T) {
	for name, cached := range map[string]bool{"without a cached view": false, "with one": true} {
		t.Run(name, func(t *testing.T) {
			simulate(t, `{"Network":"10.5.0.0/16"}`, 3, func(t *testing.T, w *world) {
				w.second()
				w.start()
				w.within(soon, "ready", bothReady(2))
				<-time.After(2 * hostfiles.ViewEvery)
				h := w.hosts[0]
				change := h.change
				h.stop()
				was := h.all("", "red")
				if !cached {
					remove(t, filepath.Join(h.dir, "state", "networks", "red", "view.json.gz"))
				}
				h.external(ip.Op{Verb: ip.Delete, Old: of(was, "").Routes[0]})
				h.change = func(c *Config) {
					change(c)
					c.Networks[1].Store = silent{}
				}
				h.start()
				w.within(soon, "the first is ready", func(n *node) bool { return n != h || h.agent.Status().Of("").Ready })
				<-time.After(time.Minute)
				synctest.Wait()
				st := h.agent.Status()
				if red := st.Of("red"); st.Ready != cached || red.Ready != cached || (red.Degraded != "") != cached {
					t.Errorf("red is ready: %t, degraded: %q, the host is ready: %t", red.Ready, red.Degraded, st.Ready)
				}
				of := slices.DeleteFunc(slices.Clone(st.Troubles.All), func(tr trouble.Trouble) bool { return tr.Network == "red" })
				if len(of) > 0 || len(st.Troubles.All) == 0 {
					t.Errorf("troubles %+v, want some of red alone", st.Troubles.All)
				}
				if diff := cmp.Diff(was.String(), h.all("", "red").String()); diff != "" {
					t.Errorf("the data plane changed:\n%s", diff)
				}
			})
		})
	}
}

// A lease of one network that is lost leaves the other alone.
func TestOneNetworkLosesItsLease(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 2, func(t *testing.T, w *world) {
		red := w.second()
		w.start()
		w.within(soon, "ready", bothReady(1))
		h := w.hosts[0]
		was := h.all("", "red")
		key := "subnets/" + strings.Replace(h.agent.Status().Of("red").Lease.Subnets[0].String(), "/", "-", 1)
		red.Put(key, strings.Replace(flannelLease("172.30.0.77", "02:00:00:00:00:77"), `"VNI":1`, `"VNI":6`, 1), 0)
		w.within(soon, "told", func(n *node) bool {
			st := n.agent.Status()
			return n != h || !st.Of("red").Ready && !st.Of("red").Lease.Held && st.Of("").Ready && !st.Ready && strings.HasPrefix(st.Reason, "network red: ")
		})
		if diff := cmp.Diff(of(was, "").String(), of(h.all("", "red"), "").String()); diff != "" {
			t.Errorf("the first network changed:\n%s", diff)
		}
		red.Delete(key)
		w.within(time.Minute, "ready again", bothReady(1))
	})
}

// A network that a host has no more goes from it, and the other is left untouched.
func TestNetworkIsRemoved(t *testing.T) {
	for _, gone := range []string{"", "red"} {
		t.Run("network "+gone, func(t *testing.T) {
			stays := map[string]string{"": "red", "red": ""}[gone]
			simulate(t, `{"Network":"10.5.0.0/16"}`, 2, func(t *testing.T, w *world) {
				w.second()
				w.start()
				w.within(soon, "ready", bothReady(1))
				h := w.hosts[0]
				change := h.change
				h.stop()
				was := h.all("", "red")
				h.change = func(c *Config) {
					change(c)
					c.Networks = slices.DeleteFunc(c.Networks, func(n fabric.Config) bool { return n.Name == gone })
				}
				h.start()
				w.within(soon, "ready", func(n *node) bool { return n != h || h.agent.Status().Ready })
				if diff := cmp.Diff(of(was, stays).String(), h.all("", "red").String()); diff != "" {
					t.Errorf("it leaves (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// A network that needs what another has is refused, and the other is not disturbed.
func TestNetworksThatClash(t *testing.T) {
	for name, tt := range map[string]struct{ config, says string }{
		"device":    {`{"Network":"10.6.0.0/16","Backend":{"Type":"vxlan"}}`, "uses the device flannel.1"},
		"addresses": {`{"Network":"10.5.128.0/17","Backend":{"Type":"vxlan","VNI":6}}`, "has addresses of 10.5.128.0/17"},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, `{"Network":"10.5.0.0/16"}`, 2, func(t *testing.T, w *world) {
				w.second().Put("config", tt.config, 0)
				w.start()
				w.within(soon, "the first is ready", func(h *node) bool {
					st := h.agent.Status()
					return st.Of("").Ready && len(st.Of("").Peers) == 1 && !st.Of("red").Ready
				})
				h := w.hosts[0]
				if st := h.agent.Status(); !strings.Contains(st.Of("red").Reason, tt.says) || st.Of("red").Lease != nil {
					t.Errorf("red: %q, want %q", st.Of("red").Reason, tt.says)
				}
				if got := h.all("", "red"); len(got.Links) != 1 || len(got.Tables) != 1 || len(got.Guards) != 1 {
					t.Errorf("there are\n%s", got)
				}
			})
		})
	}
}

// again starts the host anew with other networks.
func (h *node) again(change func(*Config)) {
	h.t.Helper()
	before := h.change
	h.stop()
	h.change = func(c *Config) {
		before(c)
		change(c)
	}
	h.start()
}

// A device that a network waits with, from an earlier run, is another's that needs it by now.
func TestWaitingNetworkGivesWay(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 1, func(t *testing.T, w *world) {
		w.second()
		w.start()
		w.within(soon, "ready", bothReady(0))
		h := w.hosts[0]
		was := of(h.all("", "red"), "red")
		remove(t, filepath.Join(h.dir, "state", "networks", "red", "view.json.gz"))
		w.store.Put("config", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":6}}`, 0)
		h.again(func(c *Config) { c.Networks[1].Store = silent{} })
		w.within(soon, "the first is ready", func(*node) bool { return h.agent.Status().Of("").Ready })
		<-time.After(time.Minute)
		now := of(h.all("", "red"), "red")
		if st := h.agent.Status(); !st.Of("").Ready || st.Of("red").Ready {
			t.Errorf("the first: %q, red: %q; want the first alone ready", st.Of("").Reason, st.Of("red").Reason)
		}
		if diff := cmp.Diff(was.Tables, now.Tables); diff != "" || len(now.Tables) != 1 {
			t.Errorf("the tables of red changed:\n%s", diff)
		}
	})
}

// What a former network left stays while a network waits: it may go by another name now.
func TestFormerNetworkStaysWhileOneWaits(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 2, func(t *testing.T, w *world) {
		red := w.second()
		w.start()
		w.within(soon, "ready", bothReady(1))
		h := w.hosts[0]
		h.kernel.AddLeftover(ip.Leftover{Engine: ip.NFTables, Family: ip.IPv4, Table: "flannel-ipv4"}, netip.MustParsePrefix("10.6.0.0/16"))
		was := h.all("", "red")
		h.again(func(c *Config) { c.Networks[1].Name, c.Networks[1].Store = "blue", silent{} })
		w.within(soon, "the first is ready", func(n *node) bool { return n != h || h.agent.Status().Of("").Ready })
		<-time.After(time.Minute)
		if diff := cmp.Diff(was.String(), h.all("", "red").String()); diff != "" {
			t.Errorf("the data plane changed:\n%s", diff)
		}
		h.again(func(c *Config) { c.Networks[1].Store = red.Open() })
		w.within(soon, "ready", func(n *node) bool {
			st := n.agent.Status()
			return n != h || st.Ready && len(st.Of("blue").Peers) == 1
		})
		now := h.all("", "red")
		for _, table := range now.Tables {
			if table.Net == "red" {
				t.Errorf("red has a table still")
			}
		}
		if diff := cmp.Diff(of(was, "").String(), of(now, "").String()); diff == "" || len(now.Links) != 2 || len(now.Leftovers) > 0 {
			t.Errorf("blue has nothing, or something is left:\n%s", now)
		}
	})
}

// A file that cannot be written keeps its own network from being ready, and the other is kept right and told ready after a look.
func TestOneNetworkCannotWriteItsFile(t *testing.T) {
	for _, name := range []string{"", "red"} {
		t.Run("network "+name, func(t *testing.T) {
			simulate(t, `{"Network":"10.5.0.0/16"}`, 2, func(t *testing.T, w *world) {
				w.second()
				h := w.hosts[0]
				before := h.change
				h.change = func(c *Config) {
					before(c)
					for i := range c.Networks {
						if c.Networks[i].Name == name {
							c.Networks[i].SubnetFile = h.dir // a directory
						}
					}
				}
				w.start()
				other := map[string]string{"": "red", "red": ""}[name]
				right := func(n *node) bool {
					st := n.agent.Status()
					return st.Of(other).Ready && len(n.drift()) == 0 && len(st.Of(other).Peers) == 1 && (n != h || !st.Ready && !st.Of(name).Ready)
				}
				w.within(soon, "right", right)
				h.external(ip.Op{Verb: ip.Delete, Old: of(h.all("", "red"), other).Routes[0]})
				w.within(soon, "mended", right)
				if codes := h.agent.Status().Troubles.Of(trouble.FileUnwritable); len(codes) != 1 || codes[0].Network != name {
					t.Errorf("troubles %+v", codes)
				}
				h.kernel.SetFilters(ip.Filter{Place: ip.Place{Engine: ip.NFTables, Table: "fw", Chain: "fwd"}, Hook: ip.AtForward, Policy: ip.Drop})
				w.within(soon, "told that nothing is forwarded", func(n *node) bool {
					blocked := n.agent.Status().Troubles.Of(trouble.ForwardBlocked)
					return n != h || !n.agent.Status().Of(other).Ready && len(blocked) == 2
				})
			})
		})
	}
}

// A network of a family that no interface carries is not ready, and the other is.
func TestOneNetworkHasNoUplink(t *testing.T) {
	simulate(t, `{"Network":"10.5.0.0/16"}`, 2, func(t *testing.T, w *world) {
		w.second().Put("config", `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00:6::/48","Backend":{"Type":"vxlan","VNI":6}}`, 0)
		for _, h := range w.hosts {
			only4 := eth0(h.n)
			only4.Addrs = only4.Addrs[:1]
			h.kernel.SetInterface(only4)
		}
		w.start()
		w.within(soon, "the first is ready", func(h *node) bool {
			st := h.agent.Status()
			return st.Of("").Ready && len(st.Of("").Peers) == 1 && len(h.drift()) == 0 && !st.Of("red").Ready
		})
		st := w.hosts[0].agent.Status()
		if missing := st.Troubles.Of(trouble.UplinkMissing); len(missing) != 1 || missing[0].Network != "red" {
			t.Errorf("troubles %+v, want that red has no uplink", st.Troubles.All)
		}
		for _, h := range w.hosts {
			h.kernel.SetInterface(eth0(h.n))
		}
		w.within(time.Minute, "ready", bothReady(1))
	})
}

func TestNamesOfNetworks(t *testing.T) {
	for names, want := range map[string]string{
		"red blue": "", "red red": `two networks with the name "red"`, "../red x": `network name "../red": want`, "Red x": `network name "Red": want`,
	} {
		dir := t.TempDir()
		cfg := Config{StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run"), Log: slog.New(slog.DiscardHandler)}
		for name := range strings.FieldsSeq(names) {
			cfg.Networks = append(cfg.Networks, fabric.Config{Name: name})
		}
		if _, err := New(cfg); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("networks %s: error %v, want %q", names, err, want)
		}
	}
}

// Whatever lies where former networks had their files keeps no host from starting.
func TestFilesInTheWayOfFormerNetworks(t *testing.T) {
	for name, put := range map[string]func(t *testing.T, networks string){
		"a file":       func(t *testing.T, networks string) { hostfilestest.Write(t, networks, "x") },
		"a file among": func(t *testing.T, networks string) { hostfilestest.Write(t, filepath.Join(networks, "red"), "x") },
		"a garbled record": func(t *testing.T, networks string) {
			hostfilestest.Write(t, filepath.Join(networks, "red", "host.json"), "x")
		},
		"a directory": func(t *testing.T, networks string) {
			hostfilestest.Write(t, filepath.Join(networks, "red", "host.json", "x"), "x")
		},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, `{"Network":"10.5.0.0/16"}`, 1, func(t *testing.T, w *world) {
				put(t, filepath.Join(w.hosts[0].dir, "state", "networks"))
				w.start()
				w.converged(soon)
			})
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}
