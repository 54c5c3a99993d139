package fastpath

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// tcx hangs programs by links of bpf(2), which outlive the process if they are pinned below dir (Linux 6.6).
type tcx struct {
	dir string
	own map[link.ID]bool // that this run or an earlier one has made
}

func newTCX(dir string) tcx {
	t := tcx{dir: dir, own: map[link.ID]bool{}}
	if dir == "" {
		return t
	}
	pins, _ := filepath.Glob(filepath.Join(dir, linkPrefix+"*")) // the pattern is right
	for _, pin := range pins {
		if l, err := link.LoadPinnedLink(pin, nil); err == nil {
			_, _ = t.keep(l) // one that cannot be asked is nobody's
			l.Close()
		}
	}
	return t
}

// keep takes a link for one of ours.
func (t tcx) keep(l link.Link) (link.ID, error) {
	info, err := l.Info()
	if err != nil {
		return 0, err
	}
	t.own[info.ID] = true
	return info.ID, nil
}

const linkPrefix = "link-"

func (tcx) name() string { return "tcx" }

func (tcx) notifies() bool { return false }

func place(h hook) ebpf.AttachType {
	if isIngress(h.program) {
		return ebpf.AttachTCXIngress
	}
	return ebpf.AttachTCXEgress
}

func (t tcx) pin(h hook) string {
	if t.dir == "" {
		return ""
	}
	return filepath.Join(t.dir, linkPrefix+strconv.FormatUint(uint64(h.link), 10)+"-"+h.program)
}

func (t tcx) attach(h hook, p program) (attachment, error) {
	pin := t.pin(h)
	if pin != "" {
		if l, err := link.LoadPinnedLink(pin, nil); err == nil {
			a := &tcxLink{Link: l, pin: pin, own: t.own}
			if info, ok := a.info(); ok && info.hangs(h) && l.Update(p.Program) == nil {
				a.id = link.ID(info.id)
				return a, nil
			}
			l.Close()
		}
		if err := remove(pin); err != nil {
			return nil, err
		}
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: int(h.link), Program: p.Program, Attach: place(h), Anchor: link.Head()})
	if err != nil {
		return nil, err
	}
	id, err := t.keep(l)
	if err == nil && pin != "" {
		if err = l.Pin(pin); err != nil {
			err = fmt.Errorf("pin: %w", err)
		}
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return &tcxLink{l, id, pin, t.own}, nil
}

// otherProgram is what others have hung on a link by tcx.
const otherProgram = "a bpf program"

func (t tcx) others(index uint32, qdisc string) (string, error) {
	for _, program := range uplinkPrograms() { // one at each place
		c, err := readChain(hook{index, program})
		if isGone(err) {
			return "", nil
		}
		if err != nil {
			return "", fmt.Errorf("list programs: %w", err)
		}
		if c.strange(t.own) {
			return otherProgram, nil
		}
	}
	if qdisc != "" {
		return filterOf(index, nil)
	}
	return "", nil
}

func (t tcx) forget(kept func(hook) bool) error { return forgetPins(t.dir, kept) }

func parsePin(name string) (h hook, ok bool) {
	rest, ok := strings.CutPrefix(name, linkPrefix)
	index, program, cut := strings.Cut(rest, "-")
	n, err := strconv.ParseUint(index, 10, 32)
	return hook{uint32(n), program}, ok && cut && err == nil
}

type tcxLink struct {
	link.Link
	id  link.ID
	pin string // empty: it is not pinned
	own map[link.ID]bool
}

// info is false if the link cannot be asked.
func (l *tcxLink) info() (linkInfo, bool) {
	described, ok := l.Link.(interface{ FD() int })
	if !ok {
		return linkInfo{}, false
	}
	info, err := readLinkInfo(described.FD())
	return info, err == nil
}

func (l *tcxLink) look(h hook, p program) (intact, alone bool) {
	c, err := readChain(h)
	return err == nil && c.has(l.id, p) && l.kept(), err != nil || !c.strange(l.own)
}

// kept reports whether it outlives the process, as far as it should: somebody may have deleted the pin.
func (l *tcxLink) kept() bool {
	if l.pin == "" {
		return true
	}
	return exists(l.pin)
}

func (l *tcxLink) detach() error {
	delete(l.own, l.id)
	return errors.Join(detachNow(l.Link), l.Unpin(), l.Close())
}
