package subnettest

import (
	"encoding/json"
	"net/netip"
	"strings"

	"tulle/ip"
	"tulle/subnet"
)

const pastDir = "claims/past/"

// past is what is noted of a subnet that is or has been leased.
type past struct {
	Node     string
	Released bool
}

// note records which node has subnets, or has given them back.
func (w *world) note(subnets subnet.Subnets, node string, released bool) {
	value, _ := json.Marshal(past{node, released}) // a string and a flag always encode
	for _, f := range ip.Families() {
		if p := subnets.Of(f); p.IsValid() {
			w.put(pastDir+strings.Replace(p.String(), "/", "-", 1), string(value), 0)
		}
	}
}

func (w *world) past() []subnet.Past {
	var all []subnet.Past
	for key, r := range w.keys {
		name, ok := strings.CutPrefix(key, pastDir)
		if !ok {
			continue
		}
		var noted past
		address, bits, _ := strings.Cut(name, "-")
		p, err := netip.ParsePrefix(address + "/" + bits)
		if err == nil && json.Unmarshal([]byte(r.value), &noted) == nil {
			all = append(all, subnet.Past{Subnet: p, Node: noted.Node, Released: noted.Released, Revision: r.modified})
		}
	}
	return all
}
