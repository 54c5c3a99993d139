package kernel

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"tulle/ip"
	"tulle/ip/kernel/notify"
)

// nftReading is what was read of nf_tables, but for what its counters have counted. It holds for as long as the kernel has not finished another
// transaction, whoever's: each makes a new generation (nf_tables_commit in net/netfilter/nf_tables_api.c). Snapshots share the peers and rules in it.
type nftReading struct {
	generation uint32         // zero: nothing has been read
	networks   []netip.Prefix // that it was read for
	owned      ip.State
	filters    []ip.Filter
}

// readRules reads what is ours in nf_tables, and what forwarded packets meet there; a kernel without it has nothing of that.
func (rd *reading) readRules(k *Kernel) error {
	err := rd.readGeneration(k)
	if err == nil {
		err = k.nft.use(k, rd.readCounters)
	}
	if unsupported(err) {
		return nil
	}
	return err
}

// readGeneration reads all but the counters, unless it is as it was.
func (rd *reading) readGeneration(k *Kernel) error {
	before, err := k.nft.generation(k)
	if err != nil {
		return err
	}
	last := k.nft.last
	if before == last.generation && slices.Equal(last.networks, rd.scope.Networks) {
		rd.Owned.Add(last.owned)
		rd.Filters = slices.Clone(last.filters)
		return nil
	}
	k.nft.last = nftReading{}
	if err := k.nft.use(k, func(c *nftables.Conn) error { return rd.readTables(c, k.nft.dumps) }); err != nil {
		return err
	}
	complete, err := rd.readFilters(k)
	if err != nil {
		return err
	}
	after, err := k.nft.generation(k)
	if err == nil && complete && after == before {
		owned := ip.State{
			Guards: slices.Clone(rd.Owned.Guards), Tables: slices.Clone(rd.Owned.Tables),
			Openings: slices.Clone(rd.Owned.Openings), Leftovers: slices.Clone(rd.Owned.Leftovers),
		}
		k.nft.last = nftReading{before, slices.Clone(rd.scope.Networks), owned, slices.Clone(rd.Filters)}
	}
	return err
}

// generation returns the number of the last transaction of nf_tables in this namespace (NFT_MSG_GETGEN).
func (r *ruleset) generation(k *Kernel) (generation uint32, err error) {
	err = r.use(k, func(*nftables.Conn) error {
		var b batch
		b.begin(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0, unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0)
		var refused error
		err := r.dumps.exchange(&b, func(_ int, m message, err error) {
			if refused = err; err != nil || len(m.data) < nfHeader {
				return
			}
			for typ, value := range notify.Attributes(m.data[nfHeader:]) {
				if typ == generationID && len(value) == 4 {
					generation = binary.BigEndian.Uint32(value)
				}
			}
		})
		if err == nil {
			err = refused
		}
		return err
	})
	return generation, err
}

// readCounters reads what our tables have dropped.
func (rd *reading) readCounters(c *nftables.Conn) error {
	for _, g := range rd.Owned.Guards {
		if g.Tunnel() == (ip.Tunnel{}) { // guards nothing
			continue
		}
		var drops ip.Drops
		table := guardTable(g.Net, g.Family)
		for name, n := range map[string]*uint64{
			ip.CountStrangers: &drops.Strangers, ip.CountForged: &drops.Forged, ip.CountInjected: &drops.Injected,
		} {
			if err := readCounter(c, table, name, n); err != nil {
				return err
			}
		}
		rd.AddDrops(g.Net, g.Family, drops)
	}
	for _, t := range rd.Owned.Tables {
		if !t.Counts() {
			continue
		}
		var drops ip.Drops
		if err := readCounter(c, &nftables.Table{Family: tableFamily(t.Family), Name: ip.TableOf(ip.TableName, t.Net)}, ip.CountSpoofed, &drops.Spoofed); err != nil {
			return err
		}
		rd.AddDrops(t.Net, t.Family, drops)
	}
	return nil
}

// readCounter sets n to the packets that a counter of the table has counted; one that is missing has counted none.
func readCounter(c *nftables.Conn, t *nftables.Table, name string, n *uint64) error {
	object, err := c.GetObject(&nftables.NamedObj{Table: t, Name: name, Type: nftables.ObjTypeCounter})
	if err != nil {
		return err
	}
	if named, ok := object.(*nftables.NamedObj); ok {
		if counter, ok := named.Obj.(*expr.Counter); ok {
			*n = counter.Packets
		}
	}
	return nil
}
