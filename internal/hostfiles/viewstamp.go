package hostfiles

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"tulle/internal/regularfile"
	"tulle/ip"
	"tulle/subnet"
)

// stamp tells one view from others without all that is in it, and has what the store does not tell of it. It is in the header of the
// cached view's file (RFC 1952, FEXTRA), where programs that do not know it pass over it.
type stamp struct {
	revision subnet.Revision
	sum      [sha256.Size]byte // of the view; in the file, that of all of it, as of says
	memory   []byte            // see cachedMemory.pack; empty if there is nothing to remember
}

// A gzip file begins with a header, in which a flag says that an extra field follows, after two bytes for its length (RFC 1952).
const (
	gzipHeader = 10
	gzipFlags  = 3 // where the flags are in it
	gzipExtra  = 4 // the flag
)

// The parts of an extra field begin with two bytes for their kind and two for their length (RFC 1952): for the first one 8 + 32.
const (
	stampID  = "Tv\x28\x00"
	memoryID = "Tm"
)

// mostMemory bounds what is remembered in a stamp, in bytes: an extra field has less than 64 KiB. It is enough for some hundred leases that are gone.
const mostMemory = 60 << 10

func (s stamp) encode() []byte {
	extra := append(binary.LittleEndian.AppendUint64([]byte(stampID), uint64(s.revision)), s.sum[:]...)
	if len(s.memory) == 0 {
		return extra
	}
	return append(binary.LittleEndian.AppendUint16(append(extra, memoryID...), uint16(len(s.memory))), s.memory...)
}

// into puts the stamp into the header of a gzip file that has no extra field.
func (s stamp) into(packed []byte) []byte {
	header, rest := packed[:gzipHeader], packed[gzipHeader:]
	s.sum = s.of(s.sum, rest)
	extra := s.encode()
	file := binary.LittleEndian.AppendUint16(slices.Clone(header), uint16(len(extra)))
	file[gzipFlags] |= gzipExtra
	return slices.Concat(file, extra, rest)
}

// of returns the sum of a view, what is remembered beside it, and the rest of the file: one that was damaged is to be read, and then written anew.
func (s stamp) of(view [sha256.Size]byte, rest []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write(view[:])
	h.Write(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, uint64(s.revision)), uint64(len(s.memory))))
	h.Write(s.memory)
	h.Write(rest)
	h.Sum(sum[:0])
	return sum
}

// readStamp reads the stamp of the cached view below dir, and returns the rest of the file as it is: unpacking it takes many times as long.
func readStamp(dir string) (s stamp, rest []byte, err error) {
	file, err := regularfile.Read(filepath.Join(dir, viewFile), maxPacked)
	if err != nil {
		return s, nil, err
	}
	r, err := gzip.NewReader(bytes.NewReader(file))
	if err != nil {
		return s, nil, err
	}
	const size = len(stampID) + 8 + len(s.sum)
	extra := r.Extra
	if file[gzipFlags] != gzipExtra || len(extra) < size || string(extra[:len(stampID)]) != stampID {
		return s, nil, errors.New("it has no stamp")
	}
	s.revision = subnet.Revision(binary.LittleEndian.Uint64(extra[len(stampID):]))
	copy(s.sum[:], extra[len(stampID)+8:])
	const head = len(memoryID) + 2
	if more := extra[size:]; len(more) > head && string(more[:head]) == memoryID+string(binary.LittleEndian.AppendUint16(nil, uint16(len(more)-head))) {
		s.memory = more[head:]
	}
	return s, file[gzipHeader+2+len(extra):], nil
}

// cachedMemory is what the store does not tell of a view.
type cachedMemory struct {
	Former   []cachedLease          `json:"former,omitempty"`   // that are gone
	Standing map[int]cachedStanding `json:"standing,omitempty"` // by the index of the lease
}

// pack returns nothing if there is nothing to remember.
func (m cachedMemory) pack() ([]byte, error) {
	if len(m.Former) == 0 && len(m.Standing) == 0 {
		return nil, nil
	}
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.BestSpeed)
	if err == nil {
		err = json.NewEncoder(w).Encode(m)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("pack what is remembered of a view: %w", err)
	}
	return packed.Bytes(), nil
}

// remembered gives the leases of the view that is in the file their standing, and returns them with those that are gone.
func (s stamp) remembered(leases []*subnet.Lease) (standing, former []*subnet.Lease, err error) {
	if len(s.memory) == 0 {
		return leases, nil, nil
	}
	var m cachedMemory
	if err := json.NewDecoder(io.LimitReader(flate.NewReader(bytes.NewReader(s.memory)), maxView)).Decode(&m); err != nil {
		return nil, nil, err
	}
	standing = slices.Clone(leases)
	for i, since := range m.Standing {
		if i < 0 || i >= len(leases) {
			return nil, nil, fmt.Errorf("there is no lease %d", i)
		}
		l := *leases[i]
		l.Standing = subnet.Standing(since)
		standing[i] = &l
	}
	former, err = leasesOf(m.Former)
	return standing, former, err
}

// sumView sums up a view, the configuration in force, and where they come from. A lease that changes has another revision.
func sumView(from Origin, set subnet.Set, network subnet.Network) (sum [sha256.Size]byte) {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %v %q %s %d\n", from.ConfigKey, from.Endpoints, network.Pools, network.Backend.Type, network.Backend.Options, network.Revision)
	var line []byte
	for _, l := range set.Leases {
		line = line[:0]
		for _, f := range ip.Families() {
			line = l.Subnets.Of(f).AppendTo(line)
			line = append(line, ' ')
		}
		line = binary.LittleEndian.AppendUint64(line, uint64(l.Created))
		line = binary.LittleEndian.AppendUint64(line, uint64(l.Revision))
		h.Write(line)
	}
	h.Sum(sum[:0])
	return sum
}
