package doctor

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"tulle/internal/trouble"
	"tulle/ip"
)

// usualPlugins is where distributions put the CNI project's plugins.
const usualPlugins = "/usr/lib/cni"

func fileMissing(f Facts) []Finding {
	leased := slices.ContainsFunc(f.Networks(), func(n Network) bool { return len(n.Subnets) > 0 })
	if !f.File.Missing || !leased {
		return nil
	}
	return []Finding{{Subject: f.File.Path, Text: f.File.Path + " is gone, from which Docker and CNI plugins have this host's subnet", Fix: []string{"systemctl restart tulled"}, Safe: true}}
}

func cniShadowed(f Facts) []Finding {
	c := f.CNI
	if c == nil || c.Ours == "" || c.First == c.Ours {
		return nil
	}
	first, aside := ip.ShellWord(c.First), ip.ShellWord(c.First+".off")
	return []Finding{{
		Subject: c.First, Sure: Likely,
		Text: fmt.Sprintf("runtimes take %s, which sorts before %s: containers get no addresses of this host's subnet", c.First, c.Ours),
		Fix:  []string{"mv -- " + first + " " + aside}, Undo: []string{"mv -- " + aside + " " + first},
	}}
}

func cniDelegateMissing(f Facts) []Finding {
	c := f.CNI
	if c == nil || len(c.Missing) == 0 {
		return nil
	}
	one := Finding{Subject: c.Ours, Text: fmt.Sprintf("%s calls %s, which %s lacks: no container starts", c.Ours, strings.Join(c.Missing, ", "), c.BinDir)}
	for _, name := range c.Missing {
		target := ip.ShellWord(filepath.Join(c.BinDir, name))
		switch {
		case name == "tulle":
			one.Fix = append(one.Fix, "tulle cni install --bin-dir "+ip.ShellWord(c.BinDir))
		case c.BinDir != usualPlugins && slices.Contains(c.Elsewhere, name):
			one.Fix = append(one.Fix, "ln -s "+ip.ShellWord(filepath.Join(usualPlugins, name))+" "+target)
			one.Undo = append(one.Undo, "rm -- "+target)
		default:
			one.Remedy = fmt.Sprintf("Install the CNI project's plugins into %s: Debian's containernetworking-plugins puts them into %s.", c.BinDir, usualPlugins)
		}
	}
	return []Finding{one}
}

func cniAddressesExhausted(f Facts) (all []Finding) {
	if f.CNI == nil {
		return nil
	}
	for _, n := range f.CNI.Networks {
		if n.Used < n.Size && n.Used*100 < n.Size*nearly {
			continue
		}
		one := Finding{Subject: n.Name, Text: fmt.Sprintf("CNI network %s has handed out %d of the %d addresses of %s", n.Name, n.Used, n.Size, n.Pool)}
		if n.Used < n.Size {
			one.Severity = trouble.Warning
		}
		if n.Gone > 0 {
			one.Text += fmt.Sprintf(", of which no container has %d", n.Gone)
			one.Sure = Likely
			words := []string{"rm --"}
			for _, a := range n.Stale {
				words = append(words, ip.ShellWord(filepath.Join(n.Dir, a.String())))
			}
			one.Fix = []string{strings.Join(words, " ")}
		} else {
			one.Remedy = "Stop containers, or give hosts larger subnets: SubnetLen with tulle config set, and tulled restarted on each host."
		}
		all = append(all, one)
	}
	return all
}

// bridgeStale is what tulled tells, or, while it does not run, Docker; with Docker's command for Docker's networks.
func bridgeStale(f Facts) []Finding {
	all := told(trouble.BridgeStale)(f)
	if f.Docker == nil {
		return all
	}
	for _, n := range f.Docker.Networks {
		if !foreign(f, n.Subnets) {
			continue
		}
		i := slices.IndexFunc(all, func(one Finding) bool { return one.Subject == n.Bridge })
		if i < 0 {
			all = append(all, Finding{Subject: n.Bridge, Text: fmt.Sprintf("Docker's network %s: %s", n.Name, n.Problem)})
			i = len(all) - 1
		}
		if n.Remedy != "" && plain(strings.ReplaceAll(n.Remedy, " && ", " ")) {
			all[i].Fix, all[i].Remedy = strings.Split(n.Remedy, " && "), ""
		}
		if n.Containers > 0 {
			all[i].Text += fmt.Sprintf(" (%d containers on it are to be stopped first)", n.Containers)
		}
	}
	return all
}

// foreign reports whether subnets of a Docker network are of the network, and not this host's.
func foreign(f Facts, subnets []netip.Prefix) bool {
	own := f.ownSubnets()
	return slices.ContainsFunc(subnets, func(p netip.Prefix) bool {
		return f.inNetworks(p.Addr()) && !slices.ContainsFunc(own, p.Overlaps)
	})
}

func (f Facts) ownSubnets() (all []netip.Prefix) {
	for _, n := range f.Networks() {
		all = append(all, n.Subnets...)
	}
	return all
}
