package subnet

import "math"

// Revision is a point in the history of a store, as the store counts it. Nothing but order is read from it: a later point is greater, and
// zero precedes all. What one store tells is of one history, be it of a lease, of the configuration or of a view, so that the age
// of one lease compares with the change of another. etcd's revisions are such points; so are changes or nanoseconds counted.
type Revision int64

// Unwritten is the age of a lease that is in no store yet: whatever is there is older.
const Unwritten Revision = math.MaxInt64
