//go:build linux

package lab_test

import (
	"os"
	"strings"
	"testing"

	"tulle/internal/agent"
	"tulle/internal/lab"
	"tulle/internal/trouble"
	"tulle/ip"
)

type fastStatus struct {
	Ready    bool
	Reason   string
	FastPath agent.FastPathStatus
	Troubles trouble.List
}

// fastPath is how a host's fast path stands.
func fastPath(t *testing.T, host *lab.Host) fastStatus {
	t.Helper()
	var st fastStatus
	if err := host.Status(t.Context(), &st); err != nil {
		t.Fatal(err)
	}
	return st
}

// A daemon has the traffic between containers of two hosts take the fast path, tells of it, stops it for a while and for good, and no packet is lost.
func TestFastPath(t *testing.T) {
	for _, backend := range bothBackends() {
		t.Run(backend, func(t *testing.T) {
			l := upLab(t, lab.Config{Hosts: 2, Containers: 1, Backend: map[string]any{"Type": backend}, FastPath: "on"})
			requireMatrix(t, l)
			host, peer := l.Hosts[0], l.Hosts[1]
			if st := fastPath(t, host); !st.FastPath.On {
				if os.Getenv("CI") == "" {
					t.Skipf("needs a fast path: %s", st.FastPath.Reason)
				}
				t.Fatalf("it is off: %s, %v", st.FastPath.Reason, st.Troubles.All)
			}
			if !eventually(healTimeout, func() bool { return fastPath(t, host).FastPath.Ports == 1 }) {
				t.Fatalf("it is not on the container's link: %+v", fastPath(t, host))
			}
			if st := fastPath(t, host); !st.Ready || st.Troubles.Has(trouble.UplinkFiltered) || st.Troubles.Has(trouble.DeviceFiltered) || st.Troubles.Has(trouble.FastPathFailed) {
				t.Errorf("ready %t (%s), troubles %+v", st.Ready, st.Reason, st.Troubles.All)
			}
			var streams []*lab.Stream
			for _, family := range ip.Families() {
				s, err := lab.StartStream(t.Context(), lab.StreamConfig{From: host.Containers[0], To: peer.Containers[0], Family: family, PerSecond: 500})
				if err != nil {
					t.Fatal(err)
				}
				streams = append(streams, s)
			}
			for _, h := range l.Hosts {
				way, other := "out", peer.Name
				if h == peer {
					way, other = "in", host.Name
				}
				if !eventually(healTimeout, func() bool { return strings.Count(tulle(t, l, h, "fast-path", "flows"), way+" ") >= len(streams) }) {
					t.Errorf("flows of %s:\n%s", h, tulle(t, l, h, "fast-path", "flows"))
				}
				if peers := tulle(t, l, h, "fast-path", "peers"); !strings.Contains(peers, "\n"+other+" ") {
					t.Errorf("peers of %s:\n%s", h, peers)
				}
			}
			if status := tulle(t, l, host, "status"); !strings.Contains(status, "\nfast path on (") {
				t.Errorf("status:\n%s", status)
			}
			if plan := tulle(t, l, host, "plan"); plan != "" {
				t.Errorf("plan of a host at rest:\n%s", plan)
			}
			tulle(t, l, host, "fast-path", "off", "--for", "10m")
			still := func() bool {
				before := fastPath(t, host).FastPath
				var after agent.FastPathStatus
				return eventually(healTimeout, func() bool {
					after = fastPath(t, host).FastPath
					return after.Out.SlowPackets > before.Out.SlowPackets+100
				}) && after.Out.FastPackets == before.Out.FastPackets
			}
			if !eventually(healTimeout, still) {
				t.Error("packets are fast in spite of the pause")
			}
			tulle(t, l, host, "fast-path", "on")
			before := fastPath(t, host).FastPath.Out.FastPackets
			if !eventually(healTimeout, func() bool { return fastPath(t, host).FastPath.Out.FastPackets > before+100 }) {
				t.Error("packets are not fast after the pause")
			}
			tulle(t, l, host, "fast-path", "flush")
			if st := fastPath(t, host).FastPath; st.Raised["flush"] == 0 {
				t.Errorf("flushes %v, want one", st.Raised)
			}
			if err := host.StopDaemon(); err != nil {
				t.Fatal(err)
			}
			if err := host.StartDaemon("--fast-path=off"); err != nil {
				t.Fatal(err)
			}
			if err := host.WaitReady(t.Context()); err != nil {
				t.Fatal(err)
			}
			if st := fastPath(t, host); st.FastPath.On || st.FastPath.Reason == "" || st.Troubles.Has(trouble.FastPathUnavailable) || st.Troubles.Has(trouble.UplinkFiltered) {
				t.Errorf("after --fast-path=off: %+v, %+v", st.FastPath, st.Troubles.All)
			}
			for i, s := range streams {
				if r := s.Stop(); r.Lost > 0 || r.SendError != nil {
					t.Errorf("%s: %s", ip.Families()[i], r)
				}
			}
			requireMatrix(t, l)
		})
	}
}
