package web

import (
	"net/netip"
	"slices"
	"strings"

	"tulle/internal/agent"
	"tulle/internal/printable"
	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet"
)

// facts are all that the page is made of.
type facts struct {
	heard      bool // the store has delivered a view
	set        subnet.Set
	configKey  string
	config     []byte
	complaints []subnet.Complaint
	unreadable []subnet.Problem // complaints that make no sense
	storeErr   error            // why the store did not answer when it was last asked
	here       here
}

// here is what this host's tulled says of itself.
type here struct {
	err    error // why it says nothing
	status agent.Status
	peers  agent.PeerReports
}

// model is what the page shows. All text of others is printable and bounded. Its fields are the sections of the page, of which those that
// changed are sent.
type model struct {
	Summary  summary  `json:"summary"`
	Hosts    []host   `json:"hosts"` // by subnet
	Reach    reach    `json:"reach"`
	Pools    []pool   `json:"pools"` // IPv4 first
	Config   config   `json:"config"`
	Problems problems `json:"problems"`
}

// summary is the head of the page.
type summary struct {
	Waiting  bool     `json:"waiting"` // the store has not told anything yet
	Store    string   `json:"store"`   // why the store does not answer: what is shown is older
	Networks []string `json:"networks"`
	Backend  string   `json:"backend"`
	Hosts    int      `json:"hosts"` // leases and reservations
	Reserved int      `json:"reserved"`
	Refused  int      `json:"refused"`
	Daemon   daemon   `json:"daemon"`
}

// daemon is this host's tulled.
type daemon struct {
	Absent  string `json:"absent"` // why it says nothing
	Node    string `json:"node"`
	State   string `json:"state"`
	Ready   bool   `json:"ready"`
	Version string `json:"version"`
}

// The states of a host's lease.
const (
	leased   = "leased"
	reserved = "reserved"
	heldBack = "held back"
	refused  = "refused"
	inPart   = "refused in part"
)

// host is a lease, and what hosts say of each other.
type host struct {
	Lease   string   `json:"lease"`
	Node    string   `json:"node"`
	Subnets []string `json:"subnets"`
	Public  []string `json:"public"`
	Backend string   `json:"backend"`
	State   string   `json:"state"`
	Reason  string   `json:"reason"` // why it is not used
	Told    int      `json:"told"`   // hosts that say that packets do not arrive there
	Tells   int      `json:"tells"`  // peers of which this host says so
	Here    bool     `json:"here"`   // it is the host that shows the page
}

// modelOf is pure.
func modelOf(f facts) model {
	judged := judge(f.set)
	hosts := hostsOf(f, judged)
	m := model{
		Reach:    reachOf(f, hosts),
		Hosts:    hosts,
		Pools:    poolsOf(f.set, judged),
		Config:   configOf(f),
		Problems: problemsOf(f, judged),
	}
	m.Summary = summaryOf(f, m.Hosts)
	return m
}

// judgment is which leases a host uses that has none itself.
type judgment struct {
	reasons map[string][]string // against leases, by key
	usable  map[usable]bool
}

// usable is a subnet that a lease may have: leases that share one are told apart by their age.
type usable struct {
	subnet  netip.Prefix
	created subnet.Revision
}

func judge(set subnet.Set) judgment {
	j := judgment{map[string][]string{}, map[usable]bool{}}
	if set.Network == nil {
		return j
	}
	good, bad := subnet.Judge(*set.Network, set.Leases, subnet.Self{})
	for _, p := range bad {
		j.reasons[p.Key] = append(j.reasons[p.Key], p.Reason)
	}
	for _, l := range good {
		for _, p := range prefixes(l.Subnets) {
			j.usable[usable{p, l.Created}] = true
		}
	}
	return j
}

// state returns that of a lease, and the reasons against it.
func (j judgment) state(l *subnet.Lease) (state, reason string) {
	reason = strings.Join(j.reasons[subnet.KeyOf(l.Subnets)], "; ")
	switch {
	case reason != "" && slices.ContainsFunc(prefixes(l.Subnets), func(p netip.Prefix) bool { return j.usable[usable{p, l.Created}] }):
		return inPart, reason
	case reason != "":
		return refused, reason
	case l.HeldBack:
		return heldBack, "the store has it no longer; it stays in force until a second look confirms that"
	case l.Reserved:
		return reserved, ""
	}
	return leased, ""
}

func prefixes(s subnet.Subnets) (ps []netip.Prefix) {
	for _, f := range ip.Families() {
		if p := s.Of(f); p.IsValid() {
			ps = append(ps, p)
		}
	}
	return ps
}

func hostsOf(f facts, j judgment) []host {
	own := ownLease(f)
	hosts := make([]host, 0, len(f.set.Leases))
	for _, l := range f.set.Leases {
		h := host{Lease: subnet.KeyOf(l.Subnets), Node: cell(l.Attrs.Node), Backend: cell(l.Attrs.BackendType), Subnets: []string{}, Public: []string{}}
		for _, p := range prefixes(l.Subnets) {
			h.Subnets = append(h.Subnets, p.String())
		}
		for _, family := range ip.Families() {
			if a := l.Attrs.Public.Of(family); a.IsValid() && !a.IsUnspecified() {
				h.Public = append(h.Public, a.String())
			}
		}
		h.State, h.Reason = j.state(l)
		h.Reason = line(h.Reason)
		h.Here = own != "" && h.Lease == own
		hosts = append(hosts, h)
	}
	return hosts
}

// ownLease is the key of the lease that this host has in the network that is shown; empty if it has none there. That this host's tulled may go by
// another store shows in the node id.
func ownLease(f facts) string {
	for _, n := range f.here.status.Networks {
		if n.Lease == nil {
			continue
		}
		var s subnet.Subnets
		for _, p := range n.Lease.Subnets {
			s.Set(ip.FamilyOf(p.Addr()), p)
		}
		for _, l := range f.set.Leases {
			if l.Subnets == s && l.Attrs.Node == f.here.status.Node {
				return subnet.KeyOf(s)
			}
		}
	}
	return ""
}

func summaryOf(f facts, hosts []host) summary {
	s := summary{Waiting: !f.heard, Networks: []string{}, Hosts: len(hosts), Daemon: daemonOf(f.here)}
	if f.storeErr != nil {
		s.Store = line(hide(f.storeErr.Error()))
	}
	if n := f.set.Network; n != nil {
		for _, p := range n.Prefixes() {
			s.Networks = append(s.Networks, p.String())
		}
		s.Backend = cell(n.Backend.Type)
	}
	for i, l := range f.set.Leases {
		if l.Reserved {
			s.Reserved++
		}
		if hosts[i].State == refused || hosts[i].State == inPart {
			s.Refused++
		}
	}
	return s
}

func daemonOf(h here) daemon {
	if h.err != nil {
		return daemon{Absent: line(hide(h.err.Error()))}
	}
	st := h.status
	d := daemon{Node: cell(st.Node), Version: cell(st.Version), State: "ready", Ready: st.Ready}
	if st.Degraded != "" {
		d.State += ", degraded: " + hide(st.Degraded)
	}
	if !st.Ready {
		d.State = "not ready: " + hide(st.Reason)
	}
	d.State = line(d.State)
	return d
}

// severityOf orders what is wrong, the worst first.
func severityOf(s trouble.Severity) int {
	return slices.Index([]trouble.Severity{trouble.Error, trouble.Warning, trouble.Advice}, s)
}

// cell makes a name of others fit for a place in a table, line a message. The browser takes either for text; that what steers writing is escaped keeps one
// line from looking like another.
func cell(s string) string { return printable.Text(s, printable.Cell) }

func line(s string) string {
	return printable.Text(strings.ReplaceAll(s, "\n", "; "), printable.Line)
}
