package fastpath

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tulle/ip"
)

// clsact hangs programs as filters of tc, which outlive the process by themselves (tc-bpf(8)). The qdisc that they need stays while the link is there, even
// without filters: when it comes or goes the kernel takes the link down for a moment (qdisc_graft in net/sched/sch_api.c).
type clsact struct {
	dir string // of pins; empty: there are none
}

const (
	clsactName   = "clsact"
	ingressName  = "ingress"
	filterHandle = 0x7
)

func (clsact) name() string { return clsactName }

func (clsact) notifies() bool { return true }

func parentOf(h hook) uint32 {
	if isIngress(h.program) {
		return netlink.HANDLE_MIN_INGRESS
	}
	return netlink.HANDLE_MIN_EGRESS
}

// errNoFilters is what a kernel says whose modules for filters are not loaded, and which may not load them by itself.
var errNoFilters = errors.New("this kernel has neither tcx (Linux 6.6 has it) nor filters of tc: load their modules: modprobe -a sch_ingress cls_bpf")

func (clsact) attach(h hook, p program) (attachment, error) {
	if err := makeQdisc(h.link); err != nil {
		return nil, err
	}
	there, err := filtersAt(h.link, parentOf(h))
	if err != nil {
		return nil, err
	}
	f := filterFor(h, p)
	if own := find(there, h); own != nil {
		f.Priority, f.Handle = own.Priority, own.Handle
		err = netlink.FilterReplace(f)
	} else {
		f.Priority = priorityAmong(there)
		err = netlink.FilterAdd(f) // unlike FilterReplace it takes nobody's place
	}
	if errors.Is(err, unix.ENOENT) {
		return nil, errNoFilters
	}
	if err != nil {
		return nil, fmt.Errorf("add tc filter: %w", err)
	}
	return clsactFilter{h}, nil
}

// makeQdisc has a link take filters.
func makeQdisc(link uint32) error {
	err := netlink.QdiscAdd(clsactQdisc(link))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT):
		return errNoFilters
	case !errors.Is(err, unix.EEXIST):
		return fmt.Errorf("make clsact qdisc: %w", err)
	}
	all, err := netlink.QdiscList(linkOf(link))
	if err != nil {
		return fmt.Errorf("list queueing disciplines: %w", err)
	}
	for _, q := range all {
		if q.Type() == ingressName {
			return errors.New("another program has made the queueing discipline ingress there, which takes no filters for what leaves: have it make clsact")
		}
	}
	return nil
}

// priorityAmong is that of a filter that comes before those of others, as far as they let it.
func priorityAmong(others []netlink.Filter) uint16 {
	taken := map[uint16]bool{}
	for _, f := range others {
		a := f.Attrs() // of one priority are only filters of one kind and protocol, with different handles
		if f.Type() != "bpf" || a.Protocol != unix.ETH_P_ALL || a.Handle == filterHandle {
			taken[a.Priority] = true
		}
	}
	priority := uint16(1)
	for taken[priority] {
		priority++
	}
	return priority
}

func clsactQdisc(link uint32) netlink.Qdisc {
	return &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: int(link), Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT},
		QdiscType:  clsactName,
	}
}

func filterFor(h hook, p program) *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: int(h.link), Parent: parentOf(h), Handle: filterHandle, Protocol: unix.ETH_P_ALL},
		Fd:          p.FD(), Name: ip.FastPathFilter + h.program, DirectAction: true,
	}
}

func (clsact) others(index uint32, qdisc string) (string, error) {
	switch qdisc {
	case "":
		return "", nil
	case ingressName: // it takes no filters for what leaves
		return "the queueing discipline " + ingressName, nil
	}
	return filterOf(index, isOurs)
}

func isOurs(f netlink.Filter) bool {
	b, ok := f.(*netlink.BpfFilter)
	if !ok {
		return false
	}
	return slices.ContainsFunc(programNames(), func(program string) bool { return b.Name == ip.FastPathFilter+program })
}

// filterOf names a filter of tc on a link that is not ours; empty: there is none.
func filterOf(index uint32, ours func(netlink.Filter) bool) (string, error) {
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := filtersAt(index, parent)
		if err != nil {
			return "", err
		}
		for _, f := range filters {
			if ours == nil || !ours(f) {
				return "the tc filter " + f.Type(), nil
			}
		}
	}
	return "", nil
}

func linkOf(index uint32) netlink.Link {
	return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: int(index)}}
}

func filtersAt(index, parent uint32) ([]netlink.Filter, error) {
	filters, err := netlink.FilterList(linkOf(index), parent)
	if isGone(err) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) { // gone, or no place for filters
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list tc filters: %w", err)
	}
	return filters, nil
}

// forget takes away filters of earlier runs, on whatever link, and what those have pinned that hung programs by tcx.
func (c clsact) forget(kept func(hook) bool) error {
	qdiscs, err := netlink.QdiscList(nil)
	if err != nil {
		return fmt.Errorf("list queueing disciplines: %w", err)
	}
	errs := []error{forgetPins(c.dir, func(hook) bool { return false })}
	for _, q := range qdiscs {
		if q.Type() != clsactName {
			continue
		}
		for _, program := range programNames() {
			h := hook{uint32(q.Attrs().LinkIndex), program}
			if !kept(h) {
				errs = append(errs, clsactFilter{h}.detach())
			}
		}
	}
	return errors.Join(errs...)
}

// removeFilters takes away all filters of ours, and the qdiscs that hold nothing else then.
func removeFilters() error {
	qdiscs, err := netlink.QdiscList(nil)
	if err != nil {
		return fmt.Errorf("list queueing disciplines: %w", err)
	}
	var errs []error
	for _, q := range qdiscs {
		if q.Type() != clsactName {
			continue
		}
		removed := false
		for _, program := range programNames() {
			f := clsactFilter{hook{uint32(q.Attrs().LinkIndex), program}}
			if there, err := f.find(); err == nil && there != nil {
				removed = true
				errs = append(errs, f.detach())
			}
		}
		if left, err := filterOf(uint32(q.Attrs().LinkIndex), nil); removed && left == "" && err == nil {
			errs = append(errs, netlink.QdiscDel(q))
		}
	}
	return errors.Join(errs...)
}

// filtersLeft reports whether a link has a filter of ours.
func filtersLeft() (bool, error) {
	qdiscs, err := netlink.QdiscList(nil)
	if err != nil {
		return false, fmt.Errorf("list queueing disciplines: %w", err)
	}
	for _, q := range qdiscs {
		if q.Type() != clsactName {
			continue
		}
		for _, program := range programNames() {
			if there, err := (clsactFilter{hook{uint32(q.Attrs().LinkIndex), program}}).find(); err != nil || there != nil {
				return there != nil, err
			}
		}
	}
	return false, nil
}

type clsactFilter struct{ hook }

// Close does nothing: it goes on.
func (clsactFilter) Close() error { return nil }

func (f clsactFilter) find() (*netlink.BpfFilter, error) {
	filters, err := filtersAt(f.link, parentOf(f.hook))
	return find(filters, f.hook), err
}

// find returns ours of some filters; nil: there is none.
func find(filters []netlink.Filter, h hook) *netlink.BpfFilter {
	for _, f := range filters {
		if b, ok := f.(*netlink.BpfFilter); ok && b.Name == ip.FastPathFilter+h.program {
			return b
		}
	}
	return nil
}

// look leaves others aside, of which the kernel notifies.
func (f clsactFilter) look(_ hook, p program) (intact, alone bool) {
	there, err := f.find()
	return err == nil && there != nil && there.Id == int(p.id), true
}

func (f clsactFilter) detach() error {
	there, err := f.find()
	if err != nil || there == nil {
		return err
	}
	if err := netlink.FilterDel(there); err != nil && !isGone(err) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove tc filter: %w", err)
	}
	return nil
}
