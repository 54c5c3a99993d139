package trouble

import "slices"

// The codes. What comes before the dot says where to look.
const (
	StoreWaiting     Code = "store.waiting"
	StoreUnreachable Code = "store.unreachable"
	StoreUnconfirmed Code = "store.unconfirmed"
	StoreSuddenLoss  Code = "store.sudden-loss"
	KeyUnreadable    Code = "store.key-unreadable"

	ConfigMissing Code = "config.missing"
	ConfigRefused Code = "config.refused"
	ConfigWarning Code = "config.warning"
	ConfigPending Code = "config.pending"

	LeaseWaiting     Code = "lease.waiting"
	LeaseConflict    Code = "lease.conflict"
	LeaseExhausted   Code = "lease.exhausted"
	LeaseLost        Code = "lease.lost"
	LeaseUnavailable Code = "lease.unavailable"
	LeaseUnpublished Code = "lease.unpublished"
	LeaseOutranked   Code = "lease.outranked"
	LeaseMisfit      Code = "lease.misfit"
	LeaseRenumbered  Code = "lease.renumbered"
	LeaseClaimed     Code = "lease.claimed"

	PeerRefused     Code = "peer.refused"
	PeerUnreachable Code = "peer.unreachable"
	PeerNarrow      Code = "peer.narrow"
	ProbeBlocked    Code = "probe.blocked"

	UplinkMissing Code = "uplink.missing"
	UplinkOther   Code = "uplink.other"
	UplinkNarrow  Code = "uplink.narrow"

	RouteShadowed  Code = "route.shadowed"
	RouteUncertain Code = "route.uncertain"
	UplinkDiverted Code = "underlay.diverted"

	ForwardBlocked   Code = "forward.blocked"
	ForwardUncertain Code = "forward.uncertain"
	OutsideBlocked   Code = "outside.blocked"

	TunnelBlocked   Code = "tunnel.blocked"
	TunnelUncertain Code = "tunnel.uncertain"

	DeviceFiltered Code = "device.filtered"
	UplinkFiltered Code = "uplink.filtered"

	SettingRefused Code = "setting.refused"
	SettingAdvised Code = "setting.advised"

	FastPathUnavailable Code = "fastpath.unavailable"
	FastPathUnkept      Code = "fastpath.unkept"
	FastPathFailed      Code = "fastpath.failed"

	BridgeStale     Code = "bridge.stale"
	NetworkOverlaps Code = "network.overlaps"
	BridgeShared    Code = "bridge.shared"

	KernelFailed    Code = "kernel.failed"
	KernelRefused   Code = "kernel.refused"
	KernelContested Code = "kernel.contested"
	KernelUnstable  Code = "kernel.unstable"

	FileUnwritable Code = "file.unwritable"

	NodeRandom Code = "node.random"

	Fault Code = "fault"
)

// The codes of what tulle doctor alone tells, for tulled does not look there or does not run.
const (
	DaemonStopped Code = "daemon.stopped"
	ClockSkewed   Code = "clock.skewed"

	UplinkDown Code = "uplink.down"
	TunnelDown Code = "tunnel.down"

	FileMissing    Code = "file.missing"
	ResolverInside Code = "resolver.inside"

	CNIShadowed           Code = "cni.shadowed"
	CNIDelegateMissing    Code = "cni.delegate-missing"
	CNIAddressesExhausted Code = "cni.addresses-exhausted"

	ContainerForeignAddress Code = "container.foreign-address"
	ContainerDown           Code = "container.down"
	ContainerRouteless      Code = "container.routeless"
	ContainerMisrouted      Code = "container.misrouted"
	ContainerTooLargeMTU    Code = "container.too-large-mtu"
	ContainerDetached       Code = "container.detached"
	ContainerSameAddress    Code = "container.same-address"

	BridgeDown        Code = "bridge.down"
	BridgeUnaddressed Code = "bridge.unaddressed"
	BridgeFiltered    Code = "bridge.filtered"
	ARPOff            Code = "arp.off"

	ForwardOff      Code = "forward.off"
	ConntrackFull   Code = "conntrack.full"
	NeighborsFull   Code = "neighbors.full"
	ReverseFiltered Code = "reverse.filtered"

	ReassemblyFailing Code = "reassembly.failing"

	PeerGone           Code = "peer.gone"
	PeerStopped        Code = "peer.stopped"
	BackendDiffers     Code = "backend.differs"
	UplinkMisannounced Code = "uplink.misannounced"
	NeighborWrong      Code = "neighbor.wrong"
	TunnelStray        Code = "tunnel.stray"
	PathCut            Code = "path.cut"
	PathFiltered       Code = "path.filtered"
	ClockApart         Code = "clock.apart"
	VersionDiffers     Code = "version.differs"
)

// Kind says what a code means.
type Kind struct {
	Code     Code
	Severity Severity
	Meaning  string
	Remedy   string // what to do if the trouble itself says nothing more exact
}

// Kinds lists all kinds of trouble that tulled tells of, by where to look.
func Kinds() []Kind { return slices.Clone(kinds) }

// DoctorKinds lists those that tulle doctor alone tells of.
func DoctorKinds() []Kind { return slices.Clone(doctorKinds) }

var kinds = []Kind{
	{StoreWaiting, Error, "tulled has started and the store has not answered yet.", "Wait some seconds; then look for store.unreachable."},
	{StoreUnreachable, Warning, "The store does not answer, or refuses.", "See that etcd runs, that this host reaches it, and that certificates and password are right. Forwarding goes on meanwhile."},
	{StoreUnconfirmed, Warning, "The host works by what the store said earlier: it has not confirmed the view, or the lease for as long as it lasts.", "Bring the store back. What changes meanwhile reaches this host only then."},
	{StoreSuddenLoss, Warning, "Most leases went at once. They stay in force until a second look confirms the loss.", "See whether somebody deleted keys or restored an old backup."},
	{KeyUnreadable, Warning, "A key in the store makes no sense and is left out.", "Delete the key, or correct what wrote it."},

	{ConfigMissing, Error, "The store has no network configuration that this host can work with.", "Write one with tulle config set."},
	{ConfigRefused, Error, "The network configuration asks for what this host cannot do.", "Check it with tulle config check, and write another with tulle config set."},
	{ConfigWarning, Warning, "Something in the network configuration is odd, and is passed over.", "Check it with tulle config check; tulle config set writes another."},
	{ConfigPending, Warning, "The network configuration in the store differs from the one in force.", "Restart tulled on every host to take it over, or write the old one again."},

	{LeaseWaiting, Error, "The host waits for its lease.", "Wait some seconds; then look for another trouble with lease or store."},
	{LeaseConflict, Error, "Another host that lives, or may live, uses this host's node id or public address.", "Give each host a node id and an address of its own; end the lease of a host that is gone with tulle leases release."},
	{LeaseExhausted, Error, "No subnet is free.", "Release subnets that nobody uses with tulle leases release, or make the network larger; where the text names networks that this host is in, give it other addresses."},
	{LeaseLost, Error, "Another host holds the subnet that this host had.", "End the other's lease with tulle leases release if it should not have it; or start tulled with --on-subnet-loss=renumber."},
	{LeaseUnavailable, Error, "The store gave no lease.", "See what the text says of the store."},
	{LeaseUnpublished, Error, "The lease does not say what peers need to reach this host.", "See what the text says of the store."},
	{LeaseOutranked, Error, "Hosts that see the store for the first time leave this one out, for an older lease.", "End the older lease with tulle leases release if it should not be there."},
	{LeaseMisfit, Error, "The lease is not one of the network that is configured.", "Restart tulled to take over the new configuration."},

	{LeaseRenumbered, Warning, "This host lost its subnet to another host, and has another one now. Containers that run keep their old addresses.", "Start the containers anew."},
	{LeaseClaimed, Warning, "Another host claims this host's node id or public address. It gets no lease while this one lives.", "Give the other host a node id and an address of its own."},

	{PeerRefused, Warning, "A lease of another host is left out: no packets go there.", "See the reason; end the lease with tulle leases release if it should not be there."},

	{PeerUnreachable, Warning, "Packets to a peer do not arrive, over the fabric or over the underlay: the peer does not answer what it is asked.", "Follow the text: tulle ping PEER asks at once, on this host and on the other; a host that is gone for good has its lease ended with tulle leases release."},
	{PeerNarrow, Warning, "Large packets to a peer do not arrive. The route to its containers names the size that does, so that senders are told.", "Raise the MTU of what lies between the hosts, or let ICMP's packet too big through; lower Backend.MTU if it has to stay. tulle peers shows the sizes."},
	{ProbeBlocked, Warning, "This host cannot ask others whether packets arrive, or none answers: more likely a filter of its own.", "Let UDP port 8473 in and out on the uplink and on Tulle's devices, or stop what else uses the port."},

	{UplinkMissing, Error, "No interface can carry the traffic between hosts.", "See that the interface is up and has an address, or name another with --iface."},
	{UplinkNarrow, Warning, "The configured MTU is larger than that of the uplink, or of a route over it.", "Lower Backend.MTU, or raise the MTU of the interface or of the route that the text names."},
	{UplinkOther, Advice, "The uplink in use is not the interface that would be chosen today.", "Start tulled with --iface and the name of the one that it should be."},

	{RouteShadowed, Error, "Packets to a peer do not go where Tulle's route leads: a route or policy rule of another program comes first.", "Take away what ip route show table all match SUBNET and ip rule show, or end the lease with tulle leases release if it should not be there."},
	{RouteUncertain, Warning, "A policy rule or route of another program leads packets to or from peers astray that have a mark, a protocol, a port or a TOS, and Tulle cannot know whether there are such.", "See what sets the mark, or uses the port; if packets of containers may be such, have the main table asked before, as the text says."},
	{UplinkDiverted, Error, "Packets between hosts leave by another interface than the uplink, or not at all, or this host does not take them in.", "Take away the route or policy rule that comes first, add one that comes before it, or name the other interface with --iface."},

	{ForwardBlocked, Error, "A packet filter of another program drops packets between containers.", "Change the setting that the text names."},
	{ForwardUncertain, Warning, "A packet filter of another program may drop packets between containers: a rule in it is not understood.", "Look at the chain that the text names."},
	{OutsideBlocked, Warning, "A packet filter of another program drops packets between containers and the world outside.", "If that is not on purpose, accept them in the chain that the text names."},

	{TunnelBlocked, Error, "A packet filter of another program on this host drops the packets that hosts exchange through the tunnel.", "Accept them in the chain that the text names."},
	{TunnelUncertain, Warning, "A packet filter of another program on this host may drop the packets that hosts exchange through the tunnel: a rule in it is not understood.", "Look at the chain that the text names."},

	{DeviceFiltered, Warning, "Another program has hung something on a device of Tulle's, or on a bridge of its containers, that may drop packets between containers: a filter of tc or nftables, a queueing discipline, an XDP program or another one of bpf.", "If that is not on purpose, look at it with the command in the text, and have that program leave the device alone."},
	{UplinkFiltered, Advice, "Another program has hung something on the uplink, or on an interface that it is made of, that may drop packets between hosts: a filter of tc or nftables, an XDP program or another one of bpf.", "Nothing, if packets flow: agents of clouds and other networks do so. If they do not, look at it with the command in the text."},

	{SettingRefused, Error, "A setting without which nothing is forwarded cannot be written here.", "Set it on the host, or mount /proc/sys writable."},
	{SettingAdvised, Advice, "A setting that would help cannot be written here.", "Set it on the host, or mount /proc/sys writable."},

	{FastPathUnavailable, Warning, "The fast path is off, and --fast-path=on wants it. Packets take the plain path.", "See what the text lacks, or start tulled with --fast-path=auto."},
	{FastPathUnkept, Advice, "The fast path cannot be left to the kernel: while tulled is stopped, packets take the plain path.", "Mount a bpf filesystem at /sys/fs/bpf (mount -t bpf bpf /sys/fs/bpf), or name a directory on one with --bpf-dir."},
	{FastPathFailed, Warning, "Something of the fast path could not be made as wanted. Packets that lack it take the plain path.", "See the error; tulled tries again."},

	{NetworkOverlaps, Warning, "A network that this host is in shares addresses with the containers' network.", "Give the network other addresses, or keep leases apart from there with SubnetMin and SubnetMax. New leases of this host stay out of there by themselves."},
	{BridgeStale, Warning, "A bridge hands out addresses of a subnet that this host does not have.", "Move it with the command in the text."},
	{BridgeShared, Warning, "Two bridges hand out the same addresses.", "Take the subnet from all but one, as the text says."},

	{KernelFailed, Error, "The kernel cannot be read.", "See the error; tulled tries again."},
	{KernelRefused, Error, "The kernel refuses a change.", "See the error; tulled tries again."},
	{KernelUnstable, Error, "Another program undoes at once what is put in place.", "Stop that program, or have it leave Tulle's objects alone."},
	{KernelContested, Warning, "Another program keeps undoing what is wanted.", "Stop that program, or have it leave Tulle's objects alone."},

	{FileUnwritable, Error, "A file cannot be written: the next start, or new containers, would go by what is old.", "Make room on the disk, or make it writable."},

	{NodeRandom, Advice, "The node id is made at random, and is another at each start.", "Mount /etc/machine-id and the state directory from the host, or set --node-id."},

	{Fault, Warning, "Tulle contradicts itself.", "Report it with the text and the log."},
}

var doctorKinds = []Kind{
	{DaemonStopped, Error, "No tulled runs on the host, or it does not answer: what changes is not followed, and what is broken is not mended.", "Start tulled."},
	{ClockSkewed, Error, "The host's clock is wrong, or a certificate has ended: the store is not spoken to.", "Set the clock, and see that it is kept; or give tulled a certificate that is valid."},

	{FileMissing, Error, "The subnet file is gone: new containers, and Docker when it starts, get no addresses.", "Restart tulled, which writes it."},
	{ResolverInside, Warning, "The host asks a server for names whose address is in the containers' network.", "Take a resolver outside of it, or give the network other addresses."},

	{CNIShadowed, Warning, "Container runtimes take another CNI configuration than Tulle's: the first by name.", "Take the other one away, or give Tulle's a name that sorts before it."},
	{CNIDelegateMissing, Error, "A CNI plugin that Tulle's configuration calls is not there: no container starts.", "Install the CNI project's plugins where the runtime looks for them."},
	{CNIAddressesExhausted, Error, "All addresses of this host's subnet are handed out: no more containers start.", "Give back those of containers that are gone, or give hosts larger subnets (SubnetLen)."},

	{ContainerForeignAddress, Error, "A container has an address of another host's subnet: answers do not come back.", "Start the container anew, so that it gets an address of this host's subnet."},
	{ContainerDown, Error, "The interface of a container is down, or the host's end of it.", "Set it up."},
	{ContainerRouteless, Error, "A container has no route to other hosts' containers.", "Add a default route via the bridge."},
	{ContainerMisrouted, Warning, "A container sends to other hosts' containers by another gateway than its bridge.", "Lead its route via the bridge."},
	{ContainerDetached, Error, "The host's end of a container's interface hangs on no bridge: the container reaches nobody.", "Make it a port of the bridge."},
	{ContainerSameAddress, Error, "Two containers of a host have the same address: each gets some of what is for the other.", "Start one of them anew, so that it gets another address."},
	{ContainerTooLargeMTU, Warning, "A container sends packets that are larger than the network carries.", "Lower the MTU of its interface, and of what makes such interfaces."},

	{BridgeDown, Error, "A bridge of containers is down: they reach nobody.", "Set it up."},
	{BridgeFiltered, Error, "A chain of nftables drops frames on a bridge of containers.", "Have its owner let the bridge's frames pass, or take away what drops them."},
	{ARPOff, Error, "A bridge, or the interface of a container, neither asks nor answers who has an address.", "Switch ARP on."},
	{BridgeUnaddressed, Error, "A bridge lacks the address that its containers send to.", "Add the address."},

	{ForwardOff, Error, "The host does not forward packets.", "Set the setting that the text names."},
	{ConntrackFull, Error, "The table of tracked connections is full, or nearly: new connections are dropped.", "Make it larger."},
	{NeighborsFull, Error, "The table of neighbours is full, or nearly: packets to new ones are dropped.", "Make it larger."},

	{TunnelDown, Error, "The tunnel's device is down or missing.", "Start tulled, which sets it up with all that is on it."},
	{UplinkDown, Error, "The interface to the other hosts is down.", "Set it up, or plug it in."},
	{ReverseFiltered, Error, "Strict reverse path filtering drops packets, which come in by another interface than answers would leave by.", "Make it loose."},

	{PeerGone, Error, "Between two hosts: the machine of one of them is off, or cut off from the other and from the store.", "Start it, or mend its interface to the others."},
	{PeerStopped, Error, "Between two hosts: no tulled answers for one of them through the store, though its lease is there.", "Start tulled there, and see that it reaches the store."},
	{BackendDiffers, Error, "Two hosts differ in backend, VNI or port: what one sends, the other takes for nothing.", "Restart tulled where it still goes by an earlier configuration."},
	{UplinkMisannounced, Warning, "A host has others send to an address that it does not have.", "Give tulled the right --public-ip, or --iface; behind a NAT all is well."},
	{NeighborWrong, Error, "Packets for a host or a container are sent to a MAC that is not its own.", "Delete the neighbour entry, and find out who made it, or which other machine has the address."},
	{TunnelStray, Error, "The tunnel's device sends frames for a host to an address that is not that host's.", "Start tulled, which puts it right."},
	{PathCut, Error, "Two hosts that live do not reach each other over the underlay.", "Look at what lies between them."},
	{PathFiltered, Error, "Something drops packets between two hosts while others arrive.", "Let the tunnel's packets through, in both directions."},
	{ClockApart, Warning, "The clocks of two hosts differ by more than a minute.", "Set them, and see that they are kept."},
	{VersionDiffers, Advice, "Two hosts run different versions of tulled.", "Nothing has to be done: neighbouring versions go together."},
	{ReassemblyFailing, Warning, "Fragments of packets get lost on the way.", "Lower the MTU, or let fragments through what lies between the hosts."},
}

func kindOf(code Code) Kind {
	for _, list := range [][]Kind{kinds, doctorKinds} {
		if i := slices.IndexFunc(list, func(k Kind) bool { return k.Code == code }); i >= 0 {
			return list[i]
		}
	}
	return Kind{Code: code, Severity: Error}
}
