package bridge

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// mark is the alias of the bridges that were made for Tulle's containers, where ip link shows it.
const mark = "made by tulle"

// Marked is a bridge that was made for Tulle's containers.
type Marked struct {
	Name  string
	Ports []string // names of the interfaces that hang on it
}

// Exists reports whether there is an interface of that name.
func Exists(name string) (bool, error) {
	err := withLink(name, func(*netlink.Handle, netlink.Link) error { return nil })
	if IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// Mark notes on the named bridge that it was made for Tulle's containers. It is no error if there is none, and an alias that
// somebody gave it stays.
func Mark(name string) error {
	err := withLink(name, func(h *netlink.Handle, link netlink.Link) error {
		if link.Type() != "bridge" || link.Attrs().Alias != "" {
			return nil
		}
		return h.LinkSetAlias(link, mark)
	})
	if IsNotFound(err) {
		return nil
	}
	return err
}

// ListMarked returns the marked bridges of the calling thread's network namespace.
func ListMarked() ([]Marked, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	defer h.Close()
	links, err := dump(h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var marked []Marked
	for _, l := range links {
		if l.Type() == "bridge" && l.Attrs().Alias == mark {
			marked = append(marked, Marked{l.Attrs().Name, portsOf(l, links)})
		}
	}
	return marked, nil
}

// Remove deletes the named bridge. One that is gone already is no error.
func Remove(name string) error {
	err := withLink(name, func(h *netlink.Handle, link netlink.Link) error { return h.LinkDel(link) })
	if IsNotFound(err) {
		return nil
	}
	return err
}

func portsOf(bridge netlink.Link, links []netlink.Link) []string {
	var ports []string
	for _, l := range links {
		if l.Attrs().MasterIndex == bridge.Attrs().Index {
			ports = append(ports, l.Attrs().Name)
		}
	}
	return ports
}
