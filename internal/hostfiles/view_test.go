package hostfiles

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tulle/internal/hostfiles/hostfilestest"
	"tulle/internal/sealed"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

// crowd is a view with n leases.
func crowd(t testing.TB, n int) subnet.Set {
	t.Helper()
	network, _, err := flannel.ParseNetwork([]byte(`{"Network":"10.0.0.0/8"}`), 1)
	if err != nil {
		t.Fatal(err)
	}
	set := subnet.Set{Revision: subnet.Revision(n + 1), Network: &network}
	for i := range n {
		l := &subnet.Lease{Created: subnet.Revision(i), Revision: subnet.Revision(i)}
		l.Subnets.V4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 64 + byte(i>>8), byte(i), 0}), 24)
		l.Attrs = subnet.Attrs{Node: fmt.Sprint("n", i), Instance: "x", BackendType: "vxlan"}
		l.Attrs.Public.V4 = netip.AddrFrom4([4]byte{172, 30, 1 + byte(i>>8), byte(i)})
		l.Attrs.BackendData.V4 = fmt.Appendf(nil, `{"VNI":1,"VtepMAC":"02:00:00:01:%02x:%02x"}`, i>>8, i&0xff)
		set.Leases = append(set.Leases, l)
	}
	return set
}

func TestViewIsWrittenAtIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, viewFile)
		v := NewViewFile(dir, Origin{}, func(error) {})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- v.Run(ctx) }()
		network := &subnet.Network{}
		set := func(revision subnet.Revision) subnet.Set {
			l := &subnet.Lease{Revision: revision, Attrs: subnet.Attrs{Node: "h1"}}
			l.Subnets.V4 = netip.MustParsePrefix("10.5.1.0/24")
			return subnet.Set{Revision: revision, Leases: []*subnet.Lease{l}}
		}
		written := func(want bool, what string) {
			t.Helper()
			synctest.Wait()
			err := os.Remove(path)
			if (err == nil) != want {
				t.Errorf("%s: written: %v, want %v", what, err == nil, want)
			}
		}
		v.Offer(set(1), network, &subnet.Memory{})
		written(true, "the first")
		v.Offer(set(2), network, &subnet.Memory{})
		<-time.After(ViewEvery - time.Second)
		v.Offer(set(3), network, &subnet.Memory{})
		written(false, "soon after it")
		<-time.After(2 * time.Second)
		if k, err := readView(dir); err != nil || k.Revision != 3 {
			t.Errorf("view %+v, %v, want the newest", k, err)
		}
		written(true, "later")
		<-time.After(time.Minute)
		v.Offer(set(3), network, &subnet.Memory{})
		<-time.After(time.Minute)
		written(false, "the same")
		v.Offer(set(4), network, &subnet.Memory{})
		written(true, "after a while")
		<-time.After(time.Minute)

		// What could not be written is tried again.
		hostfilestest.Write(t, filepath.Join(path, "x"), "")
		v.Offer(set(5), network, &subnet.Memory{})
		synctest.Wait()
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		written(false, "in a bad folder")
		<-time.After(ViewEvery + time.Second)
		written(true, "in a good one")
		v.Offer(set(6), network, &subnet.Memory{})
		cancel()
		if err := <-done; err == nil {
			t.Error("run ended without its context's error")
		}
		written(true, "at the end")
	})
}

func TestViewThatUnpacksWithoutEnd(t *testing.T) {
	packed := hostfilestest.Zip(t, strings.Repeat(" ", 1<<20))
	if _, err := unpack([]byte(packed), 1<<20-1); err == nil || !strings.Contains(err.Error(), "more than 1048575 bytes when unpacked") {
		t.Errorf("error %v, want that it is too large", err)
	}
	if _, err := unpack([]byte(packed), 1<<20); !errors.Is(err, sealed.ErrNone) {
		t.Errorf("error %v, want it read to its end", err)
	}
}

// BenchmarkCacheView writes and reads a view of ten thousand leases.
func BenchmarkCacheView(b *testing.B) {
	const leases = 10_000
	set := crowd(b, leases)
	dir := b.TempDir()
	for b.Loop() {
		view := newCachedView(Origin{}, set, *set.Network, time.Time{})
		if err := view.write(dir); err != nil {
			b.Fatal(err)
		}
		if got, err := readView(dir); err != nil || len(got.Leases) != leases {
			b.Fatal(err)
		}
	}
	info, err := os.Stat(filepath.Join(dir, viewFile))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(info.Size()), "bytes")
}
