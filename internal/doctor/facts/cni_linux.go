package facts

import (
	"cmp"
	"encoding/json"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tulle/internal/doctor"
	"tulle/internal/holder"
)

// staleShown is how many addresses of containers that are gone are named.
const staleShown = 16

// usualPlugins is where distributions put the CNI project's plugins.
const usualPlugins = "/usr/lib/cni"

// readCNI reads the configurations of CNI runtimes; nil if there are none.
func (g *gathering) readCNI() *doctor.CNI {
	entries, err := os.ReadDir(g.doors.CNIConfDir)
	if err != nil {
		return nil
	}
	c := &doctor.CNI{Dir: g.doors.CNIConfDir}
	for _, e := range entries {
		if holder.IsConf(e.Name()) && !e.IsDir() {
			c.First = filepath.Join(c.Dir, e.Name())
			break
		}
	}
	if c.First == "" {
		return nil
	}
	confs, err := holder.ReadConfs(c.Dir)
	if err != nil {
		return c
	}
	ours := slices.IndexFunc(confs, func(conf holder.Conf) bool {
		return conf.Plugin == "tulle" || conf.Plugin == "flannel" || slices.ContainsFunc(conf.Ranges, func(p netip.Prefix) bool {
			return slices.ContainsFunc(g.subnets(), p.Overlaps)
		})
	})
	if ours < 0 {
		return c
	}
	conf := confs[ours]
	c.Ours, c.Network, c.Bridge = conf.File, conf.Network, conf.Bridge
	c.BinDir, c.Missing, c.Elsewhere = g.missingPlugins(conf)
	return c
}

// plugins lists the types of plugins that a configuration calls, delegates too.
func plugins(file string) []string {
	type plugin struct {
		Type     string
		IPAM     struct{ Type string }
		Delegate struct {
			Type string
			IPAM struct{ Type string }
		}
	}
	var list struct {
		Plugins []plugin
		plugin
	}
	text, err := readText(file)
	if err != nil || json.Unmarshal([]byte(text), &list) != nil {
		return nil
	}
	var types []string
	for _, p := range append(list.Plugins, list.plugin) {
		types = append(types, p.Type, p.IPAM.Type, p.Delegate.Type, p.Delegate.IPAM.Type)
		if p.Type == "tulle" || p.Type == "flannel" {
			types = append(types, cmp.Or(p.Delegate.Type, "bridge"), cmp.Or(p.Delegate.IPAM.Type, p.IPAM.Type, "host-local"))
		}
	}
	types = slices.DeleteFunc(types, func(t string) bool { return t == "" || t != filepath.Base(t) || t == "." || t == ".." })
	slices.Sort(types)
	return slices.Compact(types)
}

// missingPlugins finds where a configuration's plugins are, and which of them are not there.
func (g *gathering) missingPlugins(conf holder.Conf) (dir string, missing, elsewhere []string) {
	has := func(dir, name string) bool {
		info, err := os.Stat(filepath.Join(dir, name))
		return err == nil && info.Mode().IsRegular()
	}
	if len(g.doors.CNIBin) == 0 {
		return "", nil, nil
	}
	dir = g.doors.CNIBin[0]
	if i := slices.IndexFunc(g.doors.CNIBin, func(d string) bool { return has(d, conf.Plugin) }); i >= 0 {
		dir = g.doors.CNIBin[i]
	}
	for _, name := range plugins(conf.File) {
		if !has(dir, name) {
			missing = append(missing, name)
			if has(usualPlugins, name) {
				elsewhere = append(elsewhere, name)
			}
		}
	}
	return dir, missing, elsewhere
}

// knownContainers are those that Docker and CNI plugins tell of.
func (g *gathering) knownContainers(dockers []dockerContainer) known {
	all := known{}
	networks, err := holder.ReadNetworks(filepath.Join(g.doors.CNIDir, "networks"))
	if err == nil {
		for _, n := range networks {
			for _, a := range n.Addrs {
				text, err := readText(filepath.Join(n.Dir, a.String()))
				if fields := strings.Fields(text); err == nil && len(fields) > 0 {
					all[a] = name{runtime: "cni", id: cut(fields[0])}
				}
			}
		}
	}
	for _, d := range dockers {
		for _, a := range d.Addrs {
			all[a] = name{"docker", cut(d.Name), cut(d.ID)}
		}
	}
	return all
}

// finishCNI counts the addresses of each CNI network with some of this host's subnets, once it is known which are in use.
func (g *gathering) finishCNI() {
	networks, err := holder.ReadNetworks(filepath.Join(g.doors.CNIDir, "networks"))
	if err != nil {
		g.unread(doctor.PartCNI, err)
		return
	}
	partly := g.question.Of != "" || slices.ContainsFunc(g.facts.Unread, func(u doctor.Unread) bool { return u.Part == doctor.PartContainers || u.Part == doctor.PartLinks })
	inUse := map[netip.Addr]bool{}
	for _, c := range g.facts.All() {
		for _, a := range c.Addrs {
			inUse[a.Addr()] = true
		}
	}
	for _, pool := range g.subnets() {
		for _, n := range networks {
			held := slices.DeleteFunc(slices.Clone(n.Addrs), func(a netip.Addr) bool { return !pool.Contains(a) })
			if len(held) == 0 {
				continue
			}
			one := doctor.CNINetwork{Name: cut(n.Name), Dir: n.Dir, Pool: pool, Used: len(held), Size: sizeOf(pool)}
			for _, a := range held {
				if inUse[a] || partly {
					continue
				}
				if one.Gone++; len(one.Stale) < staleShown {
					one.Stale = append(one.Stale, a)
				}
			}
			if g.facts.CNI == nil {
				g.facts.CNI = &doctor.CNI{Dir: g.doors.CNIConfDir}
			}
			g.facts.CNI.Networks = append(g.facts.CNI.Networks, one)
		}
	}
}

// sizeOf is how many addresses containers of a subnet can have: not its first, the bridge's, and, of IPv4, the last.
func sizeOf(pool netip.Prefix) int {
	host := pool.Addr().BitLen() - pool.Bits()
	if host > 30 {
		return math.MaxInt32
	}
	size := 1<<host - 2
	if pool.Addr().Is4() {
		size--
	}
	return max(size, 0)
}
