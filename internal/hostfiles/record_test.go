package hostfiles

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tulle/internal/hostfiles/hostfilestest"
	"tulle/internal/sealed"
	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

var netipCompare = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func TestRecordGrowsAndIsReadBack(t *testing.T) {
	r := RecordFile{dir: t.TempDir()}
	lease := subnet.Lease{Attrs: subnet.Attrs{Node: "h1", Instance: "x", BackendType: "vxlan"}}
	lease.Subnets.V4 = netip.MustParsePrefix("10.5.1.0/24")
	lease.Attrs.Public.V4 = netip.MustParseAddr("172.30.0.1")
	lease.Attrs.BackendData.V4 = []byte(`{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}`)
	network := netip.MustParsePrefix("10.5.0.0/16")
	uplink := ip.Uplink{Link: "eth0", Addr: ip.Dual[netip.Addr]{V4: netip.MustParseAddr("10.0.2.15")}, Public: lease.Attrs.Public} // behind NAT
	for _, scope := range []ip.Scope{
		{Links: []string{"flannel.1"}, Networks: []netip.Prefix{network}},
		{Links: []string{"flannel.2", "flannel.1"}, Networks: []netip.Prefix{network}},
	} {
		if err := r.Extend(scope); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Remember(lease, uplink); err != nil {
		t.Fatal(err)
	}
	got, err := ReadRecord(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	want := Record{Subnets: "10.5.1.0-24", Attrs: (*flannel.Attrs)(&lease.Attrs), Established: &Established{Link: "eth0", Addrs: []netip.Addr{netip.MustParseAddr("10.0.2.15")}},
		Links: []string{"flannel.1", "flannel.2"}, Networks: []netip.Prefix{network}}
	if diff := cmp.Diff(want, got, netipCompare); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(lease, got.Lease(), netipCompare); diff != "" {
		t.Errorf("lease (-want +got):\n%s", diff)
	}
	uplink.Public = uplink.Addr
	if got.Uplink() != uplink {
		t.Errorf("uplink %+v, want %+v", got.Uplink(), uplink)
	}

	// What is known already is not written again.
	if err := os.Remove(filepath.Join(r.dir, recordFile)); err != nil {
		t.Fatal(err)
	}
	if err := r.Extend(ip.Scope{Links: []string{"flannel.1"}}); err != nil {
		t.Fatal(err)
	}
	if err := r.Remember(lease, uplink); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadRecord(r.dir); err != nil || got.Subnets != "" {
		t.Errorf("written again: %+v, %v", got, err)
	}
}

func TestRecordOfAHostWithoutOne(t *testing.T) {
	if r, err := ReadRecord(filepath.Join(t.TempDir(), "none")); err != nil || r.Lease().Subnets != (subnet.Subnets{}) {
		t.Errorf("%+v, %v", r, err)
	}
	dir := t.TempDir()
	hostfilestest.Write(t, filepath.Join(dir, recordFile), `{"subnets":"nonsense","attrs":{}}`)
	if r, err := ReadRecord(dir); err != nil || r.Lease().Subnets != (subnet.Subnets{}) {
		t.Errorf("%+v, %v, want no lease", r, err)
	}
	hostfilestest.Write(t, filepath.Join(dir, recordFile), `{`)
	if _, err := ReadRecord(dir); err == nil {
		t.Error("a garbled record is no error for those who only read it")
	}
}

func TestWantedIsWrittenWhenItChanges(t *testing.T) {
	dir := t.TempDir()
	w := NewWantedFile(dir, func() {})
	state := ip.State{Routes: []ip.Route{{Dst: netip.MustParsePrefix("10.5.2.0/24"), Via: netip.MustParseAddr("172.30.0.2"), Link: "eth0", Metric: 7, Protocol: ip.Protocol}}}
	scope := ip.Scope{Links: []string{"flannel.1"}, Paths: []netip.Addr{netip.MustParseAddr("172.30.0.2")}}
	if _, err := ReadWanted(dir); !os.IsNotExist(err) && err == nil {
		t.Error("there is nothing to read, and no error")
	}
	w.Set(0, scope, state)
	w.Update()
	got, err := ReadWanted(dir)
	if err != nil || !got.State.Equal(state) || len(got.Scope.Links) != 1 || len(got.Scope.Paths) != 0 || got.Time.IsZero() {
		t.Errorf("read back %+v, %v", got, err)
	}
	if err := os.Remove(filepath.Join(dir, wantedFile)); err != nil {
		t.Fatal(err)
	}
	w.Update()
	if _, err := ReadWanted(dir); err == nil {
		t.Error("the same was written again")
	}
}

// Who may write to the state directory does not choose which interfaces tulled deletes.
func TestRecordNamesDevicesOnly(t *testing.T) {
	dir := t.TempDir()
	text := `{"links":["flannel.1","wg-vpn","flannel-v6.16777215","flannel.ipip","flannel-v6.ipip","eth0","lo","flannel.","xflannel.1","flannel.1\u001b"]}`
	if err := os.WriteFile(filepath.Join(dir, recordFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := ReadRecord(dir)
	if want := []string{"flannel.1", "flannel-v6.16777215", "flannel.ipip"}; err != nil || !slices.Equal(r.Scope().Links, want) {
		t.Errorf("links %q, %v, want %q", r.Scope().Links, err, want)
	}
}

func TestRecordIsSealed(t *testing.T) {
	r := RecordFile{dir: t.TempDir()}
	if err := r.write(Record{Subnets: "10.5.1.0-24"}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(r.dir, recordFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	hostfilestest.Write(t, path, string(bytes.Replace(data, []byte("10.5.1"), []byte("10.5.2"), 1)))
	if _, err := ReadRecord(r.dir); !errors.Is(err, errGarbled) || !errors.Is(err, sealed.ErrBroken) {
		t.Errorf("%v, want a broken checksum", err)
	}
	hostfilestest.Write(t, path, `{"subnets":"10.5.3.0-24"}`) // of an earlier version
	if got, err := ReadRecord(r.dir); err != nil || got.Subnets != "10.5.3.0-24" {
		t.Errorf("%+v, %v", got, err)
	}
}
