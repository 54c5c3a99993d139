//go:build linux

package main

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"tulle/internal/lab"
	"tulle/ip"
)

const defaultLabName = "default"

func newLabCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Run a whole network on this machine",
		Long: `Run a whole network on this machine: hosts are network namespaces, each with the
real tulled and with containers; an etcd and a router join them. It needs root,
or for "lab run" the right to make a user namespace, and no other program.`,
	}
	cmd.AddCommand(
		newLabRunCommand(),
		newLabUpCommand(),
		newLabStatusCommand(),
		newLabExecCommand(),
		newLabDownCommand(),
	)
	return cmd
}

// labFlags describe a lab on the command line.
type labFlags struct {
	name                       string
	hosts, segments, container int
	backend                    string
	directRouting              bool
	vni                        int
	family                     string
	network, ipv6Network       string
	tulled                     string
	fastPath, probe            string
}

func (f *labFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	registerLabName(cmd, &f.name)
	flags.IntVar(&f.hosts, "hosts", 3, "number of hosts")
	flags.IntVar(&f.segments, "segments", 1, "number of L3 segments, joined by a router, that the hosts are on")
	flags.IntVar(&f.container, "containers", 2, "number of containers on each host")
	flags.StringVar(&f.backend, "backend", "vxlan", "vxlan, ipip, host-gw or alloc")
	flags.BoolVar(&f.directRouting, "direct-routing", false, "vxlan and ipip: use direct routes between hosts of one segment")
	flags.IntVar(&f.vni, "vni", 0, "vxlan: network identifier (default: tulled's)")
	flags.StringVar(&f.family, "family", "dual", "ipv4, ipv6 or dual, for hosts and containers")
	flags.StringVar(&f.network, "network", "", "IPv4 network of all containers (default: the lab's)")
	flags.StringVar(&f.ipv6Network, "ipv6-network", "", "IPv6 network of all containers (default: the lab's)")
	flags.StringVar(&f.fastPath, "fast-path", "auto", "auto, on or off: whether packets may skip the IP stack while netfilter lets their flow through")
	flags.StringVar(&f.probe, "probe", "off", "on or off: whether hosts ask each other all the time whether packets arrive")
	flags.StringVar(&f.tulled, "tulled", "", "path of tulled (default: beside this program)")
	for name, values := range map[string][]string{
		"backend":   {"vxlan", "ipip", "host-gw", "alloc"},
		"family":    {"ipv4", "ipv6", "dual"},
		"fast-path": {"auto", "on", "off"},
		"probe":     {"on", "off"},
	} {
		// It fails only for a flag that does not exist.
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
}

func registerLabName(cmd *cobra.Command, name *string) {
	cmd.Flags().StringVar(name, "name", defaultLabName, "name of the lab, if there are several")
}

// config checks the flags. Its errors are about the command line.
func (f *labFlags) config(progress io.Writer) (lab.Config, error) {
	for name, count := range map[string]int{"hosts": f.hosts, "segments": f.segments} {
		if count < 1 {
			return lab.Config{}, usageError(fmt.Errorf("--%s is %d, must be 1 or more", name, count))
		}
	}
	config := lab.Config{
		Name:       f.name,
		Hosts:      f.hosts,
		Segments:   f.segments,
		Containers: f.container,
		FastPath:   f.fastPath,
		Progress:   printProgress(progress),
	}
	for _, set := range []func(*lab.Config) error{f.setFamilies, f.setNetworks, f.setBackend, f.setPrograms, f.checkFastPath, f.setProbe} {
		if err := set(&config); err != nil {
			return config, usageError(err)
		}
	}
	if err := config.Check(); err != nil {
		return config, usageError(err)
	}
	return config, nil
}

func (f *labFlags) setFamilies(config *lab.Config) error {
	families := ip.Families()
	switch f.family {
	case "dual":
		config.Families = families[:]
	case "ipv4":
		config.Families = []ip.Family{ip.IPv4}
	case "ipv6":
		config.Families = []ip.Family{ip.IPv6}
	default:
		return fmt.Errorf("--family is %q, must be ipv4, ipv6 or dual", f.family)
	}
	return nil
}

func (f *labFlags) setNetworks(config *lab.Config) error {
	for _, network := range []struct {
		flag, text string
		family     ip.Family
	}{
		{"--network", f.network, ip.IPv4},
		{"--ipv6-network", f.ipv6Network, ip.IPv6},
	} {
		if network.text == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(network.text)
		if err != nil || ip.FamilyOf(prefix.Addr()) != network.family {
			return fmt.Errorf("%s is %q, must be an %s network such as 10.1.0.0/16 or fd00:1::/48", network.flag, network.text, network.family)
		}
		config.Network.Set(network.family, prefix.Masked())
	}
	return nil
}

func (f *labFlags) setBackend(config *lab.Config) error {
	if !slices.Contains([]string{"vxlan", "ipip", "host-gw", "alloc"}, f.backend) {
		return fmt.Errorf("--backend is %q, must be vxlan, ipip, host-gw or alloc", f.backend)
	}
	if f.backend != "vxlan" && f.vni != 0 {
		return fmt.Errorf("--backend %s has no --vni: only vxlan has", f.backend)
	}
	if f.backend != "vxlan" && f.backend != "ipip" && f.directRouting {
		return fmt.Errorf("--backend %s has no --direct-routing: only vxlan and ipip have", f.backend)
	}
	if f.backend == "ipip" && f.family != ip.IPv4.String() {
		return fmt.Errorf("--backend ipip carries IPv4 only: use --family ipv4")
	}
	if f.backend == "host-gw" && f.segments > 1 {
		return fmt.Errorf("--backend host-gw connects hosts of one segment only: use --segments 1, or --backend vxlan")
	}
	config.Backend = map[string]any{"Type": f.backend}
	if f.directRouting {
		config.Backend["DirectRouting"] = true
	}
	if f.vni != 0 {
		config.Backend["VNI"] = f.vni
	}
	return nil
}

func (f *labFlags) setPrograms(config *lab.Config) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	config.Tulle = self
	config.Tulled, err = filepath.Abs(cmp.Or(f.tulled, filepath.Join(filepath.Dir(self), "tulled")))
	if err != nil {
		return err
	}
	if _, err := os.Stat(config.Tulled); err != nil {
		return fmt.Errorf("%w: build tulled, or tell where it is with --tulled", err)
	}
	return nil
}

func (f *labFlags) checkFastPath(*lab.Config) error {
	if !slices.Contains([]string{"auto", "on", "off"}, f.fastPath) {
		return fmt.Errorf("--fast-path is %q, must be auto, on or off", f.fastPath)
	}
	return nil
}

func (f *labFlags) setProbe(config *lab.Config) error {
	if !slices.Contains([]string{"on", "off"}, f.probe) {
		return fmt.Errorf("--probe is %q, must be on or off", f.probe)
	}
	if f.probe == "on" { // an earlier tulled has no such flag
		config.DaemonArgs = func(*lab.Host) []string { return []string{"--probe=on"} }
	}
	return nil
}

// printProgress prints each step with the time since the start.
func printProgress(w io.Writer) func(string) {
	start := time.Now()
	return func(message string) {
		fmt.Fprintf(w, "%6.2fs  %s\n", time.Since(start).Seconds(), message)
	}
}
