package fastpath

import (
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// hook is where a program hangs, or should.
type hook struct {
	link    uint32
	program string
}

// hooks hangs programs on links.
type hooks interface {
	name() string
	// attach hangs a program where it belongs. What an earlier run has hung there is replaced, in one step.
	attach(h hook, p program) (attachment, error)
	// others says what other programs have hung there to see or change packets; empty: nothing. Qdisc is the kind of the one that takes filters there; empty: none.
	others(link uint32, qdisc string) (string, error)
	// notifies reports whether the kernel notifies of what becomes of attachments, so that they need not be looked at each second.
	notifies() bool
	// forget takes away what earlier runs have hung elsewhere.
	forget(kept func(hook) bool) error
}

// program is one that is loaded.
type program struct {
	*ebpf.Program
	id ebpf.ProgramID
}

// attachment is a program that hangs on a link. Closed, it goes on if it is pinned.
type attachment interface {
	io.Closer
	// look reports whether it hangs there still and is this program, and whether nothing of others has been seen there.
	look(h hook, p program) (intact, alone bool)
	detach() error
}

// portPrograms are those that a container's link on the host is to have.
func portPrograms() [2]string { return [2]string{programsProgFromContainer, programsProgToContainer} }

// uplinkPrograms are those of an uplink.
func uplinkPrograms() [2]string { return [2]string{programsProgFromUplink, programsProgToUplink} }

func programNames() []string {
	ports, uplinks := portPrograms(), uplinkPrograms()
	return append(ports[:], uplinks[:]...)
}

// isIngress reports whether a program is for packets that come in by its link.
func isIngress(program string) bool {
	return program == programsProgFromContainer || program == programsProgFromUplink
}

// loaded lists the programs by name.
func (o *programsObjects) loaded() (map[string]program, error) {
	all := map[string]program{}
	for name, p := range map[string]*ebpf.Program{
		programsProgFromContainer: o.FromContainer, programsProgToContainer: o.ToContainer, programsProgFromUplink: o.FromUplink, programsProgToUplink: o.ToUplink,
	} {
		info, err := p.Info()
		if err != nil {
			return nil, fmt.Errorf("identify program: %w", err)
		}
		id, ok := info.ID()
		if !ok {
			return nil, errors.New("identify program: this kernel does not say which it is")
		}
		all[name] = program{p, id}
	}
	return all, nil
}

// chooseHooks takes what this kernel has: tcx, or else filters below clsact.
func chooseHooks(dir string) hooks {
	if _, err := link.QueryPrograms(link.QueryOptions{Target: loopback, Attach: ebpf.AttachTCXIngress}); err == nil {
		return newTCX(dir)
	}
	return clsact{dir}
}

// loopback is the index of the link that every network namespace has.
const loopback = 1
