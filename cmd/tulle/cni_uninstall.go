//go:build linux

package main

import (
	"bytes"
	"cmp"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	cniplugin "tulle/cni-plugin"

	"tulle/internal/regularfile"
	"tulle/internal/settings"
)

// cniProgram is what the plugin is built from, as every binary says of itself.
const cniProgram = "tulle/cmd/tulle-cni"

func newCNIUninstallCommand() *cobra.Command {
	var i cniInstall
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove what install has put in place",
		Long: `Remove the CNI plugin, the configuration that came with it, and the empty directories of containers that are gone.
Nothing is removed while the plugin has containers to detach, or if the configuration was changed by hand, unless --force is given.
A program that is not Tulle's plugin stays in any case, and so do the directories of runtimes. The bridge of the containers
goes with tulle cleanup. With --as flannel, the configuration that is there lacks a plugin until flannel's own is put back.`,
		Example: "  tulle cni uninstall\n  tulle cni uninstall --as flannel",
		Args:    cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			if err := i.checkNames(); err != nil {
				return usageError(err)
			}
			return i.undo(cmd.OutOrStdout(), cniplugin.Files{Dir: i.dataDir})
		}).runE,
	}
	i.addFlags(cmd)
	cmd.Flags().BoolVar(&i.force, "force", false, "remove also if containers are attached or the configuration was changed by hand")
	return cmd
}

// undo removes the configuration before the plugin that it calls for.
func (i *cniInstall) undo(w io.Writer, files cniplugin.Files) error {
	if err := i.checkUndo(files); err != nil {
		return err
	}
	paths := []string{i.target()}
	if i.as == "tulle" {
		paths = []string{i.confFile(), i.target()}
	}
	for _, path := range paths {
		switch err := os.Remove(path); {
		case err == nil:
			fmt.Fprintf(w, "%s removed\n", path)
		case errors.Is(err, fs.ErrNotExist):
			fmt.Fprintf(w, "%s is not there\n", path)
		default:
			return fmt.Errorf("remove file: %w", err)
		}
	}
	return files.Forget(cniNetwork)
}

// checkUndo finds what speaks against it.
func (i *cniInstall) checkUndo(files cniplugin.Files) error {
	program, err := programAt(i.target())
	if err == nil && program.Path != cniProgram || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not Tulle's plugin: --bin-dir and --as tell where that is", i.target())
	}
	if i.force {
		return nil
	}
	attached, err := files.Attached()
	if err != nil {
		return err
	}
	if len(attached) > 0 {
		return fmt.Errorf("containers are attached, and only the plugin can detach them: stop them first, or give --force: %s", strings.Join(attached, ", "))
	}
	present, err := regularfile.ReadTarget(i.confFile(), maxPlugin)
	if i.as != "tulle" || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	if !i.wrote(present) {
		return fmt.Errorf("%s was changed by hand: --force removes it", i.confFile())
	}
	return nil
}

// programAt reads what a binary says of itself.
func programAt(path string) (*buildinfo.BuildInfo, error) {
	file, err := regularfile.OpenTarget(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return buildinfo.Read(file)
}

// wrote reports whether install wrote a configuration, whatever its flags were.
func (i cniInstall) wrote(text []byte) bool {
	var c struct {
		CNIVersion string
		Plugins    []struct{ SubnetFile, RunDir string }
	}
	if err := json.Unmarshal(text, &c); err != nil || len(c.Plugins) == 0 {
		return false
	}
	i.cniVersion = c.CNIVersion
	i.envFile, i.runDir = cmp.Or(c.Plugins[0].SubnetFile, settings.DefaultSubnetFile), cmp.Or(c.Plugins[0].RunDir, settings.DefaultRunDir)
	sample, err := i.conflist()
	return err == nil && bytes.Equal(sample, text)
}
