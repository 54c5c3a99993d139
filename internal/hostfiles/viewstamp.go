package hostfiles

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"

	"tulle/internal/regularfile"
	"tulle/ip"
	"tulle/subnet"
)

// stamp tells one view from others without all that is in it. It is in the header of the cached view's file (RFC 1952, FEXTRA),
// where programs that do not know it pass over it.
type stamp struct {
	revision subnet.Revision
	sum      [sha256.Size]byte
}

// stampID is what RFC 1952 wants before an extra field: two bytes for its kind and two for its length, 8 + 32.
const stampID = "Tv\x28\x00"

func (s stamp) encode() []byte {
	return append(binary.LittleEndian.AppendUint64([]byte(stampID), uint64(s.revision)), s.sum[:]...)
}

// readStamp reads the stamp of the cached view below dir, and nothing else of it.
func readStamp(dir string) (s stamp, err error) {
	f, err := regularfile.Open(filepath.Join(dir, viewFile))
	if err != nil {
		return s, err
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		return s, err
	}
	extra := r.Extra
	if len(extra) != len(stampID)+8+len(s.sum) || string(extra[:len(stampID)]) != stampID {
		return s, errors.New("it has no stamp")
	}
	s.revision = subnet.Revision(binary.LittleEndian.Uint64(extra[len(stampID):]))
	copy(s.sum[:], extra[len(stampID)+8:])
	return s, nil
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
