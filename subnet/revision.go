package subnet

import "math"

// Revision is a point in the history of a store, as the store counts it: a later one is greater, and zero precedes all. Nothing else is
// read from it. All revisions of one store are of one history, be they of a lease, of the configuration or of a view, so that the
// age of one lease compares with a change of another. etcd counts changes; a store may as well count nanoseconds.
//
// Memory counts on from the latest one for what it sees later, and takes differences for a rough measure of time.
type Revision int64

// Unwritten is the age of a lease that is in no store yet: whatever is there is older.
const Unwritten Revision = math.MaxInt64
