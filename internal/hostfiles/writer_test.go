package hostfiles

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tulle/ip"
)

// What takes long to write is written rarely, and the newest of it all the same, at the latest when the writer ends.
func TestWriterIsSpaced(t *testing.T) {
	for name, row := range map[string]struct {
		takes  time.Duration
		writes int64 // in a minute
	}{
		"at once":   {0, 60},
		"long":      {100 * time.Millisecond, 3},
		"very long": {10 * time.Second, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWriter(time.Second, func(error) {})
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() { ended <- w.Run(ctx) }()
				var writes atomic.Int64
				newest := 0
				for n := range 600 {
					w.put(func() error {
						<-time.After(row.takes)
						writes.Add(1)
						newest = n
						return nil
					})
					<-time.After(100 * time.Millisecond)
				}
				if got := writes.Load(); got < row.writes-1 || got > row.writes+1 {
					t.Errorf("%d writes in a minute, want %d", got, row.writes)
				}
				cancel()
				<-ended
				if newest != 599 {
					t.Errorf("number %d was written last, want the newest", newest)
				}
			})
		})
	}
}

// What is wanted is not even copied before it is due, and is written at the end.
func TestWantedFileWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		w := NewWantedFile(dir, func() {})
		metric := func() uint32 {
			t.Helper()
			wanted, err := ReadWanted(dir)
			if err != nil {
				t.Fatal(err)
			}
			return wanted.State.Routes[0].Metric
		}
		for n := range uint32(3) {
			w.Set(0, ip.Scope{}, ip.State{Routes: []ip.Route{{Dst: netip.MustParsePrefix("10.5.2.0/24"), Link: "eth0", Metric: n}}})
			w.Update()
		}
		if n := metric(); n != 0 || w.newest != nil {
			t.Errorf("number %d is on disk, and another is put: %v; want the first alone", n, w.newest != nil)
		}
		w.Flush()
		if n := metric(); n != 2 {
			t.Errorf("number %d is on disk in the end, want the newest", n)
		}
	})
}
