//go:build linux && flanneld

package lab_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tulle/internal/lab"
	"tulle/ip"
)

// flannelNetwork is a network that both tulled and flanneld can run.
type flannelNetwork struct {
	name     string
	families []ip.Family
	backend  map[string]any
	// nftables is what flanneld filters with; else it uses iptables.
	nftables bool
}

func flannelNetworks() []flannelNetwork {
	both := ip.Families()
	vxlan := map[string]any{"Type": "vxlan"}
	return []flannelNetwork{
		{"vxlan ipv4 iptables", both[:1], vxlan, false},
		{"vxlan ipv4 nftables", both[:1], vxlan, true},
		{"vxlan dual nftables", both[:], vxlan, true},
		{"vxlan direct dual iptables", both[:], map[string]any{"Type": "vxlan", "DirectRouting": true}, false},
		{"host-gw dual iptables", both[:], map[string]any{"Type": "host-gw"}, false},
	}
}

// newLab builds a lab for the network, with etcd serving.
func (n flannelNetwork) newLab(t *testing.T, hosts int) *lab.Lab {
	t.Helper()
	l := newLab(t, lab.Config{Hosts: hosts, Containers: 1, Families: n.families, Backend: n.backend})
	if err := l.Etcd.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal([]byte(l.NetworkConfig()), &config); err != nil {
		t.Fatal(err)
	}
	config["EnableNFTables"] = n.nftables
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Etcd.Put(t.Context(), l.Etcd.Key("config"), string(text)); err != nil {
		t.Fatal(err)
	}
	return l
}

// Hosts with tulled and hosts with flanneld make one network.
func TestMixedWithFlanneld(t *testing.T) {
	requireFlanneld(t)
	for _, network := range flannelNetworks() {
		t.Run(network.name, func(t *testing.T) {
			l := network.newLab(t, 4)
			// Taking turns, each finds hosts of the other when it starts, and sees one come.
			var tulleds []*lab.Host
			var flannelds []*runningFlanneld
			for i, host := range l.Hosts {
				if i%2 == 0 {
					startTulled(t, host)
					tulleds = append(tulleds, host)
					continue
				}
				f := prepareFlanneld(t, l, host)
				f.start(t, l.Hosts[:i])
				f.lowerMTU(t)
				flannelds = append(flannelds, f)
			}
			if err := l.StartContainers(t.Context()); err != nil {
				t.Fatal(err)
			}
			requireMatrix(t, l)
			requireHostsReach(t, l)
			for _, host := range tulleds {
				awaitProblems(t, host, nil)
				requireNothingDropped(t, host)
			}
			for _, f := range flannelds {
				f.stop(t)
			}
		})
	}
}

// A host goes from flanneld to tulled, back, and to tulled again, while traffic
// flows between it, a host with tulled and one with flanneld.
func TestTakeoverBothWays(t *testing.T) {
	requireFlanneld(t)
	for _, network := range flannelNetworks() {
		t.Run(network.name, func(t *testing.T) {
			l := network.newLab(t, 3)
			host, peers := l.Hosts[0], l.Hosts[1:]
			startTulled(t, peers[0])
			neighbour := prepareFlanneld(t, l, peers[1])
			neighbour.start(t, peers[:1])
			f := prepareFlanneld(t, l, host)
			f.start(t, peers)
			if err := l.StartContainers(t.Context()); err != nil {
				t.Fatal(err)
			}
			before := f.announced(t)
			during := func(name string, change func(*testing.T)) {
				var streams []runningStream
				for _, family := range network.families {
					for _, peer := range peers {
						streams = append(streams, startStream(t, host, peer, family, 100), startStream(t, peer, host, family, 100))
					}
				}
				change(t)
				<-time.After(outageTime)
				t.Log(name)
				stopAll(t, streams)
				if diff := cmp.Diff(before, f.announced(t)); diff != "" {
					t.Errorf("%s: lease before (-) and after (+):\n%s", name, diff)
				}
			}
			takeOver := func(t *testing.T) {
				f.stop(t)
				startTulled(t, host)
				f.awaitRemoval(t, peers)
			}
			during("from flanneld to tulled", takeOver)
			during("back to flanneld", func(t *testing.T) {
				if err := host.StopDaemon(); err != nil {
					t.Fatal(err)
				}
				f.start(t, peers)
			})
			during("and to tulled again", takeOver)
			neighbour.stop(t)
		})
	}
}

// awaitRemoval waits until nothing is left of flanneld.
func (f *runningFlanneld) awaitRemoval(t *testing.T, peers []*lab.Host) {
	t.Helper()
	for _, peer := range peers {
		var leftovers string
		if !eventually(5*time.Second, func() bool {
			leftovers = f.leftovers(t, peer)
			return leftovers == ""
		}) {
			t.Errorf("left of flanneld:\n%s", leftovers)
		}
	}
}
