//go:build linux && flanneld

package lab_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/ip"
)

const (
	// flanneldEnv names the program that runs beside tulled in tests.
	flanneldEnv = "TULLE_TEST_FLANNELD"

	flanneldTimeout = 20 * time.Second
)

// runningFlanneld is a host that a real flanneld dresses.
type runningFlanneld struct {
	flanneld
	*lab.Flanneld
	runs int
}

// requireFlanneld ends a test for which nobody has named a flanneld.
func requireFlanneld(t *testing.T) {
	t.Helper()
	if os.Getenv(flanneldEnv) == "" {
		t.Fatalf("name a flanneld program in %s", flanneldEnv)
	}
}

// prepareFlanneld does what an operator does before flanneld starts.
func prepareFlanneld(t *testing.T, l *lab.Lab, host *lab.Host) *runningFlanneld {
	t.Helper()
	return &runningFlanneld{flanneld: flanneld{lab: l, host: host}}
}

// start starts flanneld and waits until it serves all peers.
func (f *runningFlanneld) start(t *testing.T, peers []*lab.Host) {
	t.Helper()
	f.runs++
	running, err := f.host.StartFlanneld(lab.FlanneldConfig{
		Program: os.Getenv(flanneldEnv), Log: filepath.Join(f.host.Dir, fmt.Sprintf("flanneld-%d.log", f.runs)),
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Flanneld = running
	t.Cleanup(func() {
		running.Kill()
		if text, err := running.ReadLog(); err == nil && t.Failed() {
			t.Logf("log of flanneld on %s:\n%s", f.host, text)
		}
	})
	if !eventually(flanneldTimeout, func() bool { return f.serves(t, peers) }) {
		t.Fatalf("flanneld on %s does not serve its peers", f.host)
	}
}

// serves reports whether flanneld has written the subnet file and taken in every peer.
func (f *runningFlanneld) serves(t *testing.T, peers []*lab.Host) bool {
	t.Helper()
	log := f.readLog(t)
	if !strings.Contains(log, "Running backend.") {
		return false
	}
	for _, peer := range peers {
		if !regexp.MustCompile(`(via|PublicIP:) ` + peer.Addr.V4.String() + `\b`).MatchString(log) {
			return false
		}
		for _, family := range f.lab.Config.Families {
			if routes, err := f.host.RoutesTo(peer, family); err != nil || len(routes) == 0 {
				return false
			}
		}
	}
	return true
}

// stop stops flanneld. It must have lived until then, and have had no complaint.
func (f *runningFlanneld) stop(t *testing.T) {
	t.Helper()
	for _, line := range regexp.MustCompile(`(?m)^(E[0-9]{4} |panic: ).*$`).FindAllString(f.readLog(t), -1) {
		t.Errorf("flanneld on %s says: %s", f.host, line)
	}
	// It does not stop if the loop that programs peers has died.
	if err := f.Stop(); err != nil {
		t.Fatal(err)
	}
}

func (f *runningFlanneld) readLog(t *testing.T) string {
	t.Helper()
	text, err := f.ReadLog()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// announced is what peers know of the host: the key of its lease, and the value
// except for what Tulle adds to it.
func (f *runningFlanneld) announced(t *testing.T) map[string]any {
	t.Helper()
	leases, err := f.lab.Etcd.Get(t.Context(), f.lab.Etcd.Key("subnets/"))
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range leases {
		var lease map[string]any
		if err := json.Unmarshal([]byte(value), &lease); err != nil {
			t.Fatal(err)
		}
		if lease["PublicIP"] == f.host.Addr.V4.String() {
			delete(lease, "Tulle")
			return map[string]any{key: lease}
		}
	}
	t.Fatalf("no lease of %s in %v", f.host, leases)
	return nil
}

// lowerMTU makes a subnet file of flanneld's in dual stack tell the MTU of the
// IPv6 device, as tulled's does: flanneld tells that of the IPv4 device.
func (f *runningFlanneld) lowerMTU(t *testing.T) {
	t.Helper()
	if _, err := f.host.LinkMAC(f.device(ip.IPv6)); err != nil {
		return
	}
	text, err := os.ReadFile(f.host.SubnetFile())
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("MTU=1450"), []byte("MTU=1430"), 1)
	if err := os.WriteFile(f.host.SubnetFile(), text, 0o644); err != nil {
		t.Fatal(err)
	}
}
