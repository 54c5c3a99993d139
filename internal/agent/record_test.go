package agent

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tulle/ip"
	"tulle/subnet"
)

var netipCompare = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func TestRecordGrowsAndIsReadBack(t *testing.T) {
	r := recorded{dir: t.TempDir()}
	lease := subnet.Lease{Attrs: subnet.Attrs{Node: "h1", Instance: "x", BackendType: "vxlan"}}
	lease.Subnets.V4 = netip.MustParsePrefix("10.5.1.0/24")
	lease.Attrs.Public.V4 = netip.MustParseAddr("172.30.0.1")
	lease.Attrs.BackendData.V4 = []byte(`{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}`)
	network := netip.MustParsePrefix("10.5.0.0/16")
	for _, scope := range []ip.Scope{
		{Links: []string{"flannel.1"}, Networks: []netip.Prefix{network}},
		{Links: []string{"flannel.2", "flannel.1"}, Networks: []netip.Prefix{network}},
	} {
		if err := r.extend(scope); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.remember(lease); err != nil {
		t.Fatal(err)
	}
	got, err := ReadRecord(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	want := Record{Subnets: "10.5.1.0-24", Attrs: &lease.Attrs, Links: []string{"flannel.1", "flannel.2"}, Networks: []netip.Prefix{network}}
	if diff := cmp.Diff(want, got, netipCompare); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(lease, got.lease(), netipCompare); diff != "" {
		t.Errorf("lease (-want +got):\n%s", diff)
	}

	// What is known already is not written again.
	if err := os.Remove(filepath.Join(r.dir, recordFile)); err != nil {
		t.Fatal(err)
	}
	if err := r.extend(ip.Scope{Links: []string{"flannel.1"}}); err != nil {
		t.Fatal(err)
	}
	if err := r.remember(lease); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadRecord(r.dir); err != nil || got.Subnets != "" {
		t.Errorf("written again: %+v, %v", got, err)
	}
}

func TestRecordOfAHostWithoutOne(t *testing.T) {
	if r, err := ReadRecord(filepath.Join(t.TempDir(), "none")); err != nil || r.lease().Subnets != (subnet.Subnets{}) {
		t.Errorf("%+v, %v", r, err)
	}
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, recordFile), `{"subnets":"nonsense","attrs":{}}`)
	if r, err := ReadRecord(dir); err != nil || r.lease().Subnets != (subnet.Subnets{}) {
		t.Errorf("%+v, %v, want no lease", r, err)
	}
	writeFile(t, filepath.Join(dir, recordFile), `{`)
	if _, err := ReadRecord(dir); err == nil {
		t.Error("a garbled record is no error for those who only read it")
	}
}

func TestWantedIsWrittenWhenItChanges(t *testing.T) {
	dir := t.TempDir()
	w := newWanted(dir, func() {})
	state := ip.State{Routes: []ip.Route{{Dst: netip.MustParsePrefix("10.5.2.0/24"), Via: netip.MustParseAddr("172.30.0.2"), Link: "eth0", Metric: 7, Protocol: ip.Protocol}}}
	scope := ip.Scope{Links: []string{"flannel.1"}, Paths: []netip.Addr{netip.MustParseAddr("172.30.0.2")}}
	if _, err := ReadWanted(dir); !os.IsNotExist(err) && err == nil {
		t.Error("there is nothing to read, and no error")
	}
	w.note(scope, state)
	w.update()
	got, err := ReadWanted(dir)
	if err != nil || !got.State.Equal(state) || len(got.Scope.Links) != 1 || len(got.Scope.Paths) != 0 || got.Time.IsZero() {
		t.Errorf("read back %+v, %v", got, err)
	}
	if err := os.Remove(filepath.Join(dir, wantedFile)); err != nil {
		t.Fatal(err)
	}
	w.note(scope, state)
	w.update()
	if _, err := ReadWanted(dir); err == nil {
		t.Error("the same was written again")
	}
}

// Who may write to the state directory does not choose which interfaces tulled deletes.
func TestRecordNamesDevicesOnly(t *testing.T) {
	dir := t.TempDir()
	text := `{"links":["flannel.1","wg-vpn","flannel-v6.16777215","eth0","lo","flannel.","xflannel.1","flannel.1\u001b"]}`
	if err := os.WriteFile(filepath.Join(dir, recordFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := ReadRecord(dir)
	if want := []string{"flannel.1", "flannel-v6.16777215"}; err != nil || !slices.Equal(r.Scope().Links, want) {
		t.Errorf("links %q, %v, want %q", r.Scope().Links, err, want)
	}
}
