package fastpath

import (
	"path/filepath"

	"github.com/cilium/ebpf/link"
)

// Programs are those of the fast path, by their numbers in the kernel: this process's, and what an earlier one has left on uplinks.
func (f *FastPath) Programs() map[uint32]bool {
	own := map[uint32]bool{}
	for _, p := range f.programs {
		own[uint32(p.id)] = true
	}
	dir, err := dirOf(f.cfg.Dir, f.ns)
	if err != nil || f.cfg.Dir == "" {
		return own
	}
	for _, program := range uplinkPrograms() {
		pins, _ := filepath.Glob(filepath.Join(dir, linkPrefix+"*-"+program)) // the pattern is well-formed, which is all that can go wrong
		for _, pin := range pins {
			l, err := link.LoadPinnedLink(pin, nil)
			if err != nil {
				continue
			}
			if info, err := l.Info(); err == nil {
				own[uint32(info.Program)] = true
			}
			l.Close()
		}
	}
	return own
}
