//go:build linux

package fastpath

import (
	"bytes"

	"github.com/cilium/ebpf"
)

// OpenWith is Open with other programs.
func OpenWith(cfg Config, object []byte) (*FastPath, error) {
	return open(cfg, func() (*ebpf.CollectionSpec, error) {
		return ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	}, chooseHooks)
}

// CountFlows does at once what is done now and then.
func (f *FastPath) CountFlows() error { return f.countFlows() }

// OpenFilters is Open on a kernel that lacks tcx.
func OpenFilters(cfg Config) (*FastPath, error) {
	return open(cfg, loadPrograms, func(string) hooks { return clsact{} })
}
