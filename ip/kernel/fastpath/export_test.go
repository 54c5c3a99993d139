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

// Subnets counts those of peers that the programs know.
func (f *FastPath) Subnets() (n int, err error) {
	err = readAll(f.objects.Places, func(_ programsPrefix, place programsPlace) bool {
		if place.Peer != nowhere {
			n++
		}
		return true
	})
	return n, err
}

// OpenFilters is Open on a kernel that lacks tcx.
func OpenFilters(cfg Config) (*FastPath, error) {
	return open(cfg, loadPrograms, func(dir string) hooks { return clsact{dir} })
}

// OpenTold is Open, and says which links are to get programs.
func OpenTold(cfg Config, tell func(link uint32)) (*FastPath, error) {
	return open(cfg, loadPrograms, func(dir string) hooks { return toldHooks{chooseHooks(dir), tell} })
}

// Thorough opens one whose every look is a full one.
func Thorough(open func(Config) (*FastPath, error)) func(Config) (*FastPath, error) {
	return func(cfg Config) (*FastPath, error) {
		f, err := open(cfg)
		if err == nil {
			f.searchEvery = 1
		}
		return f, err
	}
}

type toldHooks struct {
	hooks
	tell func(link uint32)
}

func (t toldHooks) attach(h hook, p program) (attachment, error) {
	t.tell(h.link)
	return t.hooks.attach(h, p)
}
