package iptest

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"tulle/ip"
)

// Kernel is a network namespace in memory that behaves like Linux in what Tulle relies on. It starts no goroutine
// and reads no clock, so it may be used in a testing/synctest bubble.
type Kernel struct {
	mu            sync.Mutex
	interfaces    []ip.Interface // of the host, in the order in which they came
	links         map[string]ip.Link
	linkOrder     []string
	sysctls       map[string]ip.Sysctl
	addrs         map[ip.Addr]bool
	fdb           map[fdbID]netip.Addr
	neighbors     map[neighborID]ip.MAC
	routes        routes
	unreachable   map[ip.UnreachableRoute]bool
	policy        []Rule       // before that of the main table
	others        []TableRoute // of other programs, which Apply cannot make
	tables        map[tableID]ip.Table
	guards        map[tableID]*guard
	spoofed       map[tableID]uint64 // packets that the rules of tables have dropped
	filters       map[ip.Place]ip.Filter
	deviceFilters []ip.DeviceFilter
	leftovers     map[ip.Leftover]netip.Prefix // with the network that its rules name

	refuse  func(ip.Op) error
	fixed   bool                  // settings cannot be written
	makes   map[string]bool       // types of links
	changed map[int]chan struct{} // of the watches
	watches int
}

// The identities by which the kernel tells objects of one kind apart.
type (
	fdbID struct {
		link string
		mac  ip.MAC
	}
	neighborID struct {
		link string
		ip   netip.Addr
	}
	tableID struct {
		net    string // name of the network
		family ip.Family
	}
)

var _ ip.Kernel = (*Kernel)(nil)

// New returns a namespace with a loopback interface, up, and nothing else.
func New() *Kernel {
	return &Kernel{
		interfaces: []ip.Interface{{Name: loopback, MTU: 65536, Up: true, Loopback: true, Addrs: []ip.InterfaceAddr{
			{Prefix: netip.MustParsePrefix("127.0.0.1/8")}, {Prefix: netip.MustParsePrefix("::1/128")},
		}}},
		links:       map[string]ip.Link{},
		sysctls:     map[string]ip.Sysctl{},
		addrs:       map[ip.Addr]bool{},
		fdb:         map[fdbID]netip.Addr{},
		neighbors:   map[neighborID]ip.MAC{},
		routes:      routes{},
		unreachable: map[ip.UnreachableRoute]bool{},
		tables:      map[tableID]ip.Table{},
		guards:      map[tableID]*guard{},
		spoofed:     map[tableID]uint64{},
		filters:     map[ip.Place]ip.Filter{},
		leftovers:   map[ip.Leftover]netip.Prefix{},
		changed:     map[int]chan struct{}{},
		makes:       map[string]bool{ip.VXLAN{}.Type(): true, ip.IPIP{}.Type(): true},
	}
}

const loopback = "lo"

// Apply runs the plan.
func (k *Kernel) Apply(ctx context.Context, plan ip.Plan) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs ip.OpErrors
	for _, op := range plan {
		if err := ctx.Err(); err != nil {
			return errors.Join(err, result(errs))
		}
		err := error(nil)
		if k.refuse != nil {
			err = k.refuse(op)
		}
		if _, ok := op.New.(ip.Sysctl); ok && k.fixed {
			err = syscall.EROFS
		}
		if err == nil {
			err = k.apply(op)
		}
		if err != nil {
			errs = append(errs, ip.OpError{Op: op, Err: err})
		}
	}
	return result(errs)
}

func result(errs ip.OpErrors) error {
	if len(errs) == 0 {
		return nil
	}
	return errs
}

// Outsider is the process that makes the changes which do not come through Apply.
func Outsider() ip.Actor { return ip.Actor{Name: "outsider", PID: 4711} }

// Watch calls notify once when it begins, and after each change that did not come through Apply.
func (k *Kernel) Watch(ctx context.Context, notify func(ip.Actor)) error {
	changed := make(chan struct{}, 1)
	k.mu.Lock()
	id := k.watches
	k.watches++
	k.changed[id] = changed
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.changed, id)
	}()
	notify(ip.Actor{})
	for {
		select {
		case <-changed:
			notify(Outsider())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// change runs fn as something that happens from outside, and wakes the watches.
func (k *Kernel) change(fn func() error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := fn()
	for _, changed := range k.changed {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	return err
}

// Refuse makes Apply fail each op for which refuse returns an error, which stands for the kernel's. Nil ends that.
func (k *Kernel) Refuse(refuse func(ip.Op) error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refuse = refuse
}

// Fix makes settings read-only for Apply, as a container's mount of /proc/sys does.
func (k *Kernel) Fix() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fixed = true
}

// Load has the kernel make links of a type, or no longer.
func (k *Kernel) Load(kind string, makes bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.makes[kind] = makes
}

// External applies the plan as another program would: the watches are notified, and nothing is refused.
func (k *Kernel) External(plan ip.Plan) error {
	return k.change(func() error {
		var errs ip.OpErrors
		for _, op := range plan {
			if err := k.apply(op); err != nil {
				errs = append(errs, ip.OpError{Op: op, Err: err})
			}
		}
		return result(errs)
	})
}

// Unseen applies the plan as another program would, of which the notifications are lost.
func (k *Kernel) Unseen(plan ip.Plan) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, op := range plan {
		_ = k.apply(op)
	}
}

// AddInterface adds an interface to the host.
func (k *Kernel) AddInterface(i ip.Interface) {
	_ = k.change(func() error {
		i.Addrs = slices.Clone(i.Addrs)
		k.interfaces = append(k.interfaces, i)
		return nil
	})
}

// SetInterface replaces the interface of that name, or does nothing. If it goes down, its routes go for good.
func (k *Kernel) SetInterface(i ip.Interface) {
	_ = k.change(func() error {
		for n := range k.interfaces {
			if k.interfaces[n].Name == i.Name {
				i.Addrs = slices.Clone(i.Addrs)
				k.interfaces[n] = i
				if !i.Up {
					k.dropRoutes(i.Name, anyAddr)
				}
			}
		}
		return nil
	})
}

// RemoveInterface removes an interface of the host, and the routes through it.
func (k *Kernel) RemoveInterface(name string) {
	_ = k.change(func() error {
		k.interfaces = slices.DeleteFunc(k.interfaces, func(i ip.Interface) bool { return i.Name == name })
		k.dropRoutes(name, anyAddr)
		return nil
	})
}

// Restore replaces the tables that are named in the text, which iptables-save(8) would write, with what is in them.
func (k *Kernel) Restore(engine ip.Engine, family ip.Family, text string) {
	filters := ParseSave(engine, family, text)
	_ = k.change(func() error {
		for _, f := range filters {
			maps.DeleteFunc(k.filters, func(p ip.Place, _ ip.Filter) bool {
				return p.Engine == engine && p.Family == family && p.Table == f.Table
			})
		}
		for _, f := range filters {
			k.filters[f.Place] = f
		}
		return nil
	})
}

// SetFilters makes chains, or replaces what is in them.
func (k *Kernel) SetFilters(filters ...ip.Filter) {
	_ = k.change(func() error {
		for _, f := range filters {
			k.filters[f.Place] = f
		}
		return nil
	})
}

// SetDeviceFilters has other programs hang these things on links, and nothing else.
func (k *Kernel) SetDeviceFilters(filters ...ip.DeviceFilter) {
	_ = k.change(func() error {
		k.deviceFilters = filters
		return nil
	})
}

// Rule is a policy rule that sends packets to a table. A prefix that is left out is any.
type Rule struct {
	From, To netip.Prefix
	ip.Selector
	Table uint32
}

// TableRoute is a route in any table, or one that leads nowhere.
type TableRoute struct {
	ip.Route
	Table uint32
	Kind  ip.RouteType
}

// SetPolicy replaces the policy rules that come before the main table's, and the routes of the kind.
func (k *Kernel) SetPolicy(rules []Rule, routes []TableRoute) {
	_ = k.change(func() error {
		k.policy, k.others = slices.Clone(rules), slices.Clone(routes)
		return nil
	})
}

// AddLeftover adds what a flanneld of the given network leaves behind.
func (k *Kernel) AddLeftover(l ip.Leftover, network netip.Prefix) {
	_ = k.change(func() error {
		k.leftovers[l] = network
		return nil
	})
}
