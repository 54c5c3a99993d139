// Package holder tells which programs on this host hand out addresses of its lease. Two that do give the same address to two containers.
package holder

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"tulle/internal/printable"
	"tulle/ip"
	"tulle/subnet"
)

// dockerBridge is the bridge of Docker's default network.
const dockerBridge = "docker0"

// Host is what is known of a host's allocators.
type Host struct {
	Whole    ip.Dual[netip.Prefix] // the whole network; a bridge with a wider prefix is of the underlay
	Bridges  []Bridge              // of the kernel, Docker's and those of CNI plugins
	Networks []Network             // with addresses that the host-local plugin has handed out
	Confs    []Conf                // of CNI, that hand out addresses of the lease
}

// Bridge is a bridge with addresses.
type Bridge struct {
	Name  string
	Addrs []netip.Prefix
}

// Network is a directory of the host-local plugin's.
type Network struct {
	Name  string
	Dir   string
	Addrs []netip.Addr // in use
}

// Owner is the program that is to hand out the lease: it may be there already.
type Owner struct {
	Bridges []string
	Network string   // of CNI; empty for Docker
	Options []string // of tulle cni, which lead to this host's directories; none if those are the usual ones
}

// Check returns an error that names every program besides the owner that hands out addresses of the lease, each with what ends it.
func (h Host) Check(lease subnet.Subnets, own Owner) error {
	var errs []error
	refuse := func(what, remedy string) {
		errs = append(errs, fmt.Errorf("%s, and only one may hand out addresses of %s: %s", what, name(lease), remedy))
	}
	known := map[string]bool{}
	for _, c := range h.Confs {
		if c.Network == own.Network || !c.leases(lease) {
			continue
		}
		known[c.Network] = true
		refuse(fmt.Sprintf("CNI network %s holds it by %s", shown(c.Network), shown(c.File)), c.remedy(own))
	}
	for _, n := range h.Networks {
		held := slices.DeleteFunc(slices.Clone(n.Addrs), func(a netip.Addr) bool { return !contains(lease, a) })
		if n.Name == own.Network || len(held) == 0 || known[n.Name] {
			continue
		}
		refuse(fmt.Sprintf("containers of CNI network %s hold %s (%s)", shown(n.Name), some(held), shown(n.Dir)),
			"stop them first; if none is left, rm -r -- "+ip.ShellWord(n.Dir))
	}
	for _, b := range h.Bridges {
		if held := b.held(lease, h.Whole); len(held) > 0 && !slices.Contains(own.Bridges, b.Name) {
			refuse(fmt.Sprintf("bridge %s holds %s", shown(b.Name), some(held)), b.remedy())
		}
	}
	return errors.Join(errs...)
}

// Gateway returns an error if another bridge than own has the address that the container bridge of the lease has.
func (h Host) Gateway(lease subnet.Subnets, own string) error {
	for _, b := range h.Bridges {
		for _, a := range b.Addrs {
			p := lease.Of(ip.FamilyOf(a.Addr()))
			if b.Name == own || !p.IsValid() || a.Addr() != p.Masked().Addr().Next() {
				continue
			}
			return fmt.Errorf("bridge %s has %s, the gateway of this host's subnet %s, so two would hand out the same addresses: %s", shown(b.Name), a.Addr(), p, b.remedy())
		}
	}
	return nil
}

func (b Bridge) held(lease subnet.Subnets, whole ip.Dual[netip.Prefix]) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(b.Addrs), func(a netip.Prefix) bool {
		p := lease.Of(ip.FamilyOf(a.Addr()))
		return !p.IsValid() || !p.Overlaps(a.Masked()) || a.Bits() < whole.Of(ip.FamilyOf(a.Addr())).Bits()
	})
}

// remedy is what takes the lease from a bridge.
func (b Bridge) remedy() string {
	switch {
	case b.Name == dockerBridge:
		return "to take it from Docker: tulle docker unconfigure --restart"
	case strings.HasPrefix(b.Name, "br-"):
		return "for a Docker network, tulle docker status names it, and docker network rm removes it; any other: ip link del " + ip.ShellWord(b.Name)
	}
	return "once what hangs on it has ended: ip link del " + ip.ShellWord(b.Name)
}

// remedy is what takes the lease from a CNI network.
func (c Conf) remedy(own Owner) string {
	switch {
	case c.Plugin == "tulle" && c.Network == "tulle" && filepath.Ext(c.File) == ".conflist": // what tulle cni install writes
		return "stop its containers, and then: " + own.cni("uninstall", "--conf-dir", filepath.Dir(c.File), "--conf", filepath.Base(c.File))
	case c.Plugin == "flannel" && own.Network != "":
		return own.cni("install", "--as", "flannel") + " serves that network with Tulle's plugin, containers and all; to replace it, stop its containers first, and remove the file"
	}
	return "stop its containers, and remove the file"
}

// cni is a command of tulle cni for this host's directories.
func (o Owner) cni(words ...string) string {
	words = slices.Concat([]string{"tulle", "cni"}, words, o.Options)
	for i, w := range words {
		words[i] = ip.ShellWord(w)
	}
	return strings.Join(words, " ")
}

// shown makes a name from a file fit for a line: a line that is not is escaped as a whole, the command in it too.
func shown(name string) string { return printable.Text(name, printable.Line) }

// name names a lease, which may not be known yet.
func name(lease subnet.Subnets) string {
	var texts []string
	for _, f := range ip.Families() {
		if p := lease.Of(f); p.IsValid() {
			texts = append(texts, p.String())
		}
	}
	if len(texts) == 0 {
		return "this host's subnet"
	}
	return "this host's subnet " + strings.Join(texts, " and ")
}

func contains(lease subnet.Subnets, a netip.Addr) bool {
	p := lease.Of(ip.FamilyOf(a))
	return p.IsValid() && p.Contains(a)
}

// some lists the first few.
func some[T fmt.Stringer](list []T) string {
	const most = 3
	var texts []string
	for _, v := range list[:min(most, len(list))] {
		texts = append(texts, v.String())
	}
	if more := len(list) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(texts, ", "), more)
	}
	return strings.Join(texts, " and ")
}
