//go:build linux

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tulle/internal/atomicfile"
	"tulle/internal/holder"
	"tulle/internal/regularfile"
	"tulle/internal/settings"
)

// cniInstall is where the plugin and its configuration go.
type cniInstall struct {
	plugin          string // the program; empty: beside this one
	binDir, as      string
	confDir, conf   string // conf is a file name
	dataDir         string // of the plugins
	cniVersion      string
	runDir, envFile string // tulled's
	force           bool
}

// cniNetwork is the name that the sample gives the network.
const cniNetwork = "tulle"

// maxPlugin bounds plugins and configurations that are read, in bytes.
const maxPlugin = 256 << 20

func newCNICommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cni",
		Short: "Connect container runtimes to the network by CNI",
	}
	cmd.AddCommand(newCNIInstallCommand(), newCNIUninstallCommand())
	return cmd
}

func newCNIInstallCommand() *cobra.Command {
	var i cniInstall
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install the CNI plugin and a configuration for it",
		Long: `Install the CNI plugin, and a configuration that makes container runtimes use it with the bridge, host-local and portmap
plugins. Both are written whole or not at all, so that this may be repeated, for an upgrade too, while runtimes run. A configuration that was changed
by hand is kept unless --force is given. Nothing is installed beside others that hand out addresses of this host's subnet: docker0, another Docker
network, another CNI configuration or what it has left of containers.

With --as flannel the plugin takes the place of flannel's, and serves the configuration that is there.`,
		Example: "  tulle cni install\n  tulle cni install --bin-dir /usr/lib/cni\n  tulle cni install --as flannel",
		Args:    cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			if err := i.check(); err != nil {
				return usageError(err)
			}
			return i.run(cmd.Context(), cmd.OutOrStdout())
		}).runE,
	}
	i.addFlags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&i.cniVersion, "cni-version", "",
		"`version` of the configuration (default: "+usualCNIVersion+", or an older one if a plugin does not know that); 1.1.0 adds STATUS and GC, which older runtimes and plugins do not know")
	flags.StringVar(&i.plugin, "plugin", "", "`path` of tulle-cni (default: beside this program)")
	flags.BoolVar(&i.force, "force", false, "replace a configuration that was changed by hand")
	settings.RunDir().Define(flags, &i.runDir)
	settings.SubnetFile().Define(flags, &i.envFile)
	return cmd
}

// addFlags adds what tells where things go.
func (i *cniInstall) addFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&i.binDir, "bin-dir", defaultBinDir, "`directory` of the runtimes' CNI plugins")
	flags.StringVar(&i.confDir, "conf-dir", defaultConfDir, "`directory` of the runtimes' CNI configurations")
	flags.StringVar(&i.dataDir, "data-dir", defaultCNIData, "`directory` of what CNI plugins know of containers")
	flags.StringVar(&i.conf, "conf", "10-tulle.conflist", "`name` of the configuration file; runtimes take the first by name")
	flags.StringVar(&i.as, "as", "tulle", "`name` of the plugin: tulle, or flannel for a configuration that is there")
}

func (i *cniInstall) checkNames() error {
	if i.as != "tulle" && i.as != "flannel" {
		return fmt.Errorf("--as is %q, must be tulle or flannel", i.as)
	}
	if filepath.Base(i.conf) != i.conf || filepath.Ext(i.conf) != ".conflist" {
		return fmt.Errorf("--conf is %q, must be a file name that ends in .conflist", i.conf)
	}
	return nil
}

func (i *cniInstall) check() error {
	if err := i.checkNames(); err != nil {
		return err
	}
	if i.cniVersion != "" && !slices.Contains(cniVersions(), i.cniVersion) {
		return fmt.Errorf("--cni-version is %q, must be one of %s", i.cniVersion, strings.Join(cniVersions(), ", "))
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	i.plugin = cmp.Or(i.plugin, filepath.Join(filepath.Dir(self), "tulle-cni"))
	if _, err := os.Stat(i.plugin); err != nil {
		return fmt.Errorf("%w: build tulle-cni, or tell where it is with --plugin", err)
	}
	if sameFile(self, i.target()) {
		return fmt.Errorf("--bin-dir is %s, where %s is this program: runtimes look for plugins in a directory of their own", i.binDir, i.as)
	}
	return nil
}

func (i *cniInstall) target() string { return filepath.Join(i.binDir, i.as) }

func (i *cniInstall) confFile() string { return filepath.Join(i.confDir, i.conf) }

func sameFile(a, b string) bool {
	first, err := os.Stat(a)
	second, otherErr := os.Stat(b)
	return err == nil && otherErr == nil && os.SameFile(first, second)
}

// run installs the plugin before the configuration that calls for it, once nothing speaks against either.
func (i *cniInstall) run(ctx context.Context, w io.Writer) error {
	if i.as == "tulle" {
		if err := i.checkHolders(); err != nil {
			return err
		}
		if err := i.chooseVersion(ctx); err != nil {
			return err
		}
	}
	program, err := regularfile.ReadTarget(i.plugin, maxPlugin)
	if err != nil {
		return fmt.Errorf("read plugin: %w", err)
	}
	files := []placed{{path: i.target(), content: program, mode: 0o755, replace: true}}
	if i.as == "tulle" {
		conf, err := i.conflist()
		if err != nil {
			return err
		}
		files = append(files, placed{path: i.confFile(), content: conf, mode: 0o644, replace: i.force})
	}
	for n := range files {
		if err := files[n].look(); err != nil {
			return err
		}
	}
	for _, f := range files {
		if err := f.put(w); err != nil {
			return err
		}
	}
	if i.as != "tulle" {
		return nil
	}
	i.sayMissing(w)
	return i.sayWinner(w)
}

// placed is a file that is to have some content.
type placed struct {
	path    string
	content []byte
	mode    fs.FileMode
	replace bool // another content

	there, same bool // as look has found
}

// look reads what is there, and returns an error if that can be no such file.
func (f *placed) look() error {
	present, err := regularfile.ReadTarget(f.path, maxPlugin)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read what is there: %w", err)
	}
	f.there, f.same = err == nil, err == nil && bytes.Equal(present, f.content)
	return nil
}

// put makes the file hold the content, once it was looked at, and says what it did.
func (f *placed) put(w io.Writer) error {
	switch {
	case f.same:
		fmt.Fprintf(w, "%s is up to date\n", f.path)
		return nil
	case f.there && !f.replace:
		fmt.Fprintf(w, "%s is kept, since it differs from the sample: --force replaces it\n", f.path)
		return nil
	}
	if err := atomicfile.Write(f.path, f.content, f.mode); err != nil {
		return err
	}
	fmt.Fprintf(w, "%s written\n", f.path)
	return nil
}

// conflist is the sample configuration.
func (i *cniInstall) conflist() ([]byte, error) {
	type delegate struct {
		HairpinMode      bool `json:"hairpinMode"`
		IsDefaultGateway bool `json:"isDefaultGateway"`
	}
	type plugin struct {
		Type         string          `json:"type"`
		SubnetFile   string          `json:"subnetFile,omitempty"`
		RunDir       string          `json:"runDir,omitempty"`
		Delegate     *delegate       `json:"delegate,omitempty"`
		Capabilities map[string]bool `json:"capabilities,omitempty"`
	}
	tulle := plugin{Type: i.as, Delegate: &delegate{HairpinMode: true, IsDefaultGateway: true}}
	if i.envFile != settings.DefaultSubnetFile {
		tulle.SubnetFile = i.envFile
	}
	if i.runDir != settings.DefaultRunDir {
		tulle.RunDir = i.runDir
	}
	text, err := json.MarshalIndent(struct {
		CNIVersion string   `json:"cniVersion"`
		Name       string   `json:"name"`
		Plugins    []plugin `json:"plugins"`
	}{i.cniVersion, cniNetwork, []plugin{tulle, {Type: "portmap", Capabilities: map[string]bool{"portMappings": true}}}}, "", "  ")
	return append(text, '\n'), err
}

// sayMissing names the plugins that the sample needs and that are not there.
func (i *cniInstall) sayMissing(w io.Writer) {
	var missing []string
	// The runtime runs loopback by itself.
	for _, name := range append(delegates(), "loopback") {
		if _, err := os.Stat(filepath.Join(i.binDir, name)); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		fmt.Fprintf(w, "%s lacks %s: install the CNI project's plugins there (Debian's containernetworking-plugins puts them into /usr/lib/cni)\n",
			i.binDir, strings.Join(missing, ", "))
	}
}

// sayWinner tells which configuration runtimes take: the first by name of those with an extension that they know.
func (i *cniInstall) sayWinner(w io.Writer) error {
	entries, err := os.ReadDir(i.confDir)
	if err != nil {
		return fmt.Errorf("list configurations: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() || !holder.IsConf(e.Name()) {
			continue
		}
		if e.Name() == i.conf {
			fmt.Fprintf(w, "runtimes use %s, the first in %s\n", i.conf, i.confDir)
		} else {
			fmt.Fprintf(w, "runtimes use %s, which sorts before %s in %s: remove it, or install with --conf and a name that sorts before it\n",
				shownName(e.Name()), i.conf, i.confDir)
		}
		return nil
	}
	return nil
}
