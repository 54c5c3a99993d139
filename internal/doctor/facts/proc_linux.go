package facts

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tulle/internal/doctor"
	"tulle/internal/regularfile"
	"tulle/ip"
	"tulle/ip/kernel/inspect"
)

// maxText bounds small files of others, in bytes.
const maxText = 1 << 20

func readText(path string) (string, error) {
	text, err := regularfile.ReadTarget(path, maxText)
	return string(text), err
}

// Where each thread finds what concerns the network namespace that it is in.
const (
	procNet    = "/proc/thread-self/net/"
	sysctlRoot = "/proc/sys/"
)

// readSettings reads the settings that forwarding depends on. Those of links and families that are not there are left out.
func (g *gathering) readSettings() {
	has := map[ip.Family]bool{}
	for _, p := range g.prefixes() {
		has[ip.FamilyOf(p.Addr())] = true
	}
	var wanted []doctor.Setting
	for _, f := range ip.Families() {
		if s := ip.ForwardingSetting(f); has[f] {
			wanted = append(wanted, doctor.Setting{Key: s.Key, Want: s.Value})
		}
	}
	if has[ip.IPv4] {
		wanted = append(wanted, doctor.Setting{Key: "net/ipv4/conf/all/rp_filter"})
	}
	for _, l := range g.facts.Links {
		if l.Missing || !has[ip.IPv4] {
			continue
		}
		forwarding := ip.LinkSetting(ip.IPv4, l.Name, "forwarding", "1")
		wanted = append(wanted, doctor.Setting{Key: forwarding.Key, Link: l.Name, Want: forwarding.Value},
			doctor.Setting{Key: ip.LinkSetting(ip.IPv4, l.Name, "rp_filter", "").Key, Link: l.Name})
	}
	for _, s := range wanted {
		value, err := os.ReadFile(sysctlRoot + s.Key)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			g.unread(doctor.PartSettings, err)
			return
		}
		s.Value = strings.TrimSpace(string(value))
		g.facts.Settings = append(g.facts.Settings, s)
	}
}

// readFill reads how full the kernel's tables are.
func (g *gathering) readFill() {
	fill := &g.facts.Fill
	count, err := readNumber(sysctlRoot + "net/netfilter/nf_conntrack_count")
	if err == nil {
		var most int
		if most, err = readNumber(sysctlRoot + "net/netfilter/nf_conntrack_max"); err == nil {
			fill.Conntrack = &doctor.Level{Count: count, Max: most}
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) { // a kernel that tracks no connections has no table
		g.unread(doctor.PartConntrack, err)
	}
	tables, err := inspect.NeighborTables()
	if err != nil {
		g.unread(doctor.PartNeighbors, err)
		return
	}
	if g.reader == nil {
		return
	}
	neighbors, err := g.reader.Neighbors()
	if err != nil {
		g.unread(doctor.PartNeighbors, err)
		return
	}
	used := map[ip.Family]int{}
	for _, n := range neighbors {
		if !n.Permanent && n.Addr.IsValid() && n.State != "NOARP" {
			used[ip.FamilyOf(n.Addr)]++
		}
	}
	for _, f := range ip.Families() {
		if t := tables.Of(f); t != nil {
			fill.Neighbors.Set(f, &doctor.Level{Count: used[f], Max: t.Max})
		}
	}
}

func readNumber(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// told are the counters that tell of loss, by the kernel's names.
func told(name string) bool {
	return slices.Contains([]string{
		"Ip.ReasmReqds", "Ip.ReasmFails", "Ip6ReasmReqds", "Ip6ReasmFails", "Ip.InAddrErrors", "Ip.OutNoRoutes", "Udp.InCsumErrors", "Udp.RcvbufErrors", "Tcp.InCsumErrors", "TcpExt.IPReversePathFilter",
	}, name)
}

// readCounters reads the counters. Those that a kernel does not have are left out.
func readCounters() map[string]uint64 {
	all := map[string]uint64{}
	for _, file := range []string{"snmp", "netstat"} {
		text, _ := os.ReadFile(procNet + file)
		pairs(string(text), func(name string, value uint64) { all[name] = value })
	}
	text, _ := os.ReadFile(procNet + "snmp6")
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 2 {
			all[fields[0]], _ = strconv.ParseUint(fields[1], 10, 64)
		}
	}
	for name := range all {
		if !told(name) {
			delete(all, name)
		}
	}
	text, _ = os.ReadFile(procNet + "stat/nf_conntrack")
	columns(string(text), []string{"drop", "early_drop", "insert_failed"}, func(name string, value uint64) { all["conntrack."+name] = value })
	if tables, err := inspect.NeighborTables(); err == nil {
		for _, f := range ip.Families() {
			if t := tables.Of(f); t != nil {
				all["neighbors."+f.String()+".full"] = t.Full
			}
		}
	}
	return all
}

// pairs reads files such as /proc/net/snmp, in which a line of names comes before one of values.
func pairs(text string, tell func(name string, value uint64)) {
	var names []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || len(names) != len(fields) || names[0] != fields[0] {
			names = fields
			continue
		}
		for i, f := range fields[1:] {
			if value, err := strconv.ParseUint(f, 10, 64); err == nil {
				tell(strings.TrimSuffix(fields[0], ":")+"."+names[i+1], value)
			}
		}
		names = nil
	}
}

// columns reads files such as /proc/net/stat/nf_conntrack: a line of names, then one of hexadecimal numbers for each processor.
func columns(text string, names []string, tell func(name string, value uint64)) {
	head, rest, _ := strings.Cut(text, "\n")
	of := strings.Fields(head)
	for _, name := range names {
		i := slices.Index(of, name)
		if i < 0 {
			continue
		}
		var sum uint64
		for line := range strings.Lines(rest) {
			if fields := strings.Fields(line); i < len(fields) {
				value, _ := strconv.ParseUint(fields[i], 16, 64)
				sum += value
			}
		}
		tell(name, sum)
	}
}

// readRises reads the counters again, after a while.
func (g *gathering) readRises(ctx context.Context, before map[string]uint64, wait time.Duration) {
	if len(before) == 0 {
		g.unread(doctor.PartCounters, errors.New("the kernel shows none below "+procNet))
		return
	}
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	for name, value := range readCounters() {
		c := doctor.Counter{Name: name, Value: value}
		if was, ok := before[name]; ok && value > was {
			c.Rise = value - was
		}
		if c.Value > 0 {
			g.facts.Counters = append(g.facts.Counters, c)
		}
	}
	slices.SortFunc(g.facts.Counters, func(a, b doctor.Counter) int { return strings.Compare(a.Name, b.Name) })
}

// namespacePaths lists paths of all network namespaces that are pinned or that a process is in, by inode: as text "net:[4026531840]".
func namespacePaths() map[string]string {
	paths := map[string]string{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		path := filepath.Join("/proc", e.Name(), "ns", "net")
		if inode, err := os.Readlink(path); err == nil && paths[inode] == "" {
			paths[inode] = path
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo") // proc_pid_mountinfo(5)
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[3], "net:[") {
			if path, err := unescape(fields[4]); err == nil {
				paths[fields[3]] = path // which lasts longer than that of a process
			}
		}
	}
	return paths
}

// unescape reads a path of mountinfo, which has spaces and the like as octal numbers.
func unescape(path string) (string, error) {
	return strconv.Unquote(`"` + strings.ReplaceAll(path, `"`, `\"`) + `"`)
}
