package agent

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"tulle/internal/hostfiles"
	"tulle/internal/hostfiles/hostfilestest"
	"tulle/internal/sealed"
	"tulle/ip"
)

// members are those of a JSON object.
type members = map[string]any

// leftovers are what another version may leave where this one keeps its files.
type leftovers struct {
	record, view func(members) // change what this version has written
	unsealed     bool
	wanted       string
}

func (l leftovers) write(t *testing.T, h *node) {
	t.Helper()
	state := filepath.Join(h.dir, "state")
	record, err := os.ReadFile(filepath.Join(state, "host.json"))
	if err != nil {
		t.Fatal(err)
	}
	view := hostfilestest.Unzip(t, filepath.Join(state, "view.json.gz"))
	hostfilestest.Write(t, filepath.Join(state, "host.json"), l.rewritten(t, string(record), l.record))
	hostfilestest.Write(t, filepath.Join(state, "view.json.gz"), hostfilestest.Zip(t, l.rewritten(t, view, l.view)))
	hostfilestest.Write(t, filepath.Join(h.dir, "run", "wanted.json"), l.wanted)
}

func (l leftovers) rewritten(t *testing.T, text string, change func(members)) string {
	t.Helper()
	m := members{}
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	delete(m, "sha256")
	change(m)
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if !l.unsealed {
		data = sealed.Seal(data)
	}
	return string(data)
}

// What a version leaves that knows more than this one, or less, is read or passed over. The kernel is left as it is.
func TestFilesOfOtherVersions(t *testing.T) {
	for name, files := range map[string]leftovers{
		"newer, with more": {
			record: func(m members) { m["tunnels"] = members{"flannel.1": 7} },
			view:   func(m members) { m["claims"] = []string{"x"}; m["network"].(members)["mesh"] = true },
			wanted: `{"Time":"2040-01-01T00:00:00Z","State":{"Tunnels":[1]},"Format":2}`,
		},
		"newer, of another form": {
			record: func(m members) { m["links"] = members{"flannel.1": members{"kind": "vxlan"}} },
			view:   func(m members) { m["format"] = m["format"].(float64) + 1; m["leases"] = "elsewhere" },
			wanted: `{"State":"elsewhere"}`,
		},
		"newer, with attributes of another form": {
			record: func(m members) { m["attrs"] = []int{1} },
			view:   func(m members) { m["leases"] = []members{{"subnets": "10.5.1.0-24", "attrs": "elsewhere"}} },
			wanted: `[]`,
		},
		"older, with less": {
			record:   func(m members) { delete(m, "attrs"); delete(m, "networks") },
			view:     func(m members) { delete(m, "endpoints"); delete(m, "format") },
			unsealed: true,
			wanted:   `{}`,
		},
		"without a network": {
			record: func(m members) { delete(m, "links") },
			view:   func(m members) { delete(m, "network"); delete(m, "leases") },
			wanted: `{"Scope":null,"State":null}`,
		},
		"empty": {record: func(m members) { clear(m) }, view: func(m members) { clear(m) }},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, dualConfig, 3, func(t *testing.T, w *world) {
				w.start()
				w.converged(soon)
				h := w.hosts[0]
				h.stop()
				files.write(t, h)
				startsAsBefore(t, w, h)
			})
		})
	}
}

// startsAsBefore starts a host that has been stopped: it gets back its subnet, changes nothing, and keeps files of its own.
func startsAsBefore(t *testing.T, w *world, h *node) {
	t.Helper()
	was := h.agent.Status().Of("").Lease.Subnets
	h.kernel.Refuse(func(op ip.Op) error {
		t.Errorf("applied: %s", op)
		return nil
	})
	h.start()
	w.converged(soon)
	if got := h.agent.Status().Of("").Lease.Subnets; !slices.Equal(got, was) {
		t.Errorf("subnets %v, were %v", got, was)
	}
	h.stop()
	state := filepath.Join(h.dir, "state")
	origin := hostfiles.Origin{ConfigKey: "config", Endpoints: []string{"memory"}}
	if v, err := hostfiles.ReadView(state, origin); err != nil || len(v.Set.Leases) != len(w.hosts) {
		t.Errorf("view %+v, %v, want one of %d leases", v, err, len(w.hosts))
	}
	if r, err := hostfiles.ReadRecord(state); err != nil || r.Lease().Attrs.Node != h.name {
		t.Errorf("record %+v, %v, want the lease of %s", r, err, h.name)
	}
	if _, err := hostfiles.ReadWanted(filepath.Join(h.dir, "run")); err != nil {
		t.Error(err)
	}
}
