package kernel

import (
	"encoding/binary"
	"reflect"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"tulle/ip"
)

func guardTable(f ip.Family) *nftables.Table {
	return &nftables.Table{Family: tableFamily(f), Name: ip.GuardTable}
}

// guardChain sees what is for this host, whatever its address, before connection tracking remembers it.
func guardChain(t *nftables.Table) *nftables.Chain {
	policy := nftables.ChainPolicyAccept
	return &nftables.Chain{
		Table: t, Name: ip.GuardChain, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityRaw, Policy: &policy,
	}
}

func guardSet(f ip.Family) nftables.Set {
	s := nftables.Set{Name: ip.GuardSet, KeyType: nftables.TypeIPAddr}
	if f == ip.IPv6 {
		s.KeyType = nftables.TypeIP6Addr
	}
	return s
}

// replaceGuard makes the table of the guard with all its peers, or deletes it, in one transaction.
func replaceGuard(c *nftables.Conn, verb ip.Verb, g ip.Guard) error {
	table := guardTable(g.Family)
	c.AddTable(table) // deleting needs something to delete
	c.DelTable(table)
	if verb == ip.Delete {
		return c.Flush()
	}
	c.AddTable(table)
	set := guardSet(g.Family)
	set.Table, set.ID = table, 1
	if err := c.AddSet(&set, nil); err != nil {
		return err
	}
	for peers := range slices.Chunk(g.Peers, maxElements) {
		if err := c.SetAddElements(&set, elements(peers)); err != nil {
			return err
		}
	}
	c.AddObj(&nftables.NamedObj{Table: table, Name: ip.GuardCounter, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
	chain := c.AddChain(guardChain(table))
	for _, rule := range encodeGuard(g) {
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: rule})
	}
	return c.Flush()
}

// encodeGuard compiles the guard's rules. The first lets other VXLANs pass whose VNI can be read, 12 bytes after the
// beginning of the UDP header (RFC 7348): without connection tracking, IPv6 comes here in fragments.
func encodeGuard(g ip.Guard) [][]expr.Any {
	src, _ := addressOffsets(g.Family)
	toPort := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: binary.BigEndian.AppendUint16(nil, g.Port)},
	}
	return [][]expr.Any{
		slices.Concat(toPort, []expr.Any{
			&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 12, Len: 3},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: binary.BigEndian.AppendUint32(nil, g.VNI)[1:]},
			&expr.Verdict{Kind: expr.VerdictAccept},
		}),
		slices.Concat(toPort, []expr.Any{
			&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: src, Len: uint32(g.Family.Bits() / 8)},
			&expr.Lookup{SourceRegister: register, SetName: ip.GuardSet, Invert: true},
			&expr.Objref{Type: int(nftables.ObjTypeCounter), Name: ip.GuardCounter},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}),
	}
}

// decodeGuard is the inverse of encodeGuard.
func decodeGuard(f ip.Family, rules []*nftables.Rule) (ip.Guard, bool) {
	g := ip.Guard{Family: f}
	var all [][]expr.Any
	for _, r := range rules {
		all = append(all, r.Exprs)
	}
	if len(all) == 0 || len(all[0]) != len(encodeGuard(g)[0]) {
		return g, false
	}
	port, okPort := all[0][3].(*expr.Cmp)
	vni, okVNI := all[0][5].(*expr.Cmp)
	if !okPort || !okVNI || len(port.Data) != 2 || len(vni.Data) != 3 {
		return g, false
	}
	g.Port = binary.BigEndian.Uint16(port.Data)
	g.VNI = binary.BigEndian.Uint32(append([]byte{0}, vni.Data...))
	return g, reflect.DeepEqual(all, encodeGuard(g))
}

// readGuard reads the guard that a table is. One that somebody changed guards nothing: it differs from every wanted
// one, and so is replaced.
func (rd *reading) readGuard(c *nftables.Conn, dumps *socket, f ip.Family, t *nftables.Table) error {
	g, err := readGuardRule(c, f, t)
	if err == nil && g.Port != 0 {
		err = rd.readPeers(c, dumps, t, &g)
	}
	if err != nil {
		return err
	}
	rd.Owned.Guards = append(rd.Owned.Guards, g)
	return nil
}

func readGuardRule(c *nftables.Conn, f ip.Family, t *nftables.Table) (ip.Guard, error) {
	none := ip.Guard{Family: f}
	chains, err := chainsOf(c, t)
	if err != nil || t.Flags != 0 || len(chains) != 1 || chains[0].Name != ip.GuardChain || !sameHook(chains[0], guardChain(t)) {
		return none, err
	}
	rules, err := c.GetRules(t, chains[0])
	if err != nil {
		return none, err
	}
	g, ok := decodeGuard(f, rules)
	if !ok {
		return none, nil
	}
	sets, err := c.GetSets(t)
	if err != nil || len(sets) != 1 {
		return none, err
	}
	set := *sets[0]
	if set.Table, set.ID = nil, 0; set != guardSet(f) {
		return none, nil
	}
	return g, nil
}

// readPeers reads what is in the set of a guard, and what the guard has dropped.
func (rd *reading) readPeers(c *nftables.Conn, dumps *socket, t *nftables.Table, g *ip.Guard) error {
	peers, err := dumpPeers(dumps, g.Family)
	if err != nil {
		return err
	}
	if slices.Contains(peers, ip.Peer{}) { // the element that stands for all addresses
		*g = ip.Guard{Family: g.Family}
		return nil
	}
	g.Peers = peers
	object, err := c.GetObject(&nftables.NamedObj{Table: t, Name: ip.GuardCounter, Type: nftables.ObjTypeCounter})
	if err != nil {
		return err
	}
	if named, ok := object.(*nftables.NamedObj); ok {
		if counter, ok := named.Obj.(*expr.Counter); ok {
			rd.Strangers += counter.Packets
		}
	}
	return nil
}
