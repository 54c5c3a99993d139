package subnettest

import (
	"encoding/json"
	"net/netip"
	"strings"

	"tulle/ip"
	"tulle/subnet"
)

const formerOwnersDir = "claims/past/"

// formerOwner is what is recorded of a subnet that is or has been leased.
type formerOwner struct {
	Node     string
	Released bool
}

// recordOwner records which node has subnets, or has given them back.
func (w *world) recordOwner(subnets subnet.Subnets, node string, released bool) {
	value, _ := json.Marshal(formerOwner{node, released}) // a string and a flag always encode
	for _, f := range ip.Families() {
		if p := subnets.Of(f); p.IsValid() {
			w.put(formerOwnersDir+strings.Replace(p.String(), "/", "-", 1), string(value), 0)
		}
	}
}

func (w *world) formerOwners() []subnet.FormerOwner {
	var all []subnet.FormerOwner
	for key, r := range w.keys {
		name, ok := strings.CutPrefix(key, formerOwnersDir)
		if !ok {
			continue
		}
		var recorded formerOwner
		address, bits, _ := strings.Cut(name, "-")
		p, err := netip.ParsePrefix(address + "/" + bits)
		if err == nil && json.Unmarshal([]byte(r.value), &recorded) == nil {
			all = append(all, subnet.FormerOwner{Subnet: p, Node: recorded.Node, Released: recorded.Released, Revision: r.modified})
		}
	}
	return all
}
