//go:build linux

// Package lab runs whole Tulle networks on one machine: simulated hosts, each with the real daemon.
package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tulle/internal/netns"
	"tulle/ip"
)

// Config describes a lab.
type Config struct {
	// Name tells detached labs apart. Default "lab".
	Name string
	// Hosts, Segments and Containers (per host) are how many there are of each.
	// Hosts are dealt to the segments in blocks of equal size.
	Hosts, Segments, Containers int
	// EtcdMembers is how many members etcd has. Default 1.
	EtcdMembers int
	// EtcdTLS makes etcd serve clients over TLS, and only those with a
	// certificate of the lab's own authority. Not for a detached lab.
	EtcdTLS bool
	// Families that the hosts' underlay and the overlay have. Default both.
	Families []ip.Family
	// Network of the overlay; a family left out gets a default.
	Network ip.Dual[netip.Prefix]
	// Backend is the Backend object of the network configuration.
	Backend map[string]any
	// Tulled and Tulle are the paths of the two programs.
	Tulled, Tulle string
	// FindUplink has tulled find its uplink, instead of being told.
	FindUplink bool
	// FastPath is the value of tulled's --fast-path. Default off.
	FastPath string
	// DaemonArgs are further flags for the daemon of a host, which come last.
	DaemonArgs func(*Host) []string `json:"-"`
	// Detach lets namespaces and processes outlive this process, until Remove.
	Detach bool
	// Dir holds all files. Default: a temporary one, or that of Name if Detach.
	Dir string
	// Progress is told of each step as it is done. May be nil.
	Progress func(message string) `json:"-"`
}

// Lab is a running network. Its steps are called in the order Up calls them.
type Lab struct {
	// Config is complete: with the defaults that New filled in.
	Config Config
	Hosts  []*Host
	Etcd   *Etcd

	router   *node
	launcher *launcher
}

// New builds the underlay: hosts, segments, router. Nothing runs in it yet.
// Whoever gets no error calls Close.
func New(ctx context.Context, config Config) (*Lab, error) {
	config, err := config.complete()
	if err != nil {
		return nil, err
	}
	if err := makeDir(&config); err != nil {
		return nil, err
	}
	l := &Lab{Config: config}
	if !config.Detach {
		l.launcher = newLauncher()
	}
	l.Etcd = &Etcd{lab: l, port: etcdPort}
	if config.EtcdTLS {
		if l.Etcd.authority, err = newAuthority(config.Dir); err != nil {
			return nil, errors.Join(err, removeDir(config.Dir))
		}
	}
	if err := l.build(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	l.progress("underlay: %s on %s joined by a router", count(config.Hosts, "host"), count(config.Segments, "segment"))
	return l, nil
}

// Up takes all steps from etcd to containers.
func (l *Lab) Up(ctx context.Context) error {
	for _, step := range []struct {
		run  func(context.Context) error
		done string
	}{
		{l.Etcd.Start, "etcd: serving"},
		{l.Configure, "network configuration: " + l.NetworkConfig()},
		{l.StartDaemons, "tulled: ready on every host"},
		{l.StartContainers, "containers: attached to the bridge of every host"},
		{l.awaitBridges, "tulled: knows the bridge of every host"},
		{l.awaitFastPath, "fast path: as far as there is one, it leads to all containers"},
	} {
		if err := step.run(ctx); err != nil {
			return err
		}
		l.progress("%s", step.done)
	}
	return nil
}

// Close stops what runs and removes everything the lab made. It may be called
// at any stage, and after ctx of New has ended.
func (l *Lab) Close() error {
	var errs []error
	for _, host := range l.Hosts {
		host.KillDaemon()
	}
	l.Etcd.Kill()
	if l.launcher != nil {
		l.launcher.close()
	}
	errs = append(errs, l.demolish())
	errs = append(errs, l.Etcd.removeDataDir(), unmountBPF(l.Config.Dir), removeDir(l.Config.Dir))
	return errors.Join(errs...)
}

// Containers lists the containers of all hosts.
func (l *Lab) Containers() []*Container {
	var all []*Container
	for _, host := range l.Hosts {
		all = append(all, host.Containers...)
	}
	return all
}

// Names lists the hosts, the containers and the router.
func (l *Lab) Names() []string {
	var names []string
	for _, n := range l.nodes() {
		names = append(names, n.name)
	}
	slices.Sort(names)
	return names
}

// Namespace returns that of a host, a container or the router, by name.
func (l *Lab) Namespace(name string) (*netns.Namespace, error) {
	for _, n := range l.nodes() {
		if n.name == name {
			return n.ns, nil
		}
	}
	return nil, fmt.Errorf("no %q in lab %s, which has %s", name, l.Config.Name, strings.Join(l.Names(), ", "))
}

// Host returns the host with the given name, nil if there is none.
func (l *Lab) Host(name string) *Host {
	for _, host := range l.Hosts {
		if host.Name == name {
			return host
		}
	}
	return nil
}

func (l *Lab) progress(format string, args ...any) {
	if l.Config.Progress != nil {
		l.Config.Progress(fmt.Sprintf(format, args...))
	}
}

// count puts a number before a noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Check reports a configuration that New would refuse.
func (c Config) Check() error {
	_, err := c.complete()
	return err
}

func (c Config) complete() (Config, error) {
	for _, count := range []struct {
		name  string
		value *int
		max   int
	}{
		{"hosts", &c.Hosts, maxHosts},
		{"segments", &c.Segments, maxSegments},
		{"etcd members", &c.EtcdMembers, maxMembers},
	} {
		if *count.value == 0 {
			*count.value = 1
		}
		if *count.value < 1 || *count.value > count.max {
			return c, fmt.Errorf("%s is %d, must be 1 to %d", count.name, *count.value, count.max)
		}
	}
	if c.Segments > c.Hosts {
		return c, fmt.Errorf("segments is %d, must not exceed the %d hosts", c.Segments, c.Hosts)
	}
	if c.Containers < 0 {
		return c, fmt.Errorf("containers is %d, must not be negative", c.Containers)
	}
	if c.Name == "" {
		c.Name = "lab"
	}
	if filepath.Base(c.Name) != c.Name || c.Name == "." || c.Name == ".." {
		return c, fmt.Errorf("name is %q, must be usable as a file name", c.Name)
	}
	if len(c.Families) == 0 {
		families := ip.Families()
		c.Families = families[:]
	}
	for _, family := range c.Families {
		if !c.Network.Of(family).IsValid() {
			c.Network.Set(family, defaultNetwork.Of(family))
		}
	}
	c.FastPath = cmp.Or(c.FastPath, "off")
	if err := c.checkFastPath(); err != nil {
		return c, err
	}
	if c.Backend == nil {
		c.Backend = map[string]any{"Type": "vxlan"}
	}
	return c, nil
}

func makeDir(c *Config) error {
	switch {
	case c.Dir != "":
	case c.Detach:
		c.Dir = Dir(c.Name)
	default:
		// Not testing.T.TempDir: the path of a unix socket has at most 107 bytes.
		dir, err := os.MkdirTemp("", "tulle-lab-")
		if err != nil {
			return fmt.Errorf("make lab directory: %w", err)
		}
		c.Dir = dir
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(c.Dir), 0o755); err != nil {
		return permissionHint(fmt.Errorf("make lab directory: %w", err))
	}
	if err := os.Mkdir(c.Dir, 0o755); errors.Is(err, os.ErrExist) {
		return fmt.Errorf("lab %q exists already: remove it with `tulle lab down --name %s`", c.Name, c.Name)
	} else if err != nil {
		return fmt.Errorf("make lab directory: %w", err)
	}
	return nil
}
