package hostfiles

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"

	"tulle/internal/atomicfile"
	"tulle/internal/regularfile"
	"tulle/internal/sealed"
	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

// recordFile remembers, below the state directory, what this host held and owned, across restarts and reboots.
const recordFile = "host.json"

// maxRecord bounds it, in bytes: one lease, and a few names.
const maxRecord = 1 << 20

// garbledFile is where a record goes that cannot be read.
const garbledFile = "host.json.garbled"

// deviceName matches the names that backends give to devices.
var deviceName = regexp.MustCompile(`^flannel(-v6\.[0-9]{1,8}|\.([0-9]{1,8}|ipip))$`)

// errGarbled tells that the record is there and makes no sense.
var errGarbled = errors.New("not a record of tulled")

// Record is what one run leaves for the next, and for cleanup.
type Record struct {
	Subnets     string         `json:"subnets,omitempty"` // as in the lease's key
	Attrs       *flannel.Attrs `json:"attrs,omitempty"`   // as in the lease's value
	Established *Established   `json:"uplink,omitempty"`
	Links       []string       `json:"links,omitempty"` // every link that may exist because of Tulle
	Networks    []netip.Prefix `json:"networks,omitempty"`
}

// Scope is everything that Tulle may own on this host by the record.
func (r Record) Scope() ip.Scope { return ip.Scope{Links: r.Links, Networks: r.Networks} }

// Lease is the lease that was held last; zero if none was.
func (r Record) Lease() subnet.Lease {
	subnets, err := subnet.ParseKey(r.Subnets)
	if err != nil || r.Attrs == nil {
		return subnet.Lease{}
	}
	return subnet.Lease{Subnets: subnets, Attrs: subnet.Attrs(*r.Attrs)}
}

// ReadRecord reads the record below dir; a host without one has an empty record.
func ReadRecord(dir string) (Record, error) {
	path := filepath.Join(dir, recordFile)
	data, err := regularfile.Read(path, maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, nil
	}
	if errors.Is(err, regularfile.ErrUnfit) {
		return Record{}, fmt.Errorf("read record: %w: %w", errGarbled, err)
	}
	if err != nil {
		return Record{}, fmt.Errorf("read record: %w", err)
	}
	var r Record
	err = sealed.Check(data)
	if err == nil || errors.Is(err, sealed.ErrNone) { // earlier versions wrote none
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		return Record{}, fmt.Errorf("read record: %s is %w: %w: restore it or delete it; without it only what the present configuration names is tidied up", path, errGarbled, err)
	}
	// What it names will be deleted, and another user of the directory shall not choose what.
	r.Links = slices.DeleteFunc(r.Links, func(name string) bool { return !deviceName.MatchString(name) })
	return r, nil
}

// networksDir is the directory below the state directory where each network but the one without a name has one of its own.
const networksDir = "networks"

// NetworkDir is where a network of a host has its files, below the state directory.
func NetworkDir(stateDir, network string) string {
	if network == "" {
		return stateDir
	}
	return filepath.Join(stateDir, networksDir, network)
}

// networkName matches the names of networks.
var networkName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)

// CheckNetworkName returns an error for what is no name of a network: it is in names of files and tables.
func CheckNetworkName(name string) error {
	if name != "" && !networkName.MatchString(name) {
		return fmt.Errorf("network name %q: want up to 31 small letters, digits and hyphens", name)
	}
	return nil
}

// Recorded returns the names of the networks that have, or had, files below the state directory. The one without a name is the first.
func Recorded(stateDir string) ([]string, error) {
	names := []string{""}
	entries, err := os.ReadDir(filepath.Join(stateDir, networksDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for records: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() && networkName.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Established is the uplink that was established last. Its addresses are those of the interface; behind NAT peers send to others.
type Established struct {
	Link  string       `json:"link"`
	Addrs []netip.Addr `json:"addresses"`
}

// RecordFile is the record as it is on disk.
type RecordFile struct {
	dir    string
	record Record
}

// OpenRecord reads the record, and sets one aside that is garbled: the store knows the lease by the node id, and the
// rest only says what earlier configurations may have left behind.
func OpenRecord(dir string, log *slog.Logger) (*RecordFile, error) {
	r, err := ReadRecord(dir)
	if errors.Is(err, errGarbled) {
		aside := filepath.Join(dir, garbledFile)
		err = errors.Join(err, os.Rename(filepath.Join(dir, recordFile), aside))
		log.Warn("record set aside: what earlier configurations left on this host is not tidied up", "to", aside, "err", err)
		r, err = Record{}, nil
	}
	return &RecordFile{dir: dir, record: r}, err
}

// Record is what the file holds.
func (r *RecordFile) Record() Record { return r.record }

// Extend adds the scope to what the record names, before anything in it is made.
func (r *RecordFile) Extend(scope ip.Scope) error {
	next := r.record
	all := next.Scope().Join(scope)
	next.Links, next.Networks = all.Links, all.Networks
	if len(next.Links) == len(r.record.Links) && len(next.Networks) == len(r.record.Networks) {
		return nil
	}
	return r.write(next)
}

// Uplink is the uplink that was established last. Of one that was not yet, or is of a version that did not record it, only the addresses that peers send
// to are known, which may be those of a NAT.
func (r Record) Uplink() ip.Uplink {
	public := r.Lease().Attrs.Public
	if r.Established == nil {
		return ip.Uplink{Addr: public, Public: public}
	}
	up := ip.Uplink{Link: r.Established.Link}
	for _, a := range r.Established.Addrs {
		up.Addr.Set(ip.FamilyOf(a), a)
	}
	up.Public = up.Addr // what the lease announced may have been another's, or a NAT's that the operator names no longer
	return up
}

// Remember records the lease, and the uplink if one is established.
func (r *RecordFile) Remember(l subnet.Lease, established ip.Uplink) error {
	next := r.record
	next.Subnets = subnet.KeyOf(l.Subnets)
	next.Attrs = (*flannel.Attrs)(&l.Attrs)
	next.Established = nil
	if established.Link != "" {
		next.Established = &Established{Link: established.Link, Addrs: ip.Addrs(established.Addr)}
	}
	if reflect.DeepEqual(next.Established, r.record.Established) && r.record.Attrs != nil && next.Subnets == r.record.Subnets && l.Attrs.Equal(subnet.Attrs(*r.record.Attrs)) {
		return nil
	}
	return r.write(next)
}

func (r *RecordFile) write(next Record) error {
	data, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(r.dir, recordFile), sealed.Seal(data), 0o600); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	r.record = next
	return nil
}
