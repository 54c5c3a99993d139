//go:build linux

package lab_test

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"testing"
	"time"

	"tulle/internal/fabric"
	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/internal/trouble"
	"tulle/ip"
)

// daemonStatus is the part of tulled's status that these tests read.
type daemonStatus struct {
	Ready    bool
	Reason   string
	Troubles trouble.List
}

// Keys that make no sense cost themselves alone, and every host reports them.
func TestPoisonedKeys(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 3, Containers: 1, Families: []ip.Family{ip.IPv4}})
	lease := `{"PublicIP":"172.30.1.200","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:c8"}}`
	keys := map[string]string{
		l.Etcd.Key("subnets/garbage"):         "not JSON",
		l.Etcd.Key("subnets-x"):               "a sibling",
		l.Etcd.Key("subnets/192.168.77.0-24"): lease,
		l.Etcd.Key("subnets/0.0.0.0-0"):       lease,
	}
	streams := ring(t, l, ip.IPv4, 500)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if err := l.Etcd.Put(t.Context(), key, keys[key]); err != nil {
			t.Fatal(err)
		}
	}
	for _, host := range l.Hosts {
		awaitProblems(t, host, slices.Collect(maps.Keys(keys)))
		if ready, reason := host.Ready(t.Context()); !ready {
			t.Errorf("%s is not ready with poisoned keys in the store: %s", host, reason)
		}
	}
	<-time.After(outageTime)
	for key := range keys {
		if err := l.Etcd.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	for _, host := range l.Hosts {
		awaitProblems(t, host, nil)
	}
	stopAll(t, streams)
	requireMatrix(t, l)
}

// awaitProblems waits until the daemon reports problems with exactly these keys.
func awaitProblems(t *testing.T, host *lab.Host, keys []string) {
	t.Helper()
	var want []string
	for _, key := range keys {
		want = append(want, path.Base(key))
	}
	slices.Sort(want)
	var got []string
	if eventually(5*time.Second, func() bool {
		var status daemonStatus
		if err := host.Status(t.Context(), &status); err != nil {
			t.Fatal(err)
		}
		got = nil
		for _, problem := range status.Troubles.Of(trouble.KeyUnreadable, trouble.PeerRefused, trouble.ConfigWarning, trouble.StoreSuddenLoss) {
			got = append(got, path.Base(problem.Subject))
		}
		slices.Sort(got)
		return slices.Equal(got, want)
	}) {
		return
	}
	t.Errorf("%s reports problems with %q, want %q", host, got, want)
}

// runningStream is a stream with a name for messages.
type runningStream struct {
	name string
	*lab.Stream
}

// ring starts a stream from the first container of each host to that of the
// next one.
func ring(t *testing.T, l *lab.Lab, family ip.Family, perSecond int) []runningStream {
	t.Helper()
	var streams []runningStream
	for i, host := range l.Hosts {
		streams = append(streams, startStream(t, host, l.Hosts[(i+1)%len(l.Hosts)], family, perSecond))
	}
	return streams
}

func startStream(t *testing.T, from, to *lab.Host, family ip.Family, perSecond int) runningStream {
	t.Helper()
	stream, err := lab.StartStream(t.Context(), lab.StreamConfig{
		From:      from.Containers[0],
		To:        to.Containers[0],
		Family:    family,
		PerSecond: perSecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	// After Stop this does nothing.
	t.Cleanup(func() { stream.Stop() })
	return runningStream{name: fmt.Sprintf("%s from %s to %s", family, from, to), Stream: stream}
}

// stopAll fails the test if a stream has lost a packet. A lease that its host makes anew within fabric.LeaseGrace costs none; under the race detector, or on
// a busy machine, the host may need longer, and the packets in between are lost.
func stopAll(t *testing.T, streams []runningStream) {
	t.Helper()
	for _, stream := range streams {
		report := stream.Stop()
		t.Logf("%s: %v", stream.name, report)
		slow := labtest.Raced() && report.LongestGap < labtest.Limit(healTimeout) || labtest.Busy() && report.LongestGap < labtest.Limit(2*fabric.LeaseGrace)
		if report.Lost != 0 && !slow || report.Sent == 0 {
			t.Errorf("%s: %v, want none lost", stream.name, report)
		}
	}
}
