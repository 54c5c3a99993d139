package holder

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"tulle/internal/regularfile"
	"tulle/ip"
	"tulle/subnet"
)

// maxConf is far above what a CNI configuration takes, in bytes.
const maxConf = 1 << 20

// Conf is a CNI configuration that hands out addresses of the lease, or of ranges of its own.
type Conf struct {
	File    string
	Network string // its name, by which the host-local plugin keeps addresses
	Plugin  string // the type of its plugin: tulle, flannel, or another with Ranges
	Bridge  string
	Ranges  []netip.Prefix
}

// leases reports whether the configuration hands out addresses of the lease.
func (c Conf) leases(lease subnet.Subnets) bool {
	return c.Plugin == "tulle" || c.Plugin == "flannel" || slices.ContainsFunc(c.Ranges, func(r netip.Prefix) bool {
		p := lease.Of(ip.FamilyOf(r.Addr()))
		return p.IsValid() && p.Overlaps(r)
	})
}

// ReadConfs reads the configurations in a directory of runtimes. What is none is left out, as runtimes do. A directory that is not
// there has none.
func ReadConfs(dir string) ([]Conf, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list CNI configurations: %w", err)
	}
	var confs []Conf
	for _, e := range entries {
		info, err := os.Stat(filepath.Join(dir, e.Name()))
		if err != nil || !info.Mode().IsRegular() || info.Size() > maxConf || !IsConf(e.Name()) {
			continue
		}
		if c, err := ReadConf(filepath.Join(dir, e.Name())); err == nil && c.Plugin != "" {
			confs = append(confs, c)
		}
	}
	return confs, nil
}

// IsConf reports whether runtimes read a file of that name.
func IsConf(name string) bool {
	return slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(name))
}

// confPlugin is what matters here of a plugin in a configuration, which may also stand alone in its file.
type confPlugin struct {
	Type     string `json:"type"`
	Bridge   string `json:"bridge"`
	Delegate struct {
		Bridge string `json:"bridge"`
	} `json:"delegate"`
	IPAM struct {
		Subnet string `json:"subnet"`
		Ranges [][]struct {
			Subnet string `json:"subnet"`
		} `json:"ranges"`
	} `json:"ipam"`
}

// ReadConf reads a configuration. Plugin is empty if it hands out no addresses.
func ReadConf(file string) (Conf, error) {
	text, err := regularfile.ReadTarget(file, maxConf)
	if err != nil {
		return Conf{}, fmt.Errorf("read CNI configuration: %w", err)
	}
	var list struct {
		Name    string       `json:"name"`
		Plugins []confPlugin `json:"plugins"`
		confPlugin
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return Conf{}, fmt.Errorf("decode %s: %w", file, err)
	}
	c := Conf{File: file, Network: list.Name}
	for _, p := range append(list.Plugins, list.confPlugin) {
		ranges := p.ranges()
		if c.Plugin == "" && (p.Type == "tulle" || p.Type == "flannel" || len(ranges) > 0) {
			c.Plugin, c.Ranges, c.Bridge = p.Type, ranges, cmp.Or(p.Delegate.Bridge, p.Bridge, "cni0")
		}
	}
	return c, nil
}

func (p confPlugin) ranges() (list []netip.Prefix) {
	texts := []string{p.IPAM.Subnet}
	for _, set := range p.IPAM.Ranges {
		for _, r := range set {
			texts = append(texts, r.Subnet)
		}
	}
	for _, text := range texts {
		if r, err := netip.ParsePrefix(text); err == nil {
			list = append(list, r.Masked())
		}
	}
	return list
}

// ReadNetworks reads which addresses the host-local plugin has handed out: a directory per network, with a file per address, below dir.
func ReadNetworks(dir string) ([]Network, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list CNI networks: %w", err)
	}
	var networks []Network
	for _, e := range entries {
		// It may be a link to where the addresses are kept.
		if info, err := os.Stat(filepath.Join(dir, e.Name())); err != nil || !info.IsDir() {
			continue
		}
		n := Network{Name: e.Name(), Dir: filepath.Join(dir, e.Name())}
		files, err := os.ReadDir(n.Dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("list addresses of a CNI network: %w", err)
		}
		for _, f := range files {
			if a, err := netip.ParseAddr(f.Name()); err == nil {
				n.Addrs = append(n.Addrs, a)
			}
		}
		slices.SortFunc(n.Addrs, netip.Addr.Compare)
		networks = append(networks, n)
	}
	return networks, nil
}
