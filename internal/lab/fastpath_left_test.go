//go:build linux

package lab_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tulle/internal/lab"
	"tulle/internal/lab/labtest"
	"tulle/ip"
)

// pinsOf is where tulled on a host pins what it has of the fast path.
func pinsOf(t *testing.T, l *lab.Lab, host *lab.Host) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(host.Namespace().FD(), &st); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(l.Config.Dir, "bpf", fmt.Sprint(st.Ino))
}

// hanging counts the programs that hang on a link by tcx.
func hanging(index int, place uint32) (int, error) {
	query := struct { // linux/bpf.h, BPF_PROG_QUERY
		link, place, flags, attachFlags uint32
		programs                        uint64
		count, _                        uint32
		programFlags, links, linkFlags  uint64
		revision                        uint64
	}{link: uint32(index), place: place}
	if _, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&query)), unsafe.Sizeof(query)); errno != 0 && errno != unix.EINVAL { // before tcx
		return 0, fmt.Errorf("list programs: %w", errno)
	}
	return int(query.count), nil
}

// leftOfFastPath lists what a host has of the fast path: programs on links, filters of tc and their qdiscs, pins.
func leftOfFastPath(t *testing.T, l *lab.Lab, host *lab.Host) (left []string) {
	t.Helper()
	if _, err := os.Lstat(pinsOf(t, l, host)); err == nil {
		left = append(left, "pins")
	}
	if err := host.Do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, link := range links {
			for place, name := range map[uint32]string{onTCXIngress: "ingress", onTCXEgress: "egress"} {
				n, err := hanging(link.Attrs().Index, place)
				if err != nil {
					return err
				}
				if n > 0 {
					left = append(left, fmt.Sprintf("%d programs at %s of %s", n, name, link.Attrs().Name))
				}
			}
			qdiscs, err := netlink.QdiscList(link)
			if err != nil {
				return err
			}
			for _, q := range qdiscs {
				if q.Type() == "clsact" {
					left = append(left, "clsact of "+link.Attrs().Name)
				}
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return left
}

func requireNothingLeft(t *testing.T, l *lab.Lab, host *lab.Host) {
	t.Helper()
	if left := leftOfFastPath(t, l, host); len(left) > 0 {
		t.Errorf("%s still has of the fast path: %q", host, left)
	}
}

// What is in the kernel goes with the wish for it, and no packet is lost.
func TestFastPathIsTakenAway(t *testing.T) {
	for _, way := range []struct {
		name string
		take func(*testing.T, *lab.Lab, *lab.Host)
	}{
		{"off", func(t *testing.T, l *lab.Lab, host *lab.Host) {
			if err := host.StartDaemon("--fast-path=off"); err != nil {
				t.Fatal(err)
			}
			if err := host.WaitReady(t.Context()); err != nil {
				t.Fatal(err)
			}
		}},
		{"cleanup", func(t *testing.T, l *lab.Lab, host *lab.Host) { tulle(t, l, host, "cleanup") }},
	} {
		t.Run(way.name, func(t *testing.T) {
			l := upFastLab(t, lab.Config{Hosts: 2, Containers: 1})
			host := l.Hosts[0]
			streams := fastStreams(t, l, host, l.Hosts[1])
			requireFastStreams(t, fastTime, l.Hosts...)
			if err := host.StopDaemon(); err != nil {
				t.Fatal(err)
			}
			if left := leftOfFastPath(t, l, host); len(left) < 5 {
				t.Errorf("after its end tulled has left of the fast path %q, want pins and programs", left)
			}
			const wouldGo = "the fast path's programs would be removed"
			if plan := tulle(t, l, host, "cleanup", "--dry-run"); !strings.Contains(plan, wouldGo) {
				t.Errorf("cleanup would do %q, want that it says %q", plan, wouldGo)
			}
			way.take(t, l, host)
			requireNothingLeft(t, l, host)
			if way.name == "cleanup" {
				if plan := tulle(t, l, host, "cleanup", "--dry-run"); plan != "" && plan != "\n" {
					t.Errorf("cleanup would do %q, want nothing any more", plan)
				}
				return // there is no way to the peer any more
			}
			was := labtest.FastPath(t, l.Hosts[1]).In
			for _, s := range streams {
				if err := s.AwaitNext(t.Context(), healTimeout); err != nil {
					t.Error(err)
				}
			}
			// The peer's own is as fast as before.
			if !eventually(fastTime, func() bool { return labtest.FastPath(t, l.Hosts[1]).In.FastPackets > was.FastPackets+100 }) {
				t.Errorf("%s: %+v, was %+v, want it fast still", l.Hosts[1], labtest.FastPath(t, l.Hosts[1]).In, was)
			}
			stopAll(t, streams)
			if st := labtest.FastPath(t, host); st.On || st.Reason != "by --fast-path=off" {
				t.Errorf("fast path of %s: %+v", host, st)
			}
			requireMatrix(t, l)
			// And it comes again.
			if err := host.StopDaemon(); err != nil {
				t.Fatal(err)
			}
			startTulled(t, host)
			requireFast(t, host)
			requireFastTransfer(t, host.Containers[0], l.Hosts[1].Containers[0], ip.IPv4, transferMedium)
		})
	}
}
