package kernel

import (
	"errors"
	"fmt"
	"hash/maphash"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tulle/internal/netns"
	"tulle/ip"
)

// Kernel is one network namespace. Its methods may be called concurrently; Snapshot and Apply take turns.
type Kernel struct {
	ns *netns.Namespace

	mu     sync.Mutex
	links  *netlink.Handle
	route  *socket
	nft    ruleset
	legacy legacy
	echoes echoes
	makes  map[string]bool   // types of links that the kernel is known to make
	names  map[uint32]string // of the links that the last reading found, by index
	noARP  map[string]bool   // those of them that resolve no addresses
	seed   maphash.Seed

	// ownLinks holds the indexes of the links in scope of the last snapshot: the neighbours of others are not watched, nor most of their routes.
	ownLinks      atomic.Pointer[map[uint32]string]
	filteredLinks atomic.Pointer[map[uint32]string] // those on which what others hang is read
	destinations  destinations
	hostLinks     hostLinks
	programs      func() map[uint32]bool // Tulle's; nil: bpf(2) may not be called
}

var _ ip.Kernel = (*Kernel)(nil)

// Open returns the network namespace of the calling thread, in whatever namespace its methods are called later.
// It needs CAP_NET_ADMIN, and CAP_SYS_ADMIN only if threads of this process live in other namespaces.
func Open() (*Kernel, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	k, err := open()
	if err != nil {
		return nil, fmt.Errorf("open kernel: %w", err)
	}
	return k, nil
}

func open() (_ *Kernel, err error) {
	k := &Kernel{makes: map[string]bool{}, seed: maphash.MakeSeed(), hostLinks: hostLinks{answered: map[uint32]bool{}}}
	defer func() {
		if err != nil {
			k.Close()
		}
	}()
	if k.ns, err = netns.Current(); err != nil {
		return nil, err
	}
	if k.route, err = dial(unix.NETLINK_ROUTE); err != nil {
		return nil, err
	}
	if k.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, err
	}
	return k, nil
}

// Close releases the namespace. No method may be running or be called afterwards.
func (k *Kernel) Close() error {
	var errs []error
	if k.links != nil {
		k.links.Close()
	}
	if k.route != nil {
		errs = append(errs, k.route.close())
	}
	errs = append(errs, k.nft.close(), k.legacy.close())
	if k.ns != nil {
		errs = append(errs, k.ns.Close())
	}
	return errors.Join(errs...)
}

// Calls is how many system calls routes, neighbours and forwarding entries have taken so far: one sends up to 256 requests,
// and one receives many answers.
func (k *Kernel) Calls() uint64 { return k.route.calls.Load() }

// inside runs fn on a thread that is in the namespace.
func (k *Kernel) inside(fn func() error) error { return k.ns.Do(fn) }
