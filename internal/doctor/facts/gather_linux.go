package facts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"tulle/internal/agent"
	"tulle/internal/doctor"
	"tulle/internal/hostfiles"
	"tulle/ip"
	"tulle/ip/kernel/inspect"
	"tulle/subnet/flannel"
)

const (
	// Patience is how long Gather takes at most, beside system calls.
	Patience = 3 * time.Second
	// window is between two readings of the counters.
	window = 400 * time.Millisecond
	// daemonPatience is what tulled is left to answer: its status, and what it wants of the kernel.
	daemonPatience = 1500 * time.Millisecond
	// dockerPatience is what Docker is left to answer: one that hangs shall not cost the rest.
	dockerPatience = 1500 * time.Millisecond
)

// Doors are where the facts are had.
type Doors struct {
	Status func(context.Context) (agent.Status, error)
	Peers  func(context.Context) (agent.PeerReports, error)
	Wanted func(context.Context) (hostfiles.Wanted, error) // of tulled, or what the last one left
	Absent func(error) bool                                // the error of Status says that no tulled runs

	Version              string // of the program that gathers
	StateDir, SubnetFile string // tulled's

	DockerSocket       string
	CNIConfDir, CNIDir string   // of configurations, and of what plugins know of containers
	CNIBin             []string // directories of plugins: the runtimes' comes first
	ResolvConf         string
}

// gathering is one gathering. What it reads first, the rest goes by.
type gathering struct {
	doors    Doors
	question doctor.Question
	facts    doctor.Facts
	reader   *inspect.Reader // nil: links cannot be read
	links    []inspect.Link
	env      flannel.Env
	tunnels  []string // that are wanted
	known    known    // names of containers

	neighbors *[]inspect.Neighbor // nil: they have not been read yet
}

// Gather asks the host of the calling thread's network namespace. What cannot be had is told, too.
func Gather(ctx context.Context, doors Doors, question doctor.Question) doctor.Facts {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	g := &gathering{doors: doors, question: question, facts: doctor.Facts{Version: doors.Version, Clock: time.Now()}}
	before := readCounters()
	began := time.Now()

	g.askDaemon(ctx)
	g.readFile()
	var others sync.WaitGroup
	others.Go(func() { g.facts.CNI = g.readCNI() })
	var dockers []dockerContainer
	var dockerErr error
	others.Go(func() { g.facts.Docker, dockers, dockerErr = g.askDocker(ctx) })
	others.Wait()
	if dockerErr != nil {
		g.unread(doctor.PartDocker, dockerErr)
	}
	g.known = g.knownContainers(dockers)
	if err := g.readLinks(); err != nil {
		g.unread(doctor.PartLinks, err)
	}
	if g.reader != nil {
		defer g.reader.Close()
		g.readOthers()
		g.readFilters()
		g.readContainers(ctx)
		g.readToward(ctx)
	}
	g.finishCNI()
	g.readSettings()
	g.readFill()
	g.readResolvers()

	g.readRises(ctx, before, window-time.Since(began))
	return g.facts
}

func (g *gathering) unread(part doctor.Part, err error) {
	g.facts.Unread = append(g.facts.Unread, doctor.Unread{Part: part, Why: cut(err.Error())})
}

// cut bounds a text of others.
func cut(text string) string {
	if len(text) <= doctor.MaxText {
		return text
	}
	return strings.ToValidUTF8(text[:doctor.MaxText], "") + "..."
}

// askDaemon asks tulled how it stands, or reads what it has left.
func (g *gathering) askDaemon(ctx context.Context) {
	f := &g.facts
	asking, cancel := context.WithTimeout(ctx, daemonPatience)
	defer cancel()
	st, err := g.doors.Status(asking)
	switch {
	case err == nil:
		f.Daemon.Running = true
		f.Node, f.Status = st.Node, statusOf(st)
	case g.doors.Absent(err):
		f.Daemon.Err = cut(err.Error())
	case errors.Is(err, os.ErrPermission):
		f.Daemon.Err = cut(err.Error())
		g.unread(doctor.PartStatus, err)
	default:
		f.Daemon = doctor.Daemon{Running: true, Hangs: true, Err: cut(err.Error())}
	}
	if wanted, err := g.doors.Wanted(asking); err == nil {
		for _, l := range wanted.State.Links {
			if l.Kind != nil {
				g.tunnels = append(g.tunnels, l.Name)
			}
		}
	}
	if s := f.Status; s == nil || s.Uplink == nil || !slices.ContainsFunc(s.Networks, func(n doctor.Network) bool { return len(n.Subnets) > 0 }) {
		g.readLeft()
	}
}

func statusOf(st agent.Status) *doctor.Status {
	s := &doctor.Status{
		Ready: st.Ready, Reason: cut(st.Reason), Degraded: cut(st.Degraded), Version: st.Version, Probes: st.Probes != nil, Count: st.Troubles.Count,
	}
	for _, n := range st.Networks {
		one := doctor.Network{Name: n.Name, MTU: n.MTU, Peers: n.PeerCount}
		if n.Network != nil {
			one.Prefixes, one.Backend = n.Network.Prefixes, n.Network.Backend
		}
		if n.Lease != nil {
			one.Subnets, one.Held = n.Lease.Subnets, n.Lease.Held
		}
		if !n.Expiry.IsZero() {
			s.Certificate = n.Expiry
		}
		s.Networks = append(s.Networks, one)
	}
	if u := st.Uplink; u != nil {
		s.Uplink = &doctor.Uplink{Link: u.Link, MTU: u.MTU, Addrs: u.Addr, Public: u.Public}
	}
	for _, t := range st.Troubles.All {
		if len(s.Troubles) == doctor.MaxTroubles {
			break
		}
		t.Text, t.Subject = cut(t.Text), cut(t.Subject)
		s.Troubles = append(s.Troubles, t)
	}
	return s
}

// readLeft reads what tulled has left on disk.
func (g *gathering) readLeft() {
	last := &doctor.Status{}
	names, err := hostfiles.Recorded(g.doors.StateDir)
	if err != nil {
		g.unread(doctor.PartStatus, err)
	}
	for _, name := range names {
		r, err := hostfiles.ReadRecord(hostfiles.NetworkDir(g.doors.StateDir, name))
		if err != nil {
			g.unread(doctor.PartStatus, err)
			continue
		}
		lease := r.Lease()
		g.facts.Node = cmp.Or(g.facts.Node, lease.Attrs.Node)
		n := doctor.Network{Name: name, Prefixes: r.Networks, Backend: lease.Attrs.BackendType}
		for _, f := range ip.Families() {
			if p := lease.Subnets.Of(f); p.IsValid() {
				n.Subnets = append(n.Subnets, p)
			}
		}
		if len(n.Prefixes) > 0 {
			last.Networks = append(last.Networks, n)
		}
		if up := r.Uplink(); up.Link != "" && last.Uplink == nil {
			last.Uplink = &doctor.Uplink{Link: up.Link, Addrs: ip.Addrs(up.Addr), Public: ip.Addrs(up.Public)}
		}
		if len(g.tunnels) == 0 {
			g.tunnels = append(g.tunnels, r.Links...)
		}
	}
	if len(last.Networks) > 0 || last.Uplink != nil {
		g.facts.Last = last
	}
	if g.facts.Node == "" {
		g.facts.Node, _ = os.Hostname()
	}
}

// readFile reads the subnet file.
func (g *gathering) readFile() {
	f := &g.facts.File
	f.Path = g.doors.SubnetFile
	env, err := flannel.ReadEnv(f.Path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		f.Missing = true
		return
	case err != nil:
		g.unread(doctor.PartFile, err)
		return
	}
	g.env, f.MTU = env, env.MTU
	for _, family := range ip.Families() {
		if p := env.Subnets.Of(family); p.IsValid() {
			f.Subnets = append(f.Subnets, p)
		}
	}
	if last := g.facts.Last; last != nil && len(last.Networks) > 0 {
		last.Networks[0].MTU = env.MTU
	}
}

// prefixes are the networks of the host.
func (g *gathering) prefixes() (all []netip.Prefix) {
	for _, n := range g.facts.Networks() {
		all = append(all, n.Prefixes...)
	}
	return all
}

// subnets are those that the host has.
func (g *gathering) subnets() (all []netip.Prefix) {
	for _, n := range g.facts.Networks() {
		all = append(all, n.Subnets...)
	}
	return all
}

func holdsAny(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// readLinks reads the links that packets of containers pass.
func (g *gathering) readLinks() (err error) {
	if g.reader, err = inspect.Open(); err != nil {
		return err
	}
	if g.links, err = g.reader.Links(); err != nil {
		g.reader.Close()
		g.reader = nil
		return err
	}
	networks := g.prefixes()
	var bridges []string // that hand out addresses, by what is configured
	if c := g.facts.CNI; c != nil && c.Bridge != "" && c.Ours != "" {
		bridges = append(bridges, c.Bridge)
	}
	if d := g.facts.Docker; d != nil {
		for _, n := range d.Networks {
			bridges = append(bridges, n.Bridge)
		}
	}
	uplink := ""
	if u := g.facts.Uplink(); u != nil {
		uplink = u.Link
	}
	for _, name := range append([]string{uplink}, g.tunnels...) {
		if name != "" && !slices.ContainsFunc(g.links, func(l inspect.Link) bool { return l.Name == name }) {
			role := doctor.RoleTunnel
			if name == uplink {
				role = doctor.RoleUplink
			}
			g.facts.Links = append(g.facts.Links, doctor.Link{Name: name, Role: role, Missing: true})
		}
	}
	for _, l := range g.links {
		switch addressed := slices.ContainsFunc(l.Addrs, func(a netip.Prefix) bool { return holdsAny(networks, a.Addr()) }); {
		case l.Name == uplink:
			g.facts.Links = append(g.facts.Links, linkOf(l, doctor.RoleUplink))
		case slices.Contains(g.tunnels, l.Name):
			g.facts.Links = append(g.facts.Links, linkOf(l, doctor.RoleTunnel))
		case l.Kind == "bridge" && (addressed || slices.Contains(bridges, l.Name)):
			g.facts.Links = append(g.facts.Links, linkOf(l, doctor.RoleBridge))
		}
	}
	return nil
}

// readOthers reads the routes and policy rules of other programs that concern containers or peers. Of many, as those of a routing daemon, the
// longest that lie in the network come first.
func (g *gathering) readOthers() {
	others, err := g.reader.Others()
	if err != nil {
		g.unread(doctor.PartRoutes, err)
		return
	}
	networks := g.prefixes()
	within := func(o inspect.Other) bool {
		return o.Rule || slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Overlaps(o.Dst) })
	}
	slices.SortStableFunc(others, func(a, b inspect.Other) int {
		if within(a) != within(b) {
			if within(a) {
				return -1
			}
			return 1
		}
		return cmp.Compare(b.Dst.Bits(), a.Dst.Bits())
	})
	for _, o := range others[:min(len(others), doctor.MaxOthers)] {
		g.facts.Others = append(g.facts.Others, doctor.Other{Rule: o.Rule, Family: o.Family.String(), Dst: o.Dst, Src: o.Src, Table: o.Table, Spec: cut(o.Spec), Blind: o.Blind})
	}
}

// readFilters reads what drops frames on the bridges of containers.
func (g *gathering) readFilters() {
	for _, bridge := range g.facts.LinksAs(doctor.RoleBridge) {
		var ports []string
		for _, l := range g.links {
			if l.Master == bridge.Name {
				ports = append(ports, l.Name)
			}
		}
		filters, err := inspect.BridgeFilters(bridge.Name, ports)
		if err != nil {
			g.unread(doctor.PartFilters, err)
			return
		}
		for _, f := range filters {
			g.facts.Filters = append(g.facts.Filters, doctor.Filter{Bridge: f.Bridge, Table: f.Table, Chain: f.Chain, Hook: f.Hook})
		}
	}
}

func linkOf(l inspect.Link, role doctor.Role) doctor.Link {
	return doctor.Link{
		Name: l.Name, Role: role, Kind: l.Kind, Up: l.Up, NoCarrier: l.NoCarrier, NoARP: l.NoARP, MTU: l.MTU, MAC: l.MAC, Addrs: l.Addrs, Master: l.Master, VNI: l.VNI, UDPPort: l.UDPPort,
		RxDropped: l.RxDropped, TxDropped: l.TxDropped, RxErrors: l.RxErrors, TxErrors: l.TxErrors,
	}
}

// readResolvers reads which servers the host's names come from.
func (g *gathering) readResolvers() {
	text, err := readText(g.doors.ResolvConf)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		g.unread(doctor.PartResolvers, fmt.Errorf("read resolver configuration: %w", err))
		return
	}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" || len(g.facts.Resolvers) == 8 {
			continue
		}
		if addr, err := netip.ParseAddr(fields[1]); err == nil {
			g.facts.Resolvers = append(g.facts.Resolvers, addr.WithZone(""))
		}
	}
}
