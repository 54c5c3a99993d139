package etcd

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/ip"
	"tulle/subnet"
)

// formerOwner is what is recorded of a subnet: who had it last.
type formerOwner struct {
	Node     string
	Released bool `json:",omitempty"`
}

// recordOwner lists the writes that record which node has subnets, or has given them back. One key for each subnet of the pool at most.
func (l layout) recordOwner(subnets subnet.Subnets, node string, released bool) []clientv3.Op {
	value, _ := json.Marshal(formerOwner{node, released}) // a string and a flag always encode
	var ops []clientv3.Op
	for _, f := range ip.Families() {
		if p := subnets.Of(f); p.IsValid() {
			ops = append(ops, clientv3.OpPut(l.formerOwner(p), string(value)))
		}
	}
	return ops
}

// formerOwners reads what has been leased before. What does not parse is as if it were not there.
func (s *Store) formerOwners(ctx context.Context) ([]subnet.FormerOwner, error) {
	all := []subnet.FormerOwner{}
	from, end := s.layout.formerOwners(), clientv3.GetPrefixRangeEnd(s.layout.formerOwners())
	for {
		r, err := s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(s.config.PageSize))
		if err != nil {
			return nil, fmt.Errorf("list former leases: %w", err)
		}
		for _, kv := range r.Kvs {
			var recorded formerOwner
			address, bits, _ := strings.Cut(strings.TrimPrefix(string(kv.Key), s.layout.formerOwners()), "-")
			p, err := netip.ParsePrefix(address + "/" + bits)
			if err == nil && json.Unmarshal(kv.Value, &recorded) == nil {
				all = append(all, subnet.FormerOwner{Subnet: p, Node: recorded.Node, Released: recorded.Released, Revision: subnet.Revision(kv.ModRevision)})
			}
		}
		if !r.More {
			return all, nil
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00"
	}
}
