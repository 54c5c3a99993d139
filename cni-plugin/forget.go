//go:build linux

package cniplugin

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// Files are what plugins keep of containers below a directory, by default /var/lib/cni: as long as a configuration does not put
// them elsewhere.
type Files struct{ Dir string }

func (f Files) states() states { return states{filepath.Join(f.Dir, filepath.Base(defaultDataDir))} }

func (f Files) addresses(network string) string {
	return filepath.Join(f.Dir, filepath.Base(hostLocalDir), network)
}

// Attached lists what the plugin, or flannel's, has attached and not detached since: containers, and of which interface.
func (f Files) Attached() ([]string, error) {
	names, err := f.states().names()
	var attached []string
	for _, name := range names {
		if strings.HasPrefix(name, ".") {
			continue
		}
		if parts := strings.Split(name, separator); len(parts) == 3 {
			name = fmt.Sprintf("%s (%s on network %s)", parts[1], parts[2], parts[0])
		}
		attached = append(attached, name)
	}
	return attached, err
}

// Forget removes what is left in the directory of a network without containers. Addresses that are still taken keep it there: the
// error names them.
func (f Files) Forget(network string) error {
	dir := f.addresses(network)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list addresses in use: %w", err)
	}
	var taken []string
	for _, e := range entries {
		if _, err := netip.ParseAddr(e.Name()); err == nil {
			taken = append(taken, e.Name())
		}
	}
	if len(taken) > 0 {
		return fmt.Errorf("%s is kept: containers that were never detached hold %s; a GC by their runtime frees them", dir, strings.Join(taken, ", "))
	}
	var errs []error
	for _, e := range entries {
		if name := e.Name(); name == "lock" || strings.HasPrefix(name, "last_reserved_ip.") {
			errs = append(errs, removeFile(filepath.Join(dir, name)))
		}
	}
	for _, dir := range []string{dir, filepath.Dir(dir), f.states().dir, f.Dir} {
		errs = append(errs, removeIfEmpty(dir))
	}
	return errors.Join(errs...)
}

func removeIfEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || len(entries) > 0 {
		return nil
	}
	return errors.Join(err, removeFile(dir))
}
