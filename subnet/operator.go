package subnet

import "context"

// Operator is a store as people see it who look after a network. What they may not do is refused with what to do instead.
type Operator interface {
	// Snapshot returns what the store holds now.
	Snapshot(ctx context.Context) (Set, error)
	// Reserve pins subnets to a host: to the one that leases exactly them, else to the one that attrs describe.
	// A reservation never expires; the host with its public address or node id takes it.
	Reserve(ctx context.Context, subnets Subnets, attrs Attrs) (Lease, error)
	// Release gives subnets back to the pool, whoever leases them, reserved or not. A host that lives takes them again at once.
	Release(ctx context.Context, subnets Subnets) error
	// Complaints returns what hosts say of peers that packets do not arrive at, by node, at most MostComplaints, and what makes no sense.
	Complaints(ctx context.Context) (list []Complaint, unreadable []Problem, err error)
	// Config returns the network configuration as it is stored, and its revision; nil and 0 if there is none.
	Config(ctx context.Context) (text []byte, revision Revision, err error)
	// SetConfig stores a network configuration if it is valid, and if the stored one still has the expected revision
	// (negative: any; 0: there is none). It returns the new revision, and does not write what is already there.
	SetConfig(ctx context.Context, text []byte, expected Revision) (Revision, error)
	// ConfigKey names the place of the network configuration.
	ConfigKey() string
}
