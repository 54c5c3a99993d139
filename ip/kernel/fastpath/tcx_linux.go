package fastpath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
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
			t.keep(l)
			l.Close()
		}
	}
	return t
}

func (t tcx) keep(l link.Link) {
	if info, err := l.Info(); err == nil {
		t.own[info.ID] = true
	}
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
			a := &tcxLink{l, pin}
			if info, ok := a.info(); ok && info.hangs(h) && l.Update(p.Program) == nil {
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
	t.keep(l)
	if pin != "" {
		if err := l.Pin(pin); err != nil {
			l.Close()
			return nil, fmt.Errorf("pin: %w", err)
		}
	}
	return &tcxLink{l, pin}, nil
}

func (t tcx) others(index uint32, qdisc string) (string, error) {
	for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		all, err := link.QueryPrograms(link.QueryOptions{Target: int(index), Attach: at})
		if isGone(err) {
			return "", nil
		}
		if err != nil {
			return "", fmt.Errorf("list programs: %w", err)
		}
		for _, p := range all.Programs {
			if id, ok := p.LinkID(); !ok || !t.own[id] {
				return "a bpf program", nil
			}
		}
	}
	if qdisc != "" {
		return filterOf(index, nil)
	}
	return "", nil
}

func (t tcx) forget(kept func(hook) bool) error {
	if t.dir == "" {
		return nil
	}
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		h, ok := parsePin(e.Name())
		if ok && kept(h) {
			continue
		}
		if !ok && strings.HasPrefix(e.Name(), mapPrefix) {
			continue
		}
		errs = append(errs, remove(filepath.Join(t.dir, e.Name())))
	}
	return errors.Join(errs...)
}

func parsePin(name string) (h hook, ok bool) {
	rest, ok := strings.CutPrefix(name, linkPrefix)
	index, program, cut := strings.Cut(rest, "-")
	n, err := strconv.ParseUint(index, 10, 32)
	return hook{uint32(n), program}, ok && cut && err == nil
}

type tcxLink struct {
	link.Link
	pin string // empty: it is not pinned
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

func (l *tcxLink) intact(h hook, p program) bool {
	info, ok := l.info()
	return ok && info.program == uint32(p.id) && info.hangs(h) && l.kept()
}

// kept reports whether it outlives the process, as far as it should: somebody may have deleted the pin.
func (l *tcxLink) kept() bool {
	if l.pin == "" {
		return true
	}
	return unix.Access(l.pin, unix.F_OK) == nil
}

func (l *tcxLink) detach() error {
	return errors.Join(detachNow(l.Link), l.Unpin(), l.Close())
}
