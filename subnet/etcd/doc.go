// Package etcd keeps the network configuration and the leases in etcd, in flannel's layout.
//
// This comment is the manual of the lease protocol: the keys, every write with its conditions, what a host does with
// the lease that it holds, and what can be relied on. The scripts in testdata tell the same as stories, and run against
// a real etcd. Connections, credentials, streams and what to do about an etcd that does not serve are package
// tulle/internal/etcdtransport's.
//
// An etcd lease is etcd's grant of time: keys hang on it, and go when it ends. A lease, in this text, is a host's hold
// on its subnets.
//
// # Keys
//
// All keys are below PREFIX, which is /coreos.com/network unless it is configured.
//
//	key                   value                                  hangs on
//	config                flannel's network configuration        nothing
//	subnets/KEY           a lease                                the owner's etcd lease; a reservation on nothing
//	claims/owner/SUBNET   KEY of the lease that has this subnet  the same as that lease
//	claims/nodes/NODE     a question to a node, or its answer    an etcd lease of the asker, of one minute
//	claims/nodes/NODE/ask/RANDOM
//	                      another question, and the answer       the same
//	claims/past/SUBNET    which node had this subnet last        nothing
//	claims/complaints/NODE
//	                      which peers packets of a node do       the same as its lease; that of a reservation on an
//	                      not arrive at (subnet.Complaint)       etcd lease of its own, of one hour
//
// KEY is a subnet with a dash for the slash, as 10.5.34.0-24. In dual stack it is a pair, as 10.5.34.0-24&fc00:5::-64,
// and without IPv4 the first half is 0.0.0.0-0. The value of a lease is flannel's, with the node id, the instance and
// the hardware of the owner as one more field. The first two keys are flannel's. Flannel's readers take every key that
// begins with subnets for a lease, so Tulle's own keys are elsewhere. SUBNET is one prefix of one family.
//
// A claims/owner key is called an owner key: in dual stack the key of the lease stands for the pair only, and the owner
// keys for each of the two. A claims/nodes/NODE key is called a challenge, one below it an inquiry. A reservation is a lease that never expires.
//
// # Reading
//
// A view is config and all leases at one revision. It is listed page by page, all pages at the revision of the first;
// if that is compacted meanwhile, the listing begins anew. Watch lists once, and then watches from that revision. A
// watch whose revision is compacted is replaced by a new listing. Beside a Watch, Acquire takes that one's view and
// reads only what has changed since, unless a key went.
//
// etcd went back, as after a restore from a backup, if its cluster id is another, its Raft term or its revision is
// lower than before, or the newest lease of the view is not found at the revision at which it was seen. Watch makes
// sure after every reconnect, and when a sign of life that it asked of the stream has not come within a ProbeInterval.
// In the latter case, if etcd has a newer revision, it also reads whether leases have changed: of that the watch should
// have told, so another begins, on another stream. If etcd went back, Watch lists anew, and has every lease that this
// store holds looked at. A view from which most leases went at once, or of an etcd that went back, is delivered with the
// missing leases until a second complete listing, HoldbackTime later, lacks them too (subnet.Holdback).
//
// # Writes
//
// Each is one transaction. In what follows "unchanged" means that the modification revision of the key is the one that
// was seen.
//
// Create a lease. No other write makes a key below subnets, except for the variant that follows.
//
//	if    no key has the same IPv4 address, whatever its mask; without IPv4: its own key is not there
//	      each owner key is absent, or unchanged and stale: the lease that it names is not there, or does not have
//	        the subnet
//	then  put the lease and its owner keys, on one etcd lease
//	      put claims/past of each subnet: this node
//	      list the leases created since the view from which the subnets were chosen
//	else  list the keys with the same IPv4 address, and the owner keys
//
// What the conditions do not see, an overlap under another address or mask, is in the listing: all that is listed was
// created earlier. If it overlaps, or its owner uses this claim's node id or public address and may live, the newcomer
// yields: it removes what it created, and chooses again. So of two creations that exclude each other, the one that etcd
// ordered first stands. Who fails at the conditions learns from the lists what stood in the way, and chooses another
// place; every fourth failure in an Acquire lists all leases again. A place where a key that is no lease is in the way
// is passed over.
//
// Move a lease: create another in place of the host's own, because the network does not hand out its subnets any more,
// an older lease overlaps them, or containers use others.
//
//	if    as above, except that the old lease and its owner keys do not count; the old lease is unchanged
//	then  as above, and delete the old lease and those of its owner keys whose subnet is not kept
//
// Rewrite a lease: another run of the host takes it over, somebody else has changed it, or it becomes a reservation.
//
//	if    the lease is unchanged
//	then  put the lease and its owner keys, on the given etcd lease; for a reservation, on none
//	      delete claims/complaints of the node, if the earlier run was asked whether packets arrive and this one is not
//
// Update a lease: publish other attributes.
//
//	if    the lease is unchanged, and hangs on this host's etcd lease (a restored etcd gives revisions out again)
//	then  put the lease, on the etcd lease that it has
//
// Remove a lease: its host releases it, an operator does, the newcomer yields, or a host ends one that it has left.
//
//	if    the lease is unchanged
//	then  delete the lease and its owner keys
//	      delete claims/complaints of the node whose lease it is, but not for a newcomer that yields, nor for one that was left
//	      put claims/past of each subnet: released; by the owner, or by no node for a newcomer that yields
//
// Record the owner, once in OwnerInterval, so that former leases are handed out again by age.
//
//	if    the lease is unchanged
//	then  put claims/past of each subnet: this node
//
// Ask a node whether it lives: put the challenge, on an etcd lease that is revoked afterwards. Nothing is compared. A
// question may replace another's; an asker whose question was overwritten asks again.
//
// Answer:
//
//	if    the challenge is unchanged
//	then  put the question with the answer, on the asker's etcd lease
//
// Ask a node anything else: put an inquiry at a key of its own, on an etcd lease of one minute that is revoked once the answer was read. Who
// hears nothing puts it again, once, and then challenges the node by a question of nobody's, to tell silence from a question that is left
// unanswered.
//
// Answer an inquiry:
//
//	if    the inquiry is unchanged
//	then  put the question with the answer, on the asker's etcd lease
//
// Complain, or end a complaint: the host says which peers its packets do not arrive at, or that they do.
//
//	if    the lease is unchanged, and hangs on this host's etcd lease, or for a reservation on none
//	then  put the complaint on that etcd lease, for a reservation on a new one; or delete it
//
// What is there already is not written: a host knows what it has written, and reads the complaint before the first and whenever it looks at the
// lease anew. So a complaint of an earlier run is found, and ends if it does not hold. That of a reservation is put again by half its time. A host whose
// lease was lost ends its complaint:
//
//	if    the complaint hangs on the etcd lease that the host put it on
//	then  delete the complaint
//
// Configure: put config, if it is unchanged or if the operator does not care.
//
// # Acquiring
//
// Acquire reads a view, and decides by it which lease is the claim's own: the one with its node id, or the one without
// a node id but with its public address (subnet.Mine).
//
// If one of the leases is of the claim's node id and instance, this run of the machine wrote it, and nobody is asked.
// Else the claim asks the owner of every lease with its node id and another instance, or with its public address and
// another node id. An answer within AnswerTimeout is a ConflictError. So is silence about the node id if both sides
// show hardware and have none in common: that host may be cut off, and rightly believes in its lease. Any other silence
// means that the owner is gone. An owner with hardware of the claim's own is asked before the others; its silence makes
// its lease the claim's own, and nobody else is asked. Silence counts only if etcd was there to carry an answer.
// Who answers counts the asker among its Claimants.
//
// A lease of the claim's own whose subnets are still good is rewritten, on the etcd lease of the earlier run if that
// lives and has the right length, else on a new one; if nothing would change, nothing is written. One whose subnets are
// not is moved. Without one, a lease is created on a new etcd lease: for the subnets that the host had before if they
// are free, else for those that subnet.Allocate chooses with the help of claims/past. With Claim.Only it is the subnets
// that the host had before or none. With the TTL Forever there is no etcd lease: the lease is a reservation.
//
// # Holding
//
// A lease that is held is in one of these states. The host keeps it in the first four, and ends that by Release or by
// the end of the context of Acquire, in any of them.
//
//	state        is                              leads to
//	confirmed    there as published, and time    unconfirmed, when the time runs out without a renewal
//	             is left                         changed or missing, as a look finds it
//	unconfirmed  without time left; the host     confirmed, when a renewal succeeds
//	             has not heard from etcd         changed or missing, as a look finds it
//	changed      written by somebody else        lost, if it names another node id or instance, or no node id
//	                                               and another public address
//	                                             confirmed, if not, or if it does not parse: what this host
//	                                               publishes is written again
//	missing      without its key                 lost, if a lease overlaps it
//	                                             confirmed, if none does: it is created anew, on the etcd lease
//	                                               that it had or on a new one; leases of the same node id and
//	                                               instance elsewhere, which a backup brought back, are removed
//	                                               unless they are reservations
//	lost         another host's; Held.Lost says  the end: another Acquire, with Claim.Only, may get it back
//	             whose
//	released     removed, its etcd lease revoked the end
//	stopped      left until its time is over     the end
//
// A look is one transaction that reads the lease and the challenge of the node, at one revision. What is found is
// compared with what the host published, not by its revision alone. The host looks when it begins, when the lease or
// the challenge changes, when etcd does not know the etcd lease any more, after a reconnect, when etcd went back, when
// a watch breaks, and when a sign of life that it asked of the stream has not come within three ProbeIntervals. An
// unanswered question that it finds is answered. If the sign of life has not come though etcd has a newer revision than
// the watches have told of, they begin anew on another stream: else they might not tell of the next question.
//
// Inquiries come by the watch of the challenge, which is one of the keys from claims/nodes/NODE up to claims/nodes/NODE0, without that one. What else
// falls into it, as the challenge of a node NODE-1, is passed over. So is an inquiry that does not parse, has an answer, is too long (subnet.MaxQuestion),
// hangs on no etcd lease, or is one too many (subnet.Turns). What it is about, the store does not know (subnet.Answer). One is answered at a time, beside all else that the host does. A look reads none: what a broken watch has missed is asked
// again.
//
// The etcd lease is renewed when a third of its time has passed. Time counts from before the request that etcd
// confirmed, by a clock that goes on while the machine is suspended, less a fiftieth for clocks that differ
// (Held.Remaining). An etcd that is away is no loss: the host tries again, for as long as it runs.
//
// A reservation hangs on no etcd lease: it is always confirmed, Held.Release leaves it there, and it ends when an operator
// removes it. Store.Reserve creates one, or rewrites a lease, which may be held meanwhile. A reservation that is deleted
// while it is held is created anew as an ordinary lease, if that is what the host had claimed.
//
// # Guarantees, and what they cost
//
// Of two hosts that keep to this protocol, at most one gets a lease on any address. This costs a transaction that lists
// what is new, and a loser a try more. For a moment two overlapping keys can be there; only the older one has been
// given out by Acquire. A flanneld knows no owner keys and lists nothing: of overlapping leases, readers use the older one
// (subnet.Judge).
//
// No lease is changed or deleted by who has not seen its present state. Expiry, and hands that write to etcd, are no
// part of this.
//
// Of two hosts, at most one has time left on a subnet, whichever was stopped, suspended or cut off and for how long.
// This costs a fiftieth of the time, and a cut-off host its confidence though nobody else wants the subnet. Who deletes
// or gives away a live host's lease, or restores a backup, can bring about two for as long as the first does not hear
// of it.
//
// The lease of a host that answers is not taken by a host with the same identity. This costs a reboot AnswerTimeout,
// and a host that replaces other hardware the rest of the lease, or an operator's release.
//
// A lease that vanishes comes back with the same subnets, unless another host has them by then. It is a newer key, so
// age is told by what hosts remember and not by the key (subnet.Memory).
//
// A complaint says what a host with a lease found a minute ago at most, while etcd is there, and goes with the lease at the latest. A network in which all packets
// arrive, and one in which nobody asks, has none, and costs nothing; one that lasts costs one write. It proves nothing: who may write below PREFIX may complain in any name, so
// readers pass over what makes no sense (subnet.ParseComplaint), and nothing is decided by the rest.
//
// Readers get whole views only, and of several the newest. A sudden loss reaches them HoldbackTime late. While hosts
// start by the hundred, a new watch pauses for up to four seconds at a time, and takes in together what came meanwhile.
//
// A start lists the leases once, and makes half a dozen requests more, however many hosts there are. A host at rest
// makes one for a renewal in each third of the TTL, and asks for signs of life on a stream that is open anyway.
//
// A flood of inquiries costs their host that it reads them, and an answer a second. Without inquiries it costs nothing: no
// write, no request and no watch more.
//
// Nothing holds against who may write below PREFIX: only etcd's own users and roles do.
package etcd
