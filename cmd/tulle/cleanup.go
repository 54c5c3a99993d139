//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"tulle/internal/api"
	"tulle/internal/hostfiles"
	"tulle/internal/identity"
	"tulle/internal/settings"
	"tulle/ip"
	"tulle/ip/kernel"
	"tulle/ip/kernel/fastpath"
)

// cleanupPaths are where tulled keeps its files.
type cleanupPaths struct{ runDir, stateDir, subnetFile, bpfDir string }

func newCleanupCommand() *cobra.Command {
	var paths cleanupPaths
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove exactly what Tulle owns on this host",
		Long: `Remove Tulle's programs, devices, routes, neighbours, rules and files from this host, and the bridge that came with its CNI containers
once they are gone. tulled must be stopped. Other bridges with addresses of the network, such as docker0, stay and are named.
The lease stays in the store until it expires: end it at once with tulle leases release.
Forwarding (ip_forward) stays on, since others may depend on it.`,
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command, _ []string) error {
			plan, kept, err := cleanup(cmd.Context(), paths, dryRun)
			w := cmd.OutOrStdout()
			if _, perr := fmt.Fprint(w, plan); err == nil {
				err = perr
			}
			if err != nil {
				return err
			}
			for _, line := range kept {
				fmt.Fprintln(w, line)
			}
			return removeBridges(w, dryRun)
		}).runE,
	}
	flags := cmd.Flags()
	settings.RunDir().Define(flags, &paths.runDir)
	settings.StateDir().Define(flags, &paths.stateDir)
	settings.SubnetFile().Define(flags, &paths.subnetFile)
	settings.BPFDir().Define(flags, &paths.bpfDir)
	flags.BoolVar(&dryRun, "dry-run", false, "print what would be removed and leave it")
	return cmd
}

// cleanup returns what it removed, or with dryRun would remove, from the kernel, and what others keep of the network.
func cleanup(ctx context.Context, paths cleanupPaths, dryRun bool) (plan ip.Plan, kept []string, err error) {
	switch _, err := api.NewClient(paths.runDir).Status(ctx); {
	case err == nil:
		return nil, nil, errors.New("tulled is running and would put everything back: stop it first")
	case !api.Absent(err):
		return nil, nil, fmt.Errorf("tulled may be running and would put everything back: stop it first: %w", err)
	}
	networks, err := hostfiles.Recorded(paths.stateDir)
	if err != nil {
		return nil, nil, err
	}
	files := append(hostfiles.Files(paths.stateDir, paths.runDir, networks), identity.InstancePath(paths.runDir), identity.ProbeKeyPath(paths.runDir), filepath.Join(paths.runDir, api.SocketName), paths.subnetFile)
	for _, path := range files {
		if _, err := removable(path); err != nil {
			return nil, nil, err
		}
	}
	var scope ip.Scope
	for _, name := range networks {
		record, err := hostfiles.ReadRecord(hostfiles.NetworkDir(paths.stateDir, name))
		if err != nil {
			return nil, nil, err
		}
		scope = scope.Join(record.Scope())
	}
	k, err := kernel.Open()
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	snap, err := k.Snapshot(ctx, scope)
	if err != nil {
		return nil, nil, err
	}
	// What a flanneld left behind is not Tulle's to remove here.
	snap.Owned.Leftovers = nil
	if kept, err = keptByOthers(snap, scope); err != nil {
		return nil, nil, err
	}
	plan = ip.Diff(snap.Owned, ip.State{})
	if dryRun {
		left, err := fastpath.Left(paths.bpfDir)
		if err != nil {
			return nil, kept, fmt.Errorf("look for the fast path: %w", err)
		}
		if left {
			kept = append(kept, "# the fast path's programs would be removed")
		}
		return plan, kept, nil
	}
	if err := fastpath.Remove(paths.bpfDir); err != nil {
		return nil, kept, fmt.Errorf("remove the fast path: %w", err)
	}
	if err := k.Apply(ctx, plan); err != nil {
		return plan, kept, err
	}
	for _, path := range files {
		if err := removeFile(path); err != nil {
			return plan, kept, err
		}
	}
	return plan, kept, nil
}

// removable reports whether there is a file of a kind that tulled makes or that its operator may have put in its place. Anything else, such
// as /dev/null given as a file that nobody needs, belongs to somebody else.
func removable(path string) (there bool, err error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look at file: %w", err)
	}
	if t := info.Mode().Type(); t != 0 && t != fs.ModeSymlink && t != fs.ModeSocket {
		return true, fmt.Errorf("%s is no file of tulled's, by its mode %s: name tulled's directories and files with the flags, or remove it by hand", path, info.Mode())
	}
	return true, nil
}

func removeFile(path string) error {
	if there, err := removable(path); !there || err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove file: %w", err)
	}
	return nil
}
