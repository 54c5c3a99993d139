package facts

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tulle/internal/agent"
	"tulle/internal/doctor"
	"tulle/internal/hostfiles"
)

// As /proc/net/snmp and netstat are: two lines for each protocol (proc_net_snmp(5)).
func TestPairs(t *testing.T) {
	got := map[string]uint64{}
	pairs("Ip: Forwarding ReasmFails\nIp: 1 7\nIcmp: A\nTcp: RtoMin MaxConn\nTcp: 200 -1\nTcpExt: X\n", func(name string, value uint64) { got[name] = value })
	if want := map[string]uint64{"Ip.Forwarding": 1, "Ip.ReasmFails": 7, "Tcp.RtoMin": 200}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// As /proc/net/stat/nf_conntrack is: hexadecimal, a line for each processor.
func TestColumns(t *testing.T) {
	got := map[string]uint64{}
	columns("entries  drop early_drop\n00000010  0000000a 00000001\n00000010  00000002 00000000\n", []string{"drop", "early_drop", "gone"}, func(name string, value uint64) { got[name] = value })
	if want := map[string]uint64{"drop": 12, "early_drop": 1}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestUnescape(t *testing.T) {
	if got, err := unescape(`/run/a\040"b`); err != nil || got != `/run/a "b` {
		t.Errorf("%q, %v", got, err)
	}
}

func TestSizeOf(t *testing.T) {
	for text, want := range map[string]int{"10.5.1.0/24": 253, "10.5.1.0/30": 1, "10.5.1.0/32": 0, "fc00:5:0:1::/120": 254, "fc00:5:0:1::/64": 1<<31 - 1} {
		if got := sizeOf(netip.MustParsePrefix(text)); got != want {
			t.Errorf("%s has %d addresses, want %d", text, got, want)
		}
	}
}

// What a configuration calls, delegates of Tulle's plugin that it does not name too; what is no name of a file in a directory is none.
func TestPlugins(t *testing.T) {
	for text, want := range map[string]string{
		`{"name":"tulle","plugins":[{"type":"tulle"},{"type":"portmap"}]}`:               "[bridge host-local portmap tulle]",
		`{"plugins":[{"type":"flannel","delegate":{"type":"ptp","ipam":{"type":"x"}}}]}`: "[flannel ptp x]",
		`{"type":"bridge","ipam":{"type":"../../etc/passwd"}}`:                           "[bridge]",
		`{`: "[]",
	} {
		file := filepath.Join(t.TempDir(), "a.conflist")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := plugins(file); fmt.Sprint(got) != want {
			t.Errorf("%s calls %v, want %s", text, got, want)
		}
	}
}

// doors are those of a host on which there is nothing.
func doors(t *testing.T) Doors {
	dir := t.TempDir()
	absent := errors.New("no tulled answers")
	return Doors{
		Status:   func(context.Context) (agent.Status, error) { return agent.Status{}, absent },
		Peers:    func(context.Context) (agent.PeerReports, error) { return agent.PeerReports{}, absent },
		Wanted:   func(context.Context) (hostfiles.Wanted, error) { return hostfiles.Wanted{}, absent },
		Absent:   func(err error) bool { return err == absent },
		StateDir: dir, SubnetFile: filepath.Join(dir, "subnet.env"), DockerSocket: filepath.Join(dir, "docker.sock"), CNIConfDir: filepath.Join(dir, "net.d"), CNIDir: filepath.Join(dir, "cni"),
		CNIBin: []string{filepath.Join(dir, "bin")}, ResolvConf: filepath.Join(dir, "resolv.conf"),
	}
}

// On a host with nothing on it the facts are there in time, and say that tulled does not run.
func TestNothingThere(t *testing.T) {
	began := time.Now()
	f := Gather(t.Context(), doors(t), doctor.Question{})
	if took := time.Since(began); took > Patience {
		t.Errorf("took %v", took)
	}
	if f.Daemon.Running || f.Daemon.Err == "" || f.Status != nil || f.Last != nil || !f.File.Missing || f.CNI != nil || f.Docker != nil {
		t.Errorf("%+v", f)
	}
}

// A tulled that hangs costs the other facts nothing, nor does a caller that ends early.
func TestHanging(t *testing.T) {
	d := doors(t)
	d.Status = func(ctx context.Context) (agent.Status, error) { <-ctx.Done(); return agent.Status{}, ctx.Err() }
	if err := os.WriteFile(d.ResolvConf, []byte("# none\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := Gather(t.Context(), d, doctor.Question{})
	if !f.Daemon.Hangs || !slices.Equal(f.Resolvers, []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("fe80::1")}) || f.Fill.Neighbors.V4 == nil {
		t.Errorf("%+v", f)
	}
}

// What others write is cut.
func TestTextsAreBounded(t *testing.T) {
	long := strings.Repeat("é", doctor.MaxText)
	if got := cut(long); len(got) > doctor.MaxText+3 || !strings.HasSuffix(got, "é...") {
		t.Errorf("%d bytes", len(got))
	}
	f := Gather(t.Context(), doors(t), doctor.Question{Of: long})
	for _, u := range f.Unread {
		if len(u.Why) > doctor.MaxText+3 {
			t.Errorf("%d bytes of %s", len(u.Why), u.Part)
		}
	}
}
