package ip

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
)

// Kernel is the only door to the network namespace of a host.
type Kernel interface {
	// Snapshot reads what lies in scope, and the facts about the host that decisions depend on. The caller only reads it: the next one may
	// share what has not changed.
	Snapshot(ctx context.Context, scope Scope) (Snapshot, error)
	// Lookup asks what would become of packets. It gives an answer to each question, and costs as much as there are questions.
	Lookup(ctx context.Context, questions []Question) ([]Answer, error)
	// Apply runs the plan in order. An operation that fails does not stop the others: the failures come back
	// together, as OpErrors. Deleting what is absent is a success.
	Apply(ctx context.Context, plan Plan) error
	// Watch calls notify after every change of links, addresses, routes, neighbours, forwarding entries or rules that
	// this Kernel did not make itself, and whenever a change may have been missed: so once when it begins. It may pass over
	// what concerns neither the scope of the last Snapshot nor the destinations that Lookup was asked about, and links of others
	// that have no address of use beyond them and that no route leads over. It returns ctx.Err() when ctx ends, or why the kernel
	// can no longer be watched. notify must not block.
	Watch(ctx context.Context, notify func(by Actor)) error
}

// Actor is a process that changed something. The zero Actor is one that the kernel does not name.
type Actor struct {
	Name string // empty if the process is gone
	PID  int    // in its own namespace
}

func (a Actor) String() string {
	if a.Name == "" {
		return fmt.Sprintf("a process that is gone [%d]", a.PID)
	}
	return fmt.Sprintf("%s[%d]", a.Name, a.PID)
}

// Scope says what Tulle owns: everything it may ever delete, besides its tables and openings, which are marked.
type Scope struct {
	Links    []string       // names of Tulle's links; all routes, neighbours and forwarding entries on them are Tulle's
	Networks []netip.Prefix // container networks; routes into them that carry Protocol are Tulle's, as are addresses of them on Tulle's links
	Sysctls  []Sysctl       // settings to read; their values are ignored, and the link * is each that is in scope or has an address to reach hosts by
	Paths    []netip.Addr   // underlay addresses whose route is to be looked up
	Uplinks  []string       // links that packets between hosts leave by: what others hang on them is to be read
	Kinds    []string       // types of links that will be wanted: whether the kernel can make them is to be found out
}

// Join returns a scope that also owns what another one owns. Of all else it has its own.
func (s Scope) Join(o Scope) Scope {
	s.Links, s.Networks = union(s.Links, o.Links), union(s.Networks, o.Networks)
	return s
}

// Plus is Join, which also takes on all else.
func (s Scope) Plus(o Scope) Scope {
	s = s.Join(o)
	s.Sysctls, s.Paths, s.Kinds = union(s.Sysctls, o.Sysctls), slices.Concat(s.Paths, o.Paths), union(s.Kinds, o.Kinds)
	s.Uplinks = union(s.Uplinks, o.Uplinks)
	return s
}

// Settings lists the settings to read, of which those of the link * stand for those of the interfaces.
func (s Scope) Settings(interfaces []Interface) []Sysctl {
	var named, all []Sysctl
	for _, setting := range s.Sysctls {
		if setting.Link != EachLink {
			named = append(named, setting)
			continue
		}
		for _, i := range interfaces {
			addressed := slices.ContainsFunc(i.Addrs, func(a InterfaceAddr) bool { return BetweenHosts(a.Prefix.Addr()) })
			if i.Loopback || !addressed && !slices.Contains(s.Links, i.Name) {
				continue
			}
			all = append(all, setting.Of(i.Name))
		}
	}
	isNamed := func(one Sysctl) bool {
		return slices.ContainsFunc(named, func(n Sysctl) bool { return n.Key == one.Key })
	}
	return append(named, without(all, isNamed)...)
}

// Holds reports whether a setting is in scope.
func (s Scope) Holds(setting Sysctl) bool {
	return slices.ContainsFunc(s.Sysctls, func(one Sysctl) bool {
		return one.Key == setting.Key || one.Link == EachLink && one.Of(setting.Link).Key == setting.Key
	})
}

// Less returns a scope that owns no link of another one, and no network that overlaps one of it. All else it keeps.
func (s Scope) Less(o Scope) Scope {
	s.Links = without(s.Links, func(l string) bool { return slices.Contains(o.Links, l) })
	s.Networks = without(s.Networks, func(n netip.Prefix) bool { return slices.ContainsFunc(o.Networks, n.Overlaps) })
	return s
}

// union appends to some things those of others that they lack.
func union[T comparable](some, others []T) []T {
	some = slices.Clip(some)
	for _, o := range others {
		if !slices.Contains(some, o) {
			some = append(some, o)
		}
	}
	return some
}

// Part is what one network owns on a host that may have several.
type Part struct {
	Net   string // the name of the network; the only one has none
	Scope Scope
}

// contains reports whether a prefix lies in one of the networks.
func (s Scope) contains(p netip.Prefix) bool {
	return slices.ContainsFunc(s.Networks, func(n netip.Prefix) bool { return p.IsValid() && Contains(n, p) })
}

// Snapshot is one reading of a host.
type Snapshot struct {
	Owned         State
	Foreign       []Route // main-table routes with a gateway into Scope.Networks that are not Tulle's
	Others        Others
	DeviceFilters []DeviceFilter // by others, on links in scope, bridges with an address in the networks, uplinks and what these are made of
	Interfaces    []Interface
	Defaults      []Route                // default routes of the main table, the preferred one of each family first; if it names no interface, where the kernel sends what is for Family.Elsewhere
	Paths         map[netip.Addr]Path    // an address without a route is absent
	Drops         map[string]Dual[Drops] // by the tables of each network, by name; each counts from its own beginning
	Fixed         map[string]bool        // keys of settings in scope that cannot be written here, as where /proc/sys is mounted read-only
	Lacks         map[string]bool        // types of links in Scope.Kinds that this kernel cannot make
	Filters       []Filter               // chains of others at the hooks that packets between containers pass, and those reached from them
}

// AddDrops counts what a table of a network has dropped.
func (s *Snapshot) AddDrops(net string, f Family, d Drops) {
	if s.Drops == nil {
		s.Drops = map[string]Dual[Drops]{}
	}
	all := s.Drops[net]
	all.Set(f, all.Of(f).Plus(d))
	s.Drops[net] = all
}

// Drops counts the packets that Tulle's rules have dropped since each table of them was made.
type Drops struct {
	Strangers uint64 // tunnelled packets that came from no peer
	Forged    uint64 // tunnelled packets from a peer, whose inner source is not the peer's
	Injected  uint64 // tunnelled packets of something behind this host, for the tunnel of another or of this one
	Spoofed   uint64 // packets of this host's containers to those of others, whose source is not theirs
}

// Plus is the sum of two counts.
func (d Drops) Plus(e Drops) Drops {
	return Drops{d.Strangers + e.Strangers, d.Forged + e.Forged, d.Injected + e.Injected, d.Spoofed + e.Spoofed}
}

// Interface is a network device of the host.
type Interface struct {
	Name     string
	AltNames []string // other names of it, as udev gives them
	Kind     string   // as `ip -details link` has it, such as veth or bridge; "device" for hardware
	MTU      int      // bytes
	RouteMTU RouteMTU // the smallest that a route over it names, to the networks in scope aside; zero: none names one
	Up       bool
	Loopback bool
	NoARP    bool // resolves no addresses (netdevice(7), IFF_NOARP)
	// NoCarrier: nothing is connected, as with a bridge without containers.
	NoCarrier bool
	Addrs     []InterfaceAddr
}

// RouteMTU is the size of the largest packet that a route takes (ip-route(8), mtu).
type RouteMTU struct {
	Bytes int
	Dst   netip.Prefix
}

// InterfaceAddr is an address of an Interface.
type InterfaceAddr struct {
	Prefix     netip.Prefix // the address with the length of its network
	Dynamic    bool         // has a lifetime (DHCP, router advertisement)
	Temporary  bool         // RFC 8981
	Deprecated bool         // RFC 4862: it works, but is not to be taken anew
	Unusable   bool         // not yet, or never, or by this host alone: tentative, a duplicate, of scope host
	Preferred  bool         // a default route over the interface names it as the source
}

// Path is how the kernel would send a packet to an address.
type Path struct {
	Link    string
	Gateway netip.Addr // zero if the address is on the link
	Source  netip.Addr
	NoARP   bool // the link resolves no addresses, as those of WireGuard, tun and PPP: it takes no notice of gateways (netdevice(7), IFF_NOARP)
}

// OnLink reports whether the destination is reached without a gateway, and can be one itself.
func (p Path) OnLink() bool { return p.Link != "" && !p.Gateway.IsValid() && !p.NoARP }

// OpError is one operation that the kernel refused.
type OpError struct {
	Op  Op
	Err error
}

func (e OpError) Error() string { return fmt.Sprintf("%s: %v", e.Op.Brief(), e.Err) }

// Unwrap returns the kernel's error.
func (e OpError) Unwrap() error { return e.Err }

// OpErrors are the operations of one plan that failed.
type OpErrors []OpError

func (es OpErrors) Error() string {
	if len(es) == 1 {
		return es[0].Error()
	}
	return fmt.Sprintf("%d operations refused, the first: %v", len(es), es[0])
}

// Unwrap returns each failure.
func (es OpErrors) Unwrap() []error {
	errs := make([]error, len(es))
	for i, e := range es {
		errs[i] = e
	}
	return errs
}
