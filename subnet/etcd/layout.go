package etcd

import (
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

// layout names keys.
type layout struct {
	prefix string // without a slash at the end
}

func newLayout(prefix string) layout {
	if prefix == "" {
		prefix = flannel.DefaultPrefix
	}
	return layout{strings.TrimSuffix(path.Clean(prefix), "/")}
}

func (l layout) config() string                { return l.prefix + "/" + flannel.ConfigKey }
func (l layout) leases() string                { return l.prefix + "/" + flannel.LeaseDir }
func (l layout) lease(s subnet.Subnets) string { return l.leases() + subnet.KeyOf(s) }

// span is the range of keys that flannel's readers see: the configuration and everything that begins like a lease.
func (l layout) span() (from, end string) {
	return l.config(), clientv3.GetPrefixRangeEnd(strings.TrimSuffix(l.leases(), "/"))
}

// ownerKey is the key that says which lease holds p. In dual stack, the lease key alone stands for only the pair.
func (l layout) ownerKey(p netip.Prefix) string {
	return l.prefix + "/claims/owner/" + strings.Replace(p.String(), "/", "-", 1)
}

func (l layout) ownerKeys(s subnet.Subnets) []string {
	var keys []string
	for _, f := range ip.Families() {
		if p := s.Of(f); p.IsValid() {
			keys = append(keys, l.ownerKey(p))
		}
	}
	return keys
}

// formerOwner is the key that tells which node had p last; it outlives the lease.
func (l layout) formerOwner(p netip.Prefix) string {
	return l.formerOwners() + strings.Replace(p.String(), "/", "-", 1)
}

func (l layout) formerOwners() string { return l.prefix + "/claims/past/" }

// challenge is the key at which the owner of a node id is asked whether it lives.
func (l layout) challenge(node string) string {
	return l.prefix + "/claims/nodes/" + url.PathEscape(node)
}

// questions precede the keys of questions to a node about the rest.
func (l layout) questions(node string) string { return l.challenge(node) + "/ask/" }

// asked is the range in which a node is asked: its challenge and what is below that. Others fall into it, as the challenge of a node n-1
// into the range of n.
func (l layout) asked(node string) (from, end string) {
	return l.challenge(node), l.challenge(node) + "0"
}

// complaints precede the keys at which hosts complain of peers.
func (l layout) complaints() string { return l.prefix + "/claims/complaints/" }

func (l layout) complaint(node string) string { return l.complaints() + url.PathEscape(node) }

// unchanged is the condition that a key was last changed at a revision.
func unchanged(key string, r subnet.Revision) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(key), "=", int64(r))
}

// decode reads a lease.
func (l layout) decode(kv *mvccpb.KeyValue) (subnet.Lease, error) {
	last, ok := strings.CutPrefix(string(kv.Key), l.leases())
	if !ok {
		return subnet.Lease{}, fmt.Errorf("not a lease: only keys below %s are; delete it, for flanneld drops all peers over it", l.leases())
	}
	lease, err := flannel.DecodeLease(last, kv.Value)
	if err != nil {
		return subnet.Lease{}, err
	}
	lease.Reserved, lease.Created, lease.Revision = kv.Lease == 0, subnet.Revision(kv.CreateRevision), subnet.Revision(kv.ModRevision)
	return lease, nil
}
