//go:build linux

package main

import (
	"errors"
	"io/fs"
	"path/filepath"

	"tulle/internal/holder"
	"tulle/ip/kernel/bridge"
	"tulle/subnet/flannel"
)

// Where CNI is unless told otherwise.
const (
	defaultBinDir  = "/opt/cni/bin"
	defaultConfDir = "/etc/cni/net.d"
	defaultCNIData = "/var/lib/cni"
)

// checkHolders refuses to give the lease to own while others on this host hand out its addresses.
func checkHolders(confDir, dataDir string, env flannel.Env, own holder.Owner) error {
	confs, err := holder.ReadConfs(confDir)
	if err != nil {
		return err
	}
	networks, err := holder.ReadNetworks(filepath.Join(dataDir, "networks"))
	if err != nil {
		return err
	}
	bridges, err := bridge.List()
	if err != nil {
		return err
	}
	h := holder.Host{Whole: env.Network, Networks: networks, Confs: confs}
	for _, b := range bridges {
		h.Bridges = append(h.Bridges, holder.Bridge(b))
	}
	return h.Check(env.Subnets, own)
}

// checkHolders refuses to write the sample beside others that hand out the lease. A configuration that stays as it is owns what it names.
// Without a lease there are no addresses yet, and whatever would hand some out is refused by the plugin then.
func (i *cniInstall) checkHolders() error {
	own := holder.Owner{Bridges: []string{"cni0"}, Network: cniNetwork}
	if c, err := holder.ReadConf(i.confFile()); err == nil && c.Plugin != "" && !i.force {
		own = holder.Owner{Bridges: []string{c.Bridge}, Network: c.Network}
	}
	for _, f := range []struct{ name, value, usual string }{{"--bin-dir", i.binDir, defaultBinDir}, {"--data-dir", i.dataDir, defaultCNIData}} {
		if f.value != f.usual {
			own.Options = append(own.Options, f.name, f.value)
		}
	}
	env, err := flannel.ReadEnv(i.envFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return checkHolders(i.confDir, i.dataDir, env, own)
}
