package doctor

import (
	"slices"

	"tulle/internal/trouble"
)

// Checks lists all checks, in causal order: what comes earlier may be the cause of what comes later. Those without a function of their own take over what
// tulled's status tells.
func Checks() []Check { return slices.Clone(checks) }

// Groups of what follows from one fault.
var (
	// unserved is what goes wrong where no word comes from the store.
	unserved = []trouble.Code{
		trouble.StoreUnreachable, trouble.StoreWaiting, trouble.StoreUnconfirmed, trouble.LeaseUnavailable, trouble.LeaseUnpublished, trouble.LeaseWaiting, trouble.FileMissing,
	}
	// unleased is what goes wrong where there is no lease.
	unleased = []trouble.Code{trouble.LeaseUnavailable, trouble.LeaseUnpublished, trouble.LeaseWaiting, trouble.FileMissing}
	// unmended is what tulled would mend if it ran.
	unmended = []trouble.Code{trouble.FileMissing, trouble.TunnelDown, trouble.ForwardOff}
	// unreached is what follows where packets between hosts are lost.
	unreached = []trouble.Code{trouble.PathCut, trouble.PathFiltered, trouble.PeerUnreachable, trouble.ProbeBlocked, trouble.PeerNarrow, trouble.ReassemblyFailing}
)

// checks is all of them. Each code of package trouble has its place.
var checks = []Check{
	// Whether there is anybody to ask, and to mend.
	{Code: trouble.DaemonStopped, Title: "tulled runs and answers", Reads: []Part{PartStatus}, Brings: slices.Concat(unmended, unserved), Find: onEach(daemonStopped)},
	{Code: trouble.Fault, Title: "tulled does not contradict itself", Reads: []Part{PartStatus}},
	{Code: trouble.NodeRandom, Title: "the node id lasts", Reads: []Part{PartStatus}},

	{Code: trouble.PeerGone, Title: "the machine of the other host is there", Reads: []Part{PartToward}, Brings: unreached, Find: silent(true)},
	{Code: trouble.PeerStopped, Title: "the other host's tulled answers", Reads: []Part{PartStatus}, Brings: unreached, Find: silent(false)},

	// The way to the store, without which there is no lease.
	{Code: trouble.UplinkDown, Title: "the interface to other hosts is up", Reads: []Part{PartLinks}, Brings: slices.Concat(
		[]trouble.Code{trouble.UplinkMissing, trouble.UplinkDiverted, trouble.UplinkOther, trouble.RouteShadowed, trouble.KernelRefused, trouble.PeerRefused}, unserved, unreached), Find: onEach(uplinkDown)},
	{Code: trouble.UplinkMissing, Title: "an interface carries the traffic between hosts", Reads: []Part{PartStatus}, Brings: slices.Concat(
		[]trouble.Code{trouble.UplinkDiverted, trouble.RouteShadowed, trouble.KernelRefused}, unserved, unreached)},
	{Code: trouble.ClockSkewed, Title: "certificates are valid by the host's clock", Reads: []Part{PartStatus}, Brings: unserved, Find: onEach(clockSkewed)},
	{Code: trouble.ResolverInside, Title: "names do not come from the containers' network", Reads: []Part{PartResolvers}, Find: onEach(resolverInside)},
	{Code: trouble.StoreUnreachable, Title: "the store answers", Reads: []Part{PartStatus}, Brings: slices.Concat([]trouble.Code{trouble.StoreWaiting, trouble.StoreUnconfirmed}, unleased)},
	{Code: trouble.StoreWaiting, Title: "the store has answered", Reads: []Part{PartStatus}, Brings: unleased},
	{Code: trouble.StoreUnconfirmed, Title: "the store confirms the view", Reads: []Part{PartStatus}},
	{Code: trouble.StoreSuddenLoss, Title: "leases go one by one", Reads: []Part{PartStatus}},
	{Code: trouble.KeyUnreadable, Title: "the store's keys make sense", Reads: []Part{PartStatus}},

	// What the store says.
	{Code: trouble.ConfigMissing, Title: "a network is configured", Reads: []Part{PartStatus}, Brings: unleased},
	{Code: trouble.ConfigRefused, Title: "the configuration can be done", Reads: []Part{PartStatus}, Brings: unleased},
	{Code: trouble.ConfigWarning, Title: "the configuration is understood", Reads: []Part{PartStatus}},
	{Code: trouble.BackendDiffers, Title: "both hosts send in the same manner", Reads: []Part{PartLinks}, Brings: slices.Concat([]trouble.Code{trouble.ConfigPending, trouble.PeerRefused}, unreached), Find: between(backendDiffers)},
	{Code: trouble.ConfigPending, Title: "the configuration is in force", Reads: []Part{PartStatus}},
	{Code: trouble.LeaseConflict, Title: "no other host has this one's id or address", Reads: []Part{PartStatus}, Brings: slices.Concat(unleased, unreached)},
	{Code: trouble.LeaseClaimed, Title: "no other host claims them", Reads: []Part{PartStatus}},
	{Code: trouble.LeaseExhausted, Title: "there is a subnet for this host", Reads: []Part{PartStatus}, Brings: unleased},
	{Code: trouble.LeaseLost, Title: "this host has the subnet that it had", Reads: []Part{PartStatus}, Brings: []trouble.Code{trouble.PeerUnreachable}},
	{Code: trouble.LeaseMisfit, Title: "the lease fits the configuration", Reads: []Part{PartStatus}},
	{Code: trouble.LeaseUnavailable, Title: "the store gives a lease", Reads: []Part{PartStatus}},
	{Code: trouble.LeaseUnpublished, Title: "the lease says how this host is reached", Reads: []Part{PartStatus}},
	{Code: trouble.LeaseOutranked, Title: "no older lease comes before this host's", Reads: []Part{PartStatus}, Brings: []trouble.Code{trouble.PeerUnreachable}},
	{Code: trouble.LeaseWaiting, Title: "this host has a lease", Reads: []Part{PartStatus}},
	{Code: trouble.LeaseRenumbered, Title: "this host kept its subnet", Reads: []Part{PartStatus}, Brings: []trouble.Code{trouble.BridgeStale, trouble.ContainerForeignAddress}},
	{Code: trouble.FileUnwritable, Title: "files can be written", Reads: []Part{PartStatus}, Brings: []trouble.Code{trouble.FileMissing}},
	{Code: trouble.FileMissing, Title: "the subnet file is there", Reads: []Part{PartFile}, Find: onEach(fileMissing)},

	// Who hands out its addresses.
	{Code: trouble.NetworkOverlaps, Title: "no other network shares addresses with the containers'", Reads: []Part{PartStatus}},
	{Code: trouble.CNIShadowed, Title: "runtimes take Tulle's CNI configuration", Reads: []Part{PartCNI}, Find: onEach(cniShadowed)},
	{Code: trouble.CNIDelegateMissing, Title: "the CNI plugins are there", Reads: []Part{PartCNI}, Find: onEach(cniDelegateMissing)},
	{Code: trouble.CNIAddressesExhausted, Title: "there are addresses for more containers", Reads: []Part{PartCNI}, Find: onEach(cniAddressesExhausted)},
	{Code: trouble.BridgeStale, Title: "bridges hand out the lease", Reads: []Part{PartStatus, PartDocker}, Brings: []trouble.Code{trouble.ContainerForeignAddress, trouble.RouteShadowed}, Find: onEach(bridgeStale)},
	{Code: trouble.BridgeShared, Title: "one bridge alone hands it out", Reads: []Part{PartStatus}},

	// The container, its bridge, its host.
	{Code: trouble.ContainerForeignAddress, Title: "containers have addresses of the lease", Reads: []Part{PartContainers}, Find: onEach(containerForeignAddress)},
	{Code: trouble.ContainerSameAddress, Title: "each container has an address of its own", Reads: []Part{PartContainers}, Find: onEach(containerSameAddress)},
	{Code: trouble.ContainerDetached, Title: "containers hang on a bridge", Reads: []Part{PartContainers}, Find: onEach(containerDetached)},
	{Code: trouble.ContainerDown, Title: "containers' interfaces are up", Reads: []Part{PartContainers, PartLinks}, Brings: []trouble.Code{trouble.ContainerRouteless}, Find: onEach(containerDown)},
	{Code: trouble.BridgeDown, Title: "bridges are up", Reads: []Part{PartLinks}, Brings: []trouble.Code{trouble.RouteShadowed, trouble.BridgeUnaddressed, trouble.ContainerMisrouted}, Find: onEach(bridgeDown)},
	{Code: trouble.BridgeUnaddressed, Title: "bridges have the address that containers send to", Reads: []Part{PartLinks, PartContainers}, Brings: []trouble.Code{trouble.ContainerMisrouted, trouble.RouteShadowed}, Find: onEach(bridgeUnaddressed)},
	{Code: trouble.ARPOff, Title: "bridges and containers answer who has an address", Reads: []Part{PartLinks, PartContainers}, Find: onEach(arpOff)},
	{Code: trouble.BridgeFiltered, Title: "nothing drops frames on bridges", Reads: []Part{PartFilters}, Find: onEach(bridgeFiltered)},
	{Code: trouble.ContainerRouteless, Title: "containers have a route", Reads: []Part{PartContainers}, Find: onEach(containerRouteless)},
	{Code: trouble.ContainerMisrouted, Title: "containers send to their bridge", Reads: []Part{PartContainers}, Find: onEach(containerMisrouted)},
	{Code: trouble.ContainerTooLargeMTU, Title: "containers send packets that fit", Reads: []Part{PartContainers, PartDocker}, Find: onEach(containerTooLargeMTU)},
	{Code: trouble.SettingRefused, Title: "settings can be written", Reads: []Part{PartStatus}, Brings: []trouble.Code{trouble.ForwardOff, trouble.RouteShadowed}},
	{Code: trouble.SettingAdvised, Title: "helpful settings can be written", Reads: []Part{PartStatus}},
	{Code: trouble.ForwardOff, Title: "the host forwards", Reads: []Part{PartSettings}, Brings: []trouble.Code{trouble.RouteShadowed}, Find: onEach(forwardOff)},
	{Code: trouble.KernelFailed, Title: "the kernel can be read", Reads: []Part{PartStatus}},
	{Code: trouble.KernelRefused, Title: "the kernel does what is wanted", Reads: []Part{PartStatus}},
	{Code: trouble.KernelUnstable, Title: "nobody undoes what is wanted at once", Reads: []Part{PartStatus}},
	{Code: trouble.KernelContested, Title: "nobody keeps undoing what is wanted", Reads: []Part{PartStatus}},
	{Code: trouble.ForwardBlocked, Title: "no filter drops packets between containers", Reads: []Part{PartStatus}},
	{Code: trouble.ForwardUncertain, Title: "filters are understood", Reads: []Part{PartStatus}},
	{Code: trouble.OutsideBlocked, Title: "no filter drops packets to the world outside", Reads: []Part{PartStatus}},
	{Code: trouble.ConntrackFull, Title: "there is room for more connections", Reads: []Part{PartConntrack, PartCounters}, Find: onEach(conntrackFull)},
	{Code: trouble.NeighborsFull, Title: "there is room for more neighbours", Reads: []Part{PartNeighbors, PartCounters}, Find: onEach(neighborsFull)},
	{Code: trouble.DeviceFiltered, Title: "nothing of others hangs on Tulle's devices", Reads: []Part{PartStatus}},

	// Between hosts.
	{Code: trouble.TunnelDown, Title: "the tunnel's device is up", Reads: []Part{PartLinks}, Brings: slices.Concat([]trouble.Code{trouble.RouteShadowed}, unreached), Find: onEach(tunnelDown)},
	{Code: trouble.UplinkMisannounced, Title: "hosts have the addresses that others send to", Reads: []Part{PartStatus, PartToward}, Brings: unreached, Find: between(misannounced)},
	{Code: trouble.NeighborWrong, Title: "hosts and containers know each other's MAC", Reads: []Part{PartContainers, PartToward}, Brings: unreached, Find: both(onEach(strangeContainer), between(strangeNeighbor))},
	{Code: trouble.TunnelStray, Title: "the tunnel leads to the other host", Reads: []Part{PartToward}, Brings: unreached, Find: between(strayStation)},
	{Code: trouble.PeerRefused, Title: "all leases can be used", Reads: []Part{PartStatus}},
	{Code: trouble.ReverseFiltered, Title: "reverse path filtering drops nothing", Reads: []Part{PartSettings, PartCounters}, Brings: slices.Concat([]trouble.Code{trouble.UplinkDiverted}, unreached), Find: onEach(reverseFiltered)},
	{Code: trouble.UplinkDiverted, Title: "packets between hosts go by the uplink", Reads: []Part{PartStatus, PartRoutes}, Brings: unreached, Find: onEach(led(trouble.UplinkDiverted))},
	{Code: trouble.RouteShadowed, Title: "routes of others do not come first", Reads: []Part{PartStatus, PartRoutes}, Brings: unreached, Find: onEach(led(trouble.RouteShadowed))},
	{Code: trouble.RouteUncertain, Title: "routes of others are understood", Reads: []Part{PartStatus}},
	{Code: trouble.TunnelBlocked, Title: "no filter drops packets of the tunnel", Reads: []Part{PartStatus}, Brings: unreached},
	{Code: trouble.TunnelUncertain, Title: "filters of the tunnel are understood", Reads: []Part{PartStatus}},
	{Code: trouble.UplinkFiltered, Title: "nothing of others hangs on the uplink", Reads: []Part{PartStatus}},
	{Code: trouble.UplinkNarrow, Title: "the uplink carries what is configured", Reads: []Part{PartStatus}, Brings: []trouble.Code{trouble.PeerNarrow, trouble.ReassemblyFailing}},
	{Code: trouble.UplinkOther, Title: "the uplink is the one that would be chosen", Reads: []Part{PartStatus}},
	{Code: trouble.ProbeBlocked, Title: "this host can ask others", Reads: []Part{PartStatus}, Brings: []trouble.Code{trouble.PeerUnreachable}},
	{Code: trouble.PathCut, Title: "hosts reach each other", Reads: []Part{PartToward}, Brings: []trouble.Code{trouble.PathFiltered, trouble.PeerUnreachable, trouble.PeerNarrow}, Find: between(pathCut)},
	{Code: trouble.PathFiltered, Title: "what hosts tunnel arrives", Reads: []Part{PartToward}, Brings: []trouble.Code{trouble.PeerUnreachable, trouble.PeerNarrow}, Find: between(pathFiltered)},
	{Code: trouble.PeerUnreachable, Title: "peers answer", Reads: []Part{PartStatus}, Brings: []trouble.Code{trouble.PeerNarrow, trouble.ReassemblyFailing}},
	{Code: trouble.ReassemblyFailing, Title: "fragments arrive whole", Reads: []Part{PartCounters}, Brings: []trouble.Code{trouble.PeerNarrow}, Find: onEach(reassemblyFailing)},
	{Code: trouble.PeerNarrow, Title: "large packets arrive", Reads: []Part{PartStatus}},

	// What costs no packets.
	{Code: trouble.ClockApart, Title: "clocks agree", Reads: []Part{PartStatus}, Find: between(clockApart)},
	{Code: trouble.VersionDiffers, Title: "hosts run the same tulled", Reads: []Part{PartStatus}, Find: between(versionsDiffer)},
	{Code: trouble.FastPathUnavailable, Title: "the fast path is on where it is wanted", Reads: []Part{PartStatus}},
	{Code: trouble.FastPathFailed, Title: "the fast path is as wanted", Reads: []Part{PartStatus}},
	{Code: trouble.FastPathUnkept, Title: "the fast path outlasts tulled", Reads: []Part{PartStatus}},
}

// onEach has a check made of each host of the case by itself.
func onEach(find func(Facts) []Finding) func(Case) []Finding {
	return func(c Case) (all []Finding) {
		for _, h := range c.Hosts() {
			for _, f := range find(h) {
				f.Host = h.Node
				all = append(all, f)
			}
		}
		return all
	}
}

// both makes two checks.
func both(first, second func(Case) []Finding) func(Case) []Finding {
	return func(c Case) []Finding { return append(first(c), second(c)...) }
}
