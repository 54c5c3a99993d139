package docker

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"tulle/subnet"
)

// usualAddress is what Docker gives docker0 unless it is taken or configured otherwise.
const usualAddress = "172.17.0.1/16"

// Configured reports whether the file has settings of Configure's.
func (f File) Configured() (bool, error) {
	r, err := f.readRecord()
	return r != nil && !r.Leaving, err
}

// Remember notes the address that docker0 had before it was configured: once it is known, it stays.
func (f File) Remember(docker0 []netip.Prefix) error {
	r, err := f.readRecord()
	if r == nil || err != nil || r.Former.IsValid() {
		return err
	}
	i := slices.IndexFunc(docker0, func(a netip.Prefix) bool { return a.Addr().Is4() && !slices.Contains(r.Given, a.Masked()) })
	if i < 0 {
		return nil
	}
	r.Former = docker0[i]
	return f.writeRecord(r)
}

// Unconfigure undoes every Configure: the file becomes what it was, to the byte, and goes away if there was none. If
// somebody has edited it since, their edits stay, and only what Configure set and they left alone is put back.
//
// Docker stores what docker0 had last, and goes on with that unless there is a bip. So if docker0 holds a lease, the file keeps
// a bip, the address that docker0 had before, and leaving is true: call it again once Docker has restarted.
func (f File) Unconfigure(docker0 []netip.Prefix) (changes []Change, leaving bool, err error) {
	if err := f.begin(); err != nil {
		return nil, false, err
	}
	r, err := f.readRecord()
	if r == nil || err != nil {
		return nil, false, err
	}
	if r.holds(docker0) {
		changes, err = f.leave(r)
		return changes, true, err
	}
	if changes, err = f.restore(r); err != nil {
		return nil, false, err
	}
	return changes, false, remove(f.recordPath(), f.Backup())
}

// leave makes docker0 let go of the lease when Docker restarts, and keeps what Unconfigure needs then.
func (f File) leave(r *record) (changes []Change, err error) {
	addressed, err := f.addressed(r)
	if err != nil {
		return nil, err
	}
	if addressed {
		changes, err = f.restore(r)
	} else {
		changes, err = f.configure([]Setting{{"bip", r.formerAddress()}}, subnet.Subnets{}, true, "")
	}
	if err != nil {
		return nil, err
	}
	if r, err = f.readRecord(); err != nil {
		return nil, err
	}
	r.Leaving = true
	return changes, f.writeRecord(r)
}

// addressed reports whether docker0 gets another address by the former file, or by what somebody has put in since.
func (f File) addressed(r *record) (bool, error) {
	former, err := f.former(r)
	if err != nil {
		return false, err
	}
	for _, key := range []string{"bip", "bridge"} {
		if value, err := former.get(key); value != nil || err != nil {
			return true, err
		}
	}
	now, _, err := f.read()
	if err != nil {
		return false, err
	}
	have, err := now.get("bip")
	ours, touched := r.get("bip")
	return !touched || !same(have, ours), err
}

// Leftovers are what Docker forgets on docker0 when it has IPv6 no more: addresses, of those that docker0 has, and routes to what
// it was to hold.
func (f File) Leftovers(docker0 []netip.Prefix) (addrs, routes []netip.Prefix, err error) {
	r, err := f.readRecord()
	if r == nil || len(docker0) == 0 || err != nil {
		return nil, nil, err
	}
	for _, p := range r.Given {
		if p.Addr().Is6() {
			routes = append(routes, p)
		}
	}
	for _, a := range docker0 {
		if slices.Contains(routes, a.Masked()) || len(routes) > 0 && a == linkLocal() {
			addrs = append(addrs, a)
		}
	}
	return addrs, routes, nil
}

// linkLocal is the address that Docker 20.10 gives to bridges with IPv6.
func linkLocal() netip.Prefix { return netip.MustParsePrefix("fe80::1/64") }

// holds reports whether docker0 has a lease.
func (r *record) holds(docker0 []netip.Prefix) bool {
	return slices.ContainsFunc(docker0, func(a netip.Prefix) bool { return slices.Contains(r.Given, a.Masked()) })
}

// formerAddress is that of docker0 before Configure.
func (r *record) formerAddress() json.RawMessage {
	address := usualAddress
	if r.Former.IsValid() {
		address = r.Former.String()
	}
	return json.RawMessage(strconv.Quote(address))
}

// restore puts back what was there before.
func (f File) restore(r *record) ([]Change, error) {
	former, err := f.former(r)
	if err != nil {
		return nil, err
	}
	d, existed, err := f.read()
	if err != nil {
		return nil, err
	}
	var changes []Change
	restored := d
	for _, key := range slices.Sorted(maps.Keys(r.Settings)) {
		have, err := restored.get(key)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", f.path, err)
		}
		was, err := former.get(key)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", f.Backup(), err)
		}
		if ours, _ := r.get(key); !same(have, ours) || same(have, was) {
			continue
		}
		changes = append(changes, Change{Key: key, From: have, To: was})
		if restored, err = restored.set(key, was); err != nil {
			return nil, fmt.Errorf("edit %s: %w", f.path, err)
		}
	}
	untouched := existed && digest(d.content()) == r.Written
	switch {
	case untouched && r.Existed:
		_, err = replace(f.path, f.path, "", former.content())
	case untouched:
		err = remove(f.path)
	case len(changes) > 0:
		_, err = replace(f.path, f.path, "", restored.content())
	}
	return changes, err
}
