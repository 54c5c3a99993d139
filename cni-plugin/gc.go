//go:build linux

package cniplugin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"tulle/internal/atomicfile"
	"tulle/internal/regularfile"
)

// validAttachments is the member of the configuration that lists what must stay.
const validAttachments = "cni.dev/valid-attachments"

// cmdGC frees what belongs to attachments that are not valid any more. It goes on over errors, and reports all of them.
func (p *Plugin) cmdGC(ctx context.Context, c conf, args *skel.CmdArgs) error {
	if c.attachments == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, validAttachments+" is missing: it lists the attachments to keep", "")
	}
	var list []types.GCAttachment
	if err := json.Unmarshal(c.attachments, &list); err != nil {
		return types.NewError(types.ErrDecodingFailure, validAttachments+": "+err.Error(), "")
	}
	valid, containers := map[attachment]bool{}, map[string]bool{}
	for _, v := range list {
		valid[attachment{c.Name, v.ContainerID, v.IfName}] = true
		containers[v.ContainerID] = true
	}
	s := states{c.DataDir}
	known, err := s.known(c.Name)
	errs := []error{err}
	addressed, err := holders(c.IPAM, c.Name)
	errs = append(errs, err)
	for a := range union(known, addressed) {
		if !valid[a] {
			errs = append(errs, p.collect(ctx, c, a, addressed, args))
		}
	}
	errs = append(errs, s.forget(c.Name, containers), p.delegateGC(ctx, c, args))
	return errors.Join(errs...)
}

// collect detaches what no DEL has detached. The namespace is entered only if it is the one that ADD saw, and if no
// other attachment holds an address of the interface in it: by now its path, or its inode, may be those of another container, or of the host.
func (p *Plugin) collect(ctx context.Context, c conf, a attachment, held map[attachment][]netip.Addr, args *skel.CmdArgs) error {
	d := delegation{container: a.container, ifname: a.ifname, path: args.Path}
	if r, err := (states{c.DataDir}).read(a); err == nil {
		d.args = r.Args
		same, err := r.isNetns(r.Netns)
		if err != nil {
			p.remark("%v: not entering %s", err, r.Netns)
		}
		if same && !heldByOther(a, addrsIn(r.Netns, a.ifname), held) {
			d.netns = r.Netns
		}
	}
	if err := p.detach(ctx, c, a, d); err != nil {
		return fmt.Errorf("free %s of container %s: %w", a.ifname, a.container, err)
	}
	return nil
}

// delegateGC passes the command on, as the specification wants; the bridge plugin does not pass it on to its address management.
func (p *Plugin) delegateGC(ctx context.Context, c conf, args *skel.CmdArgs) error {
	delegate, err := bestKnowledge(c)
	if err != nil {
		return err
	}
	if delegate, err = with(delegate, map[string]any{validAttachments: c.attachments}); err != nil {
		return err
	}
	return p.run(ctx, "GC", delegate, delegationOf(args))
}

// known lists the attachments to a network of which there is a state file, whole or not.
func (s states) known(network string) (map[attachment]bool, error) {
	names, err := s.names()
	found := map[attachment]bool{}
	for _, name := range names {
		if file, ok := atomicfile.Unfinished(name); ok {
			name = file
		} else if file, ok := lockOf(name); ok {
			name = file
		}
		if parts := strings.Split(name, separator); len(parts) == 3 && parts[0] == network {
			found[attachment{parts[0], parts[1], parts[2]}] = true
		}
	}
	return found, err
}

// forget removes the flannel plugin's state of containers that are not among those to keep.
func (s states) forget(network string, keep map[string]bool) error {
	names, err := s.names()
	errs := []error{err}
	for _, name := range names {
		if strings.Contains(name, separator) || keep[name] {
			continue
		}
		path := filepath.Join(s.dir, name)
		text, err := regularfile.Read(path, maxState)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, fmt.Errorf("read state: %w", err))
			}
			continue
		}
		if name, err := delegateField(text, "name"); err == nil && name == network {
			errs = append(errs, removeFile(path))
		}
	}
	return errors.Join(errs...)
}

func (s states) names() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list states: %w", err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// hostLocalDir is where the host-local plugin keeps a directory per network, with a file per address.
const hostLocalDir = "/var/lib/cni/networks"

// holders lists the attachments that hold an address according to the host-local plugin, which has no GC of its own: a file is
// named after its address and holds the container's id and the interface's name on a line each.
func holders(ipam object, network string) (map[attachment][]netip.Addr, error) {
	found := map[attachment][]netip.Addr{}
	if !hostLocal(ipam) {
		return found, nil
	}
	dir := filepath.Join(cmp.Or(textOr(ipam, "dataDir", ""), hostLocalDir), network)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list addresses in use: %w", err)
	}
	var errs []error
	for _, e := range entries {
		text, err := regularfile.Read(filepath.Join(dir, e.Name()), maxState)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) { // freed meanwhile
				errs = append(errs, fmt.Errorf("read address in use: %w", err))
			}
			continue
		}
		fields := strings.Fields(string(text))
		if addr, err := netip.ParseAddr(e.Name()); err == nil && len(fields) == 2 {
			a := attachment{network, fields[0], fields[1]}
			found[a] = append(found[a], addr)
		}
	}
	return found, errors.Join(errs...)
}

// hostLocal reports whether an address management is the host-local plugin.
func hostLocal(ipam object) bool { return textOr(ipam, "type", defaultIPAM) == defaultIPAM }

// heldByOther reports whether another attachment than a holds one of addrs. One that nobody holds may be a's: an ADD that fails gives
// its addresses back before it removes the interface.
func heldByOther(a attachment, addrs []netip.Addr, held map[attachment][]netip.Addr) bool {
	for other, theirs := range held {
		if other != a && slices.ContainsFunc(theirs, func(addr netip.Addr) bool { return slices.Contains(addrs, addr) }) {
			return true
		}
	}
	return false
}

// union lists the attachments that are in either.
func union(known map[attachment]bool, addressed map[attachment][]netip.Addr) map[attachment]bool {
	all := maps.Clone(known)
	for a := range addressed {
		all[a] = true
	}
	return all
}
