//go:build linux

package bench

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"maps"
	"path/filepath"
	"testing"
	"time"

	"tulle/internal/lab/labtest"
	"tulle/internal/netns"
	"tulle/ip"
)

func TestMain(m *testing.M) { labtest.Main(m) }

// What is counted does not depend on the machine: neither on its speed nor on the number of peers.
func TestControlCounts(t *testing.T) {
	const changes = 5
	for _, backend := range []string{"vxlan", "host-gw"} {
		t.Run(backend, func(t *testing.T) {
			var runs []Control
			for _, peers := range []int{10, 30} {
				families := ip.Families()
				c, err := RunControl(t.Context(), Config{
					Backend: backend, Families: families[:], Peers: peers, Rounds: 2, Changes: changes, Churn: time.Second, Idle: 3 * time.Second,
					ForeignRoutes: 100, VethChurn: 20, ForeignRules: 300, OddLeases: 2,
					Tulled: filepath.Join(labtest.Programs(), "tulled"), Tulle: filepath.Join(labtest.Programs(), "tulle"),
					Progress: func(text string) { t.Log(text) },
				})
				if err != nil {
					t.Fatal(err)
				}
				for what, load := range map[string]*Load{"routes": c.Foreign, "links": c.Veths} {
					if load == nil || load.Changes != 0 {
						t.Errorf("%d peers: beside %s of others %+v, want a load without changes", peers, what, load)
					}
				}
				if c.Warm.Changes != 0 || c.Idle.Changes != 0 || c.Idle.LogBytes != 0 || c.Spawned {
					t.Errorf("%d peers: warm restart %v changes, idle %v and %d bytes of log, programs started: %t, want none",
						peers, c.Warm.Changes, c.Idle.Changes, c.Idle.LogBytes, c.Spawned)
				}
				if least := float64(2 * peers); c.Cold.Changes < least || c.Cold.Median <= 0 || c.Floor.Median <= 0 || c.Change.Samples != changes || c.Loss.Samples != changes {
					t.Errorf("%d peers: %+v", peers, c)
				}
				if r := c.Cold.Requests; r["Watch"] != 1 || r["Range"] > 4 || r["Txn"] > 2 || r["LeaseGrant"] != 1 {
					t.Errorf("%d peers: a start makes requests %v, want one listing, one watch and two transactions", peers, r)
				}
				for method := range c.Idle.Requests {
					if method != "LeaseKeepAlive" {
						t.Errorf("%d peers: at rest etcd is asked for %v, want nothing but keep-alives", peers, c.Idle.Requests)
					}
				}
				runs = append(runs, c)
			}
			if most, many := runs[0].Cold.Requests, runs[1].Cold.Requests; !maps.Equal(most, many) {
				t.Errorf("a start makes requests %v with 10 peers and %v with 30, want the same", most, many)
			}
			var plot bytes.Buffer
			if err := WritePlot(&plot, runs); err != nil {
				t.Error(err)
			}
			if err := xml.Unmarshal(plot.Bytes(), new(struct{ XMLName xml.Name })); err != nil {
				t.Errorf("the plot is no XML: %v", err)
			}
		})
	}
}

// While other programs change routes and links, leases that come and go are dealt with one by one: full passes are left to the resync.
func TestIncrementalPassesGoOnBesideOthers(t *testing.T) {
	const changes = 30
	w, err := newWorld(t.Context(), Config{
		Backend: "vxlan", Families: []ip.Family{ip.IPv4}, Peers: 10, Rounds: 1, Changes: changes,
		Tulled: filepath.Join(labtest.Programs(), "tulled"), Tulle: filepath.Join(labtest.Programs(), "tulle"),
	})
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	defer func() { must(w.lab.Close()) }()
	var c Control
	must(w.cold(t.Context(), &c))
	must(w.addBridge(t.Context()))
	container, err := netns.New()
	must(err)
	defer func() { must(container.Close()) }()
	routes, err := w.routeChanger()
	must(err)
	links, closeLinks, err := w.vethChangers(container)
	must(err)
	defer closeLinks()

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 2)
	go func() { _, err := w.besides(ctx, 500, routes); ended <- err }()
	go func() { _, err := w.besides(ctx, 50, links...); ended <- err }()
	before, err := w.daemonCounters(t.Context())
	must(err)
	must(w.changes(t.Context(), &c))
	must(w.losses(t.Context(), &c))
	after, err := w.daemonCounters(t.Context())
	must(err)
	stop()
	for range 2 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the changes of others ended: %v", err)
		}
	}
	full, incremental := after["tulle_passes_total"]-before["tulle_passes_total"], after["tulle_incremental_passes_total"]-before["tulle_incremental_passes_total"]
	if full > 3 || incremental < 2*changes-3 {
		t.Errorf("%v full passes and %v incremental ones for %d leases that came and went", full, incremental, changes)
	}
}

func TestFleetCounts(t *testing.T) {
	const hosts = 20
	f, err := RunFleet(t.Context(), FleetConfig{Hosts: hosts, Tulle: filepath.Join(labtest.Programs(), "tulle"), Rest: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	for name, stage := range map[string]Stage{"leased": f.Leased, "known": f.Known, "change": f.Change, "restart": f.Restart} {
		if stage.Samples != hosts {
			t.Errorf("%s: %d of %d hosts", name, stage.Samples, hosts)
		}
	}
	if f.Failed != 0 || f.Known.Requests["Txn"] > 3*hosts || f.Change.Requests["Range"] > 0 {
		t.Errorf("%d failed; start %v, one change %v: want at most 3 transactions per host, and nothing but the change", f.Failed, f.Known.Requests, f.Change.Requests)
	}
}
