package kernel

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"tulle/ip"
)

func TestEchoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entry := func(host string) ip.FDB {
			return ip.FDB{Link: "flannel.1", MAC: ip.MAC{2, 0, 0, 0, 0, 1}, Dst: netip.MustParseAddr(host)}
		}
		a, b := entry("192.0.2.1"), entry("192.0.2.2")
		const link = 7
		k := &Kernel{}
		heeded := func(what string, want bool, typ uint16, f ip.FDB, more ...func(*batch)) {
			t.Helper()
			var m batch
			m.begin(typ, 0, neighborHeader(unix.AF_BRIDGE, link, unix.NUD_PERMANENT|unix.NUD_NOARP, unix.NTF_SELF)...)
			m.attr(unix.NDA_LLADDR, f.MAC[:]...)
			if f.Dst.IsValid() {
				m.attrAddr(unix.NDA_DST, f.Dst)
			}
			for _, attr := range more {
				attr(&m)
			}
			if got := k.concernsNeighbor(message{typ: typ, data: m.buf[unix.SizeofNlMsghdr:]}); got != want {
				t.Errorf("%s: heeded %t, want %t", what, got, want)
			}
		}
		k.echoes.expectFDB(ip.Op{Verb: ip.Add, New: a}, link)
		heeded("made", false, unix.RTM_NEWNEIGH, a)
		heeded("made, told without where it leads", false, unix.RTM_NEWNEIGH, ip.FDB{MAC: a.MAC})
		heeded("made with a port of its own", true, unix.RTM_NEWNEIGH, a, func(m *batch) { m.attr(unix.NDA_PORT, 0, 1) })
		heeded("deleted by others", true, unix.RTM_DELNEIGH, a)
		k.echoes.expectFDB(ip.Op{Verb: ip.Replace, New: b, Old: a}, link)
		heeded("replaced", false, unix.RTM_NEWNEIGH, b)
		heeded("replaced by others with what it was", true, unix.RTM_NEWNEIGH, a)
		k.echoes.expectFDB(ip.Op{Verb: ip.Delete, Old: b}, link)
		heeded("deleted", false, unix.RTM_DELNEIGH, b)
		heeded("made by others", true, unix.RTM_NEWNEIGH, b)
		<-time.After(2*echoLife + 1)
		heeded("deleted by others long after", true, unix.RTM_DELNEIGH, b)
	})
}
