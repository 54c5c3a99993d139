package doctor

import (
	"net/netip"
	"slices"
	"time"

	"tulle/internal/trouble"
	"tulle/ip"
)

// Bounds on Facts: they are an answer to other hosts too.
const (
	MaxContainers = 64 // that are looked into where none is named
	MaxRoutes     = 16 // of one container
	MaxTroubles   = 64 // of a status
	MaxOthers     = 64 // routes and policy rules of other programs
	MaxText       = 1 << 10
)

// Question asks a host for its facts. Whoever may write the store may ask.
type Question struct {
	Of     string     `json:"of,omitempty"`    // a container: its name, id or address on that host; empty: the host itself
	Toward netip.Addr `json:"toward,omitzero"` // what the host says about packets to this address; zero: nothing
}

// Facts is what one host says of itself: no secret, and nothing without a bound. What could not be read is in Unread, and empty.
type Facts struct {
	Node     string    `json:"node"`
	Version  string    `json:"version,omitempty"` // of the program that gathered them
	Clock    time.Time `json:"clock"`             // of the host, when it was asked
	Daemon   Daemon    `json:"daemon"`
	Status   *Status   `json:"status,omitempty"` // nil: tulled does not answer
	Last     *Status   `json:"last,omitempty"`   // networks and uplink that tulled has left on disk, where it does not tell them
	Links    []Link    `json:"links"`
	Settings []Setting `json:"settings"`
	Others   []Other   `json:"others,omitempty"` // routes and policy rules of other programs
	Filters  []Filter  `json:"filters,omitempty"`
	Fill     Fill      `json:"fill"`
	Counters []Counter `json:"counters,omitempty"`
	File     File      `json:"file"` // for Docker and CNI plugins

	Docker    *Docker      `json:"docker,omitempty"` // nil: none answers
	CNI       *CNI         `json:"cni,omitempty"`    // nil: no runtime is configured
	Resolvers []netip.Addr `json:"resolvers,omitempty"`

	Container  *Container  `json:"container,omitempty"`  // that the question named
	NoSuch     bool        `json:"noSuch,omitempty"`     // all were looked into, and none is the one that the question named
	Containers []Container `json:"containers,omitempty"` // where it named none: those on bridges with addresses of the network, the first MaxContainers
	Toward     *Toward     `json:"toward,omitempty"`

	Unread []Unread `json:"unread,omitempty"`
}

// Networks are those that the host is in, or was when tulled knew.
func (f Facts) Networks() []Network {
	known := f.Status != nil && slices.ContainsFunc(f.Status.Networks, func(n Network) bool { return len(n.Subnets) > 0 })
	if !known && f.Last != nil && len(f.Last.Networks) > 0 {
		return f.Last.Networks
	}
	if f.Status != nil {
		return f.Status.Networks
	}
	return nil
}

// Uplink is the uplink in use, or the last one; nil if none is known.
func (f Facts) Uplink() *Uplink {
	if f.Status != nil && f.Status.Uplink != nil {
		return f.Status.Uplink
	}
	if f.Last != nil {
		return f.Last.Uplink
	}
	return nil
}

// All lists the containers that were looked into.
func (f Facts) All() []Container {
	if f.Container != nil {
		return []Container{*f.Container}
	}
	return f.Containers
}

// LinksAs lists the links with a role.
func (f Facts) LinksAs(role Role) (links []Link) {
	for _, l := range f.Links {
		if l.Role == role {
			links = append(links, l)
		}
	}
	return links
}

// Rise is how much a counter has grown while facts were gathered, and what it was at the end.
func (f Facts) Rise(name string) (rise, value uint64) {
	for _, c := range f.Counters {
		if c.Name == name {
			return c.Rise, c.Value
		}
	}
	return 0, 0
}

// Daemon is whether tulled runs here.
type Daemon struct {
	Running bool   `json:"running"`
	Hangs   bool   `json:"hangs,omitempty"` // there is one, and it gives no answer
	Err     string `json:"error,omitempty"` // why it did not answer
}

// Status is what checks use of tulled's status.
type Status struct {
	Ready       bool                 `json:"ready"`
	Reason      string               `json:"reason,omitempty"`
	Degraded    string               `json:"degraded,omitempty"`
	Version     string               `json:"version,omitempty"` // of tulled
	Networks    []Network            `json:"networks"`
	Uplink      *Uplink              `json:"uplink,omitempty"`
	Probes      bool                 `json:"probes"` // hosts ask each other whether packets arrive
	Troubles    []trouble.Trouble    `json:"troubles,omitempty"`
	Count       map[trouble.Code]int `json:"count,omitempty"` // of all troubles, listed or not
	Certificate time.Time            `json:"certificateExpiry,omitzero"`
}

// Network is one of the networks of the host.
type Network struct {
	Name     string         `json:"name,omitempty"`
	Prefixes []netip.Prefix `json:"prefixes"`
	Subnets  []netip.Prefix `json:"subnets"` // of this host; none: it has no lease
	Held     bool           `json:"held"`
	Backend  string         `json:"backend"`
	MTU      int            `json:"mtu,omitempty"` // bytes, for containers
	Peers    int            `json:"peers"`
}

// Uplink is the interface that carries the traffic between hosts.
type Uplink struct {
	Link   string       `json:"link"`
	MTU    int          `json:"mtu"`
	Addrs  []netip.Addr `json:"addresses"`
	Public []netip.Addr `json:"public"` // where peers send to
}

// Role is what a link is for.
type Role string

// The roles.
const (
	RoleUplink Role = "uplink"
	RoleTunnel Role = "tunnel"
	RoleBridge Role = "bridge" // of containers
	RolePort   Role = "port"   // the host's end of a container's interface
)

// Link is a link of the host that packets of containers pass.
type Link struct {
	Name      string         `json:"name"`
	Role      Role           `json:"role"`
	Kind      string         `json:"kind,omitempty"` // such as bridge, veth, vxlan
	Missing   bool           `json:"missing,omitempty"`
	Up        bool           `json:"up"`
	NoCarrier bool           `json:"noCarrier,omitempty"`
	NoARP     bool           `json:"noARP,omitempty"` // it neither asks nor answers who has an address
	MTU       int            `json:"mtu,omitempty"`
	MAC       string         `json:"mac,omitempty"`
	Addrs     []netip.Prefix `json:"addresses,omitempty"`
	Master    string         `json:"master,omitempty"` // the bridge that it is a port of
	VNI       uint32         `json:"vni,omitempty"`    // of a VXLAN device
	UDPPort   uint16         `json:"udpPort,omitempty"`
	RxDropped uint64         `json:"rxDropped,omitempty"` // packets
	TxDropped uint64         `json:"txDropped,omitempty"`
	RxErrors  uint64         `json:"rxErrors,omitempty"`
	TxErrors  uint64         `json:"txErrors,omitempty"`
}

// Setting is a sysctl that forwarding depends on.
type Setting struct {
	Key   string `json:"key"`            // as sysctl(8) has it, with slashes
	Link  string `json:"link,omitempty"` // that it is of
	Value string `json:"value"`
	Want  string `json:"want"` // what it has to be; empty: it is told with others
}

// Other is a route or policy rule of another program that packets of containers, or between hosts, may come to.
type Other struct {
	Rule   bool         `json:"rule,omitempty"`
	Family string       `json:"family"`
	Dst    netip.Prefix `json:"dst,omitzero"`
	Src    netip.Prefix `json:"src,omitzero"` // of a rule
	Table  uint32       `json:"table,omitempty"`
	Spec   string       `json:"spec"`            // for ip(8): what comes after add or del
	Blind  bool         `json:"blind,omitempty"` // Spec does for deletion alone
}

// Filter is a chain of nftables that drops all frames of a bridge, or all of IPv4, IPv6 or ARP.
type Filter struct {
	Bridge string `json:"bridge"`
	Table  string `json:"table"` // of the family bridge
	Chain  string `json:"chain"`
	Hook   string `json:"hook"` // as nft(8) has it
}

// Fill is how full the kernel's tables are.
type Fill struct {
	Conntrack *Level          `json:"conntrack,omitempty"` // nil: connections are not tracked
	Neighbors ip.Dual[*Level] `json:"neighbors"`           // of this network namespace, permanent ones aside, which have no bound
}

// Level is how full a table is.
type Level struct {
	Count int `json:"count"`
	Max   int `json:"max"`
}

// Counter is one of the kernel's, since the host started.
type Counter struct {
	Name  string `json:"name"` // as the kernel has it, such as TcpExt.IPReversePathFilter
	Value uint64 `json:"value"`
	Rise  uint64 `json:"rise,omitempty"` // while facts were gathered
}

// File is the subnet file.
type File struct {
	Path    string         `json:"path"`
	Missing bool           `json:"missing,omitempty"`
	Subnets []netip.Prefix `json:"subnets,omitempty"`
	MTU     int            `json:"mtu,omitempty"`
}

// Docker is what matters here of the host's Docker.
type Docker struct {
	Version  string          `json:"version"`
	Networks []DockerNetwork `json:"networks,omitempty"` // with addresses of Tulle's networks, or that should have some
}

// DockerNetwork is a bridge network of Docker's.
type DockerNetwork struct {
	Name       string         `json:"name"`
	Bridge     string         `json:"bridge"`
	Subnets    []netip.Prefix `json:"subnets"`
	MTU        int            `json:"mtu"`
	Containers int            `json:"containers"`
	Problem    string         `json:"problem,omitempty"` // why its containers are not reached as they should
	Remedy     string         `json:"remedy,omitempty"`  // the command that mends it
}

// CNI is what matters here of the host's CNI configurations.
type CNI struct {
	Dir       string       `json:"directory"`      // of the configurations
	First     string       `json:"first"`          // the file that runtimes take: the first by name
	Ours      string       `json:"ours,omitempty"` // the first that leads to Tulle's network; empty: none
	Network   string       `json:"network,omitempty"`
	Bridge    string       `json:"bridge,omitempty"`
	BinDir    string       `json:"plugins,omitempty"`
	Missing   []string     `json:"missing,omitempty"`   // plugins that Ours needs and that are not in BinDir
	Elsewhere []string     `json:"elsewhere,omitempty"` // which of these are where distributions put them
	Networks  []CNINetwork `json:"networks,omitempty"`
}

// CNINetwork is what host-local has handed out of this host's subnets.
type CNINetwork struct {
	Name  string       `json:"name"`
	Dir   string       `json:"directory"`
	Pool  netip.Prefix `json:"pool"`
	Used  int          `json:"used"`            // addresses
	Size  int          `json:"size"`            // that there are
	Stale []netip.Addr `json:"stale,omitempty"` // in use by containers that are gone, a few of them
	Gone  int          `json:"gone,omitempty"`  // how many these are
}

// Container is a container of this host.
type Container struct {
	Name      string         `json:"name,omitempty"`
	ID        string         `json:"id,omitempty"`
	Runtime   string         `json:"runtime,omitempty"` // docker, cni, or empty: a namespace
	Link      string         `json:"link"`              // inside
	MAC       string         `json:"mac,omitempty"`     // of Link
	Up        bool           `json:"up"`
	NoARP     bool           `json:"noARP,omitempty"`
	MTU       int            `json:"mtu"`
	Addrs     []netip.Prefix `json:"addresses"`
	Routes    []Route        `json:"routes,omitempty"`    // the first MaxRoutes
	Neighbors []Neighbor     `json:"neighbors,omitempty"` // of its gateways
	Known     []Neighbor     `json:"known,omitempty"`     // what the host knows of its addresses
	Port      string         `json:"port,omitempty"`      // the host's end of Link
	Bridge    string         `json:"bridge,omitempty"`    // that Port is a port of; empty: none
	Namespace string         `json:"namespace,omitempty"` // a path by which this host's programs enter it
}

// Route is a route in the main table of a namespace.
type Route struct {
	Dst  netip.Prefix `json:"dst"` // of length zero: the default route
	Via  netip.Addr   `json:"via,omitzero"`
	Link string       `json:"link,omitempty"`
	Kind string       `json:"kind,omitempty"` // unless unicast: blackhole, unreachable, prohibit
	MTU  int          `json:"mtu,omitempty"`
}

// Neighbor is what a namespace knows of an address next to it.
type Neighbor struct {
	Addr  netip.Addr `json:"address"`
	MAC   string     `json:"mac,omitempty"`
	State string     `json:"state"` // as ip-neighbour(8) has it
	Link  string     `json:"link,omitempty"`
}

// Toward is what a host says about packets to an address.
type Toward struct {
	Addr     netip.Addr   `json:"address"`
	Here     bool         `json:"here,omitempty"`  // it is in this host's subnet
	Node     string       `json:"node,omitempty"`  // of the peer in whose subnet it is, or that has it
	Lease    string       `json:"lease,omitempty"` // of the peer
	Public   []netip.Addr `json:"public,omitempty"`
	Via      string       `json:"via,omitempty"` // how the peer is reached: direct, vxlan, ...
	Route    *Route       `json:"route,omitempty"`
	Source   netip.Addr   `json:"source,omitzero"`
	Neighbor *Neighbor    `json:"neighbor,omitempty"` // of the route's gateway, or of the address
	Station  *Station     `json:"station,omitempty"`  // where a tunnel device sends frames for the neighbour
	Underlay *Route       `json:"underlay,omitempty"` // to the peer's public address
	Next     *Neighbor    `json:"next,omitempty"`     // on the underlay: the peer, or the gateway to it
	Ways     []Way        `json:"ways,omitempty"`
}

// Station is a forwarding entry of a tunnel device.
type Station struct {
	MAC string     `json:"mac"`
	Dst netip.Addr `json:"dst"`
}

// Way is what this host's probes say of one way to a peer, in one family.
type Way struct {
	Family string    `json:"family"`
	Way    string    `json:"way"`   // underlay or fabric
	State  string    `json:"state"` // unknown, well, narrow or unreachable
	Since  time.Time `json:"since,omitzero"`
	Size   int       `json:"size"` // bytes of the largest packet that arrives; 0: not known
	Full   int       `json:"full"` // and that should
	Asked  uint64    `json:"asked"`
	Lost   uint64    `json:"lost"`
	Reason string    `json:"reason,omitempty"` // why the last question could not be sent
}

// Part is a part of the facts.
type Part string

// The parts, as people are told of them.
const (
	PartStatus     Part = "tulled's status"
	PartLinks      Part = "links"
	PartRoutes     Part = "routes and policy rules of others"
	PartFilters    Part = "filters of bridges"
	PartSettings   Part = "settings"
	PartConntrack  Part = "connection tracking"
	PartNeighbors  Part = "neighbour tables"
	PartCounters   Part = "counters"
	PartFile       Part = "subnet file"
	PartDocker     Part = "Docker"
	PartCNI        Part = "CNI"
	PartResolvers  Part = "resolvers"
	PartContainers Part = "containers"
	PartToward     Part = "way to the other end"
)

// Unread is a part of the facts that could not be had.
type Unread struct {
	Part Part   `json:"part"`
	Why  string `json:"why"`
}
