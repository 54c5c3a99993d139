/* The fast path: a packet skips bridge, IP stack and netfilter if one of its flow has just come through them unchanged.
 *
 * from_container and from_uplink see packets before the stack, tag them, and send fast those whose flow is admitted. to_uplink and to_container see what has
 * survived the stack, and admit its flow. docs/adr/0042 says why each check is there. */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "maps.h"
#include "packet.h"

/* Go on with what else hangs on the link, and then with the stack: any other verdict than this would write to tc_index. */
#define GO_ON TC_ACT_UNSPEC

#define REFRESH 50000000 /* ns: an admission that is younger is not written anew */

char _license[] SEC("license") = "Apache-2.0";

static const __u32 first = 0;

static __always_inline struct count *counted(void)
{
	return bpf_map_lookup_elem(&counters, &first);
}

static __always_inline void refuse(struct count *c, __u8 why)
{
	if (why < REFUSALS)
		c->refused[why]++;
}

static __always_inline void mix(__u64 *hash, __u64 word)
{
	*hash = (*hash ^ word) * 0x9e3779b97f4a7c15ull;
	*hash ^= *hash >> 29;
}

/* What binds an admission to the packet that it was seen with: addresses and ports before any translation, the sender's link and its MACs, or the host that it
 * comes from. 16 bits, which travel through the stack in tc_index; 0 is none. */
static __always_inline __u16 tag_of(const struct packet *p, __u32 link, const struct addr *remote, const struct setting *s, __u32 now)
{
#ifdef WITHOUT_TAG
	return 1;
#else
	__u64 hash = (__u64)s->salt << 32 | now;
	const struct flow *f = &p->flow;
	const __u32 *macs = (const __u32 *)p->macs;

	mix(&hash, (__u64)f->src.word[0] << 32 | f->src.word[1]);
	mix(&hash, (__u64)f->src.word[2] << 32 | f->src.word[3]);
	mix(&hash, (__u64)f->dst.word[0] << 32 | f->dst.word[1]);
	mix(&hash, (__u64)f->dst.word[2] << 32 | f->dst.word[3]);
	mix(&hash, (__u64)f->sport << 32 | (__u64)f->dport << 16 | f->protocol << 8 | f->direction);
	mix(&hash, (__u64)macs[0] << 32 | macs[1]);
	mix(&hash, (__u64)macs[2] << 32 | link);
	mix(&hash, (__u64)remote->word[0] << 32 | remote->word[1]);
	mix(&hash, (__u64)remote->word[2] << 32 | remote->word[3]);
	return (hash >> 48) ?: 1;
#endif
}

static __always_inline __u32 epoch_now(void)
{
#ifdef WITHOUT_EPOCH
	return 0;
#else
	__u32 *now = bpf_map_lookup_elem(&epoch, &first);
	return now ? *now : 0;
#endif
}

/* The peer in whose subnet an address is. */
static __always_inline struct peer *peer_of(const struct addr *a, __u32 *index)
{
	struct prefix key = { .bits = 128, .addr = *a };
	struct place *place = bpf_map_lookup_elem(&places, &key);

	if (!place)
		return 0;
	*index = place->peer;
	return bpf_map_lookup_elem(&peers, index);
}

static __always_inline int is_excluded(const struct addr *a)
{
	struct prefix key = { .bits = 128, .addr = *a };
	struct place *place = bpf_map_lookup_elem(&places, &key);

	return place && place->peer == NOWHERE;
}

/* The peer that an admission is for, if it was given to packets with this tag in this epoch. */
static __always_inline struct peer *peer_by(const struct admission *a, __u16 tag, __u32 now)
{
	struct peer *peer;
	__u32 index;

	if (!a || a->tag != tag || a->epoch != now)
		return 0;
	index = a->peer;
	peer = bpf_map_lookup_elem(&peers, &index);
	return peer && peer->serial == a->serial ? peer : 0;
}

static __always_inline int in_life(const struct admission *a, const struct setting *s)
{
	return bpf_ktime_get_ns() - a->seen < s->life;
}

/* Reports whether there is nothing to admit: a packet with this tag has just been seen. */
static __always_inline int is_fresh(const struct flow *f, __u16 tag)
{
	struct admission *a = bpf_map_lookup_elem(&flows, f);

	return peer_by(a, tag, epoch_now()) && bpf_ktime_get_ns() - a->seen < REFRESH;
}

/* Admits a flow. Packets that claim to be of a flow which is admitted already, and are not, do not take its place: they may all take the plain path, and once it sends
 * no more they are seen anew. An admission that no packet has used yet may be of one that was in the stack while the epoch was raised, and of no use to any. */
static __always_inline void admit(const struct flow *f, struct admission *a, struct peer *peer, __u32 index, __u16 tag, const struct setting *s)
{
	struct admission *old = bpf_map_lookup_elem(&flows, f);
	struct count *c = counted();

	a->seen = bpf_ktime_get_ns();
	a->epoch = epoch_now();
	a->peer = index;
	a->serial = peer->serial;
	a->tag = tag;
	if (old) {
		__u64 age = a->seen - old->seen;
		if (old->epoch == a->epoch && old->serial == a->serial) {
			if (old->tag == tag ? age < REFRESH : old->used && age < 2 * s->life)
				return;
			a->used = old->tag == tag && old->used;
		}
		a->packets = old->packets;
		a->bytes = old->bytes;
	}
	if (!bpf_map_update_elem(&flows, f, a, BPF_ANY) && c)
		c->admitted++;
}

/* Reports whether a packet passes a link of that MTU without being cut up, and an IP header can say how long it is. */
static __always_inline int fits(struct __sk_buff *skb, const struct packet *p, __u32 mtu, __u32 room)
{
	__u32 len = skb->gso_size ? skb->gso_size + p->headers : skb->len - ETH;

	return len <= mtu && skb->len - ETH + room <= 0xffff;
}

static __always_inline void set_macs(void *data, const __u8 *macs)
{
	__builtin_memcpy(data, macs, 12);
}

/* Takes one from the TTL, as a router does. Returns 0 if the packet cannot be written to. */
static __always_inline int hop(struct __sk_buff *skb, const int at)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data + at;
	struct iphdr *ip = (void *)(eth + 1);
	struct ipv6hdr *ip6 = (void *)(eth + 1);

	if ((void *)(ip + 1) > end)
		return 0;
	if (ip->version == 4) {
		__u32 sum = ip->check + bpf_htons(0x0100);
		ip->check = sum + (sum >= 0xffff);
		ip->ttl--;
		return 1;
	}
	if ((void *)(ip6 + 1) > end)
		return 0;
	ip6->hop_limit--;
	return 1;
}

struct headers4 {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	struct vxlan vxlan;
	struct ethhdr inner;
} __attribute__((packed));

/* Puts a packet into VXLAN over IPv4, as the kernel's device does: RFC 7348; ECN as in RFC 6040, 4.1. Nothing has changed if it returns GO_ON. */
static __always_inline int encapsulate4(struct __sk_buff *skb, const struct peer *peer, const struct admission *a, const struct packet *p)
{
	struct headers4 *h;
	__u32 sum = 0;
	__u16 len;

	if (bpf_skb_adjust_room(skb, ROOM4, BPF_ADJ_ROOM_MAC,
				BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
				BPF_F_ADJ_ROOM_ENCAP_L2_ETH | BPF_F_ADJ_ROOM_ENCAP_L2(ETH)))
		return GO_ON;
	h = (void *)(long)skb->data;
	if ((void *)(h + 1) > (void *)(long)skb->data_end)
		return TC_ACT_SHOT; /* there is room for it now */
	len = skb->len - ETH;
	__builtin_memset(h, 0, sizeof(*h));
	set_macs(h, a->macs);
	h->eth.h_proto = bpf_htons(ETH_P_IP);
	h->ip.version = 4;
	h->ip.ihl = 5;
	h->ip.tos = p->ecn == ECN_CE ? ECN_ECT0 : p->ecn;
	h->ip.tot_len = bpf_htons(len);
	h->ip.id = bpf_get_prandom_u32();
	h->ip.ttl = 64;
	h->ip.protocol = IPPROTO_UDP;
	h->ip.saddr = peer->local.word[3];
	h->ip.daddr = peer->remote.word[3];
	sum = bpf_htons(0x4500 | h->ip.tos) + h->ip.tot_len + h->ip.id + bpf_htons(64 << 8 | IPPROTO_UDP) + (h->ip.saddr & 0xffff) + (h->ip.saddr >> 16) +
	      (h->ip.daddr & 0xffff) + (h->ip.daddr >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	h->ip.check = ~sum;
	h->udp.source = a->port;
	h->udp.dest = peer->port;
	h->udp.len = bpf_htons(len - IPV4_LEN);
	h->vxlan.flags = VXLAN_FLAGS;
	h->vxlan.vni = peer->vni;
	__builtin_memcpy(h->inner.h_dest, peer->remote_mac, 6);
	__builtin_memcpy(h->inner.h_source, peer->local_mac, 6);
	h->inner.h_proto = bpf_htons(ETH_P_IP);
	return hop(skb, ROOM4) ? TC_ACT_REDIRECT : TC_ACT_SHOT;
}

/* Sends a container's packet to its peer. Nothing has changed if it returns GO_ON. */
static __always_inline int send_out(struct __sk_buff *skb, const struct peer *peer, const struct admission *a, const struct packet *p)
{
	__u8 macs[12];
	__u32 link = a->link;
	void *data;

	if (peer->mode == TUNNEL && peer->remote.word[2] == bpf_htonl(0xffff) && !peer->remote.word[0] && !peer->remote.word[1]) {
		int verdict = encapsulate4(skb, peer, a, p);
		return verdict == TC_ACT_REDIRECT ? bpf_redirect(link, 0) : verdict;
	}
	if (peer->mode == TUNNEL) {
		/* The kernel's device puts it into IPv6: a checksum over all of the packet is needed there. */
		__builtin_memcpy(macs, peer->remote_mac, 6);
		__builtin_memcpy(macs + 6, peer->local_mac, 6);
		link = peer->link;
	} else {
		__builtin_memcpy(macs, a->macs, sizeof(macs));
	}
	if (!hop(skb, 0))
		return GO_ON;
	data = (void *)(long)skb->data;
	if (data + sizeof(macs) > (void *)(long)skb->data_end)
		return TC_ACT_SHOT; /* hop has just been there */
	set_macs(data, macs);
	return bpf_redirect(link, 0);
}

static __always_inline void count_fast(struct traffic *t, struct admission *a, __u32 len)
{
	t->fast_packets++;
	t->fast_bytes += len;
	a->used = 1;
	a->packets++;
	a->bytes += len;
}

/* Takes down which MAC a container sends from. It is enough to do so for packets that take the plain path, as some of each flow do each second. */
static __always_inline void note_station(__u32 link, const __u8 *mac)
{
	struct station *known = bpf_map_lookup_elem(&stations, &link), now = {};

	if (known && same_mac(known->mac, mac))
		return;
	__builtin_memcpy(now.mac, mac, sizeof(now.mac));
	bpf_map_update_elem(&stations, &link, &now, BPF_ANY);
}

static __always_inline int is_station(__u32 link, const __u8 *mac)
{
	struct station *known = bpf_map_lookup_elem(&stations, &link);

	return known && same_mac(known->mac, mac);
}

/* Ingress of a container's link on the host. */
SEC("tc") int from_container(struct __sk_buff *skb)
{
	const struct setting *s = bpf_map_lookup_elem(&settings, &first);
	struct count *c = counted();
	struct addr nobody = {};
	struct admission *a;
	struct packet p;
	struct peer *peer = 0;
	__u32 now, index = 0, len = skb->len, room;
	__u16 tag = 0;

	skb->tc_index = 0;
	if (!s || !c || skb->vlan_present)
		return GO_ON;
	if (!read_packet((void *)(long)skb->data, (void *)(long)skb->data_end, 0, &p)) {
		note_station(skb->ifindex, p.macs + 6); /* of what answers for an address, above all */
		return GO_ON;
	}
	p.flow.direction = OUT;
	if (p.refusal == NONE) {
		now = epoch_now();
		tag = tag_of(&p, skb->ifindex, &nobody, s, now);
		a = bpf_map_lookup_elem(&flows, &p.flow);
		peer = peer_by(a, tag, now);
		if (peer && in_life(a, s)) {
			room = peer->mode == TUNNEL ? ROOM6 : 0;
			if (fits(skb, &p, peer->mtu, room)) {
				int verdict = send_out(skb, peer, a, &p);
				if (verdict == TC_ACT_REDIRECT)
					count_fast(&c->out, a, len);
				if (verdict != GO_ON)
					return verdict;
			}
			p.refusal = SIZE;
		}
	}
	note_station(skb->ifindex, p.macs + 6);
	if (!peer)
		peer = peer_of(&p.flow.dst, &index);
	if (!peer || !peer->mode) {
		if (index == NOWHERE)
			refuse(c, EXCLUDED);
		return GO_ON;
	}
	c->out.slow_packets++;
	c->out.slow_bytes += len;
	judge(s, &p);
	if (p.refusal == NONE && s->excludes && is_excluded(&p.flow.src))
		p.refusal = EXCLUDED;
	if (p.refusal == NONE)
		skb->tc_index = tag;
	else
		refuse(c, p.refusal);
	return GO_ON;
}

/* Egress of the uplink, behind all that the stack may do to a packet. */
SEC("tc") int to_uplink(struct __sk_buff *skb)
{
	const struct setting *s = bpf_map_lookup_elem(&settings, &first);
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct addr local, remote;
	struct admission a = {};
	struct outer o = {};
	struct packet p;
	struct peer *peer;
	__u32 index = 0;
	__u16 tag = skb->tc_index;
	int room;

	if (!tag)
		return GO_ON;
	skb->tc_index = 0;
	if (!s || skb->vlan_present)
		return GO_ON;
	room = read_outer(data, end, s, &local, &remote, &o);
	if (room == ROOM4) {
		if (!read_packet(data, end, ROOM4, &p))
			return GO_ON;
	} else if (room == ROOM6) {
		if (!read_packet(data, end, ROOM6, &p))
			return GO_ON;
	} else if (!read_packet(data, end, 0, &p)) {
		return GO_ON;
	}
	p.flow.direction = OUT;
	if (p.refusal != NONE || is_fresh(&p.flow, tag) || !in_subnets(s, &p.flow.src))
		return GO_ON;
	peer = peer_of(&p.flow.dst, &index);
	if (!peer)
		return GO_ON;
	if (room) {
		if (peer->mode != TUNNEL || !same(&local, &peer->local) || !same(&remote, &peer->remote) || o.vni != peer->vni || o.port != peer->port ||
		    !same_mac(p.macs, peer->remote_mac) || !same_mac(p.macs + 6, peer->local_mac))
			return GO_ON;
		a.port = o.sport;
		__builtin_memcpy(a.macs, data, sizeof(a.macs));
#ifdef OBSERVE_AT_DEVICE
	} else if (peer->mode == TUNNEL && skb->ifindex == peer->link) {
		/* A test hangs the program on the tunnel's device. What cannot be seen there is as it was before. */
		struct admission *old;

		old = bpf_map_lookup_elem(&flows, &p.flow);
		if (!old) {
			skb->tc_index = tag; /* the uplink's egress sees it yet */
			return GO_ON;
		}
		a = *old;
		admit(&p.flow, &a, peer, index, tag, s);
		return GO_ON;
#endif
	} else {
		if (peer->mode != DIRECT || skb->ifindex != peer->link)
			return GO_ON;
		__builtin_memcpy(a.macs, p.macs, sizeof(a.macs));
	}
	a.link = skb->ifindex;
	admit(&p.flow, &a, peer, index, tag, s);
	return GO_ON;
}

/* Hands an inner packet to its container. Nothing has changed if it returns GO_ON. */
static __always_inline int deliver(struct __sk_buff *skb, const struct admission *a, const int room)
{
	__u8 macs[12];
	__u32 link = a->link;
	void *data;

	__builtin_memcpy(macs, a->macs, sizeof(macs));
	if (room && bpf_skb_adjust_room(skb, -room, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return GO_ON;
	if (!hop(skb, 0))
		return room ? TC_ACT_SHOT : GO_ON;
	data = (void *)(long)skb->data;
	if (data + sizeof(macs) > (void *)(long)skb->data_end)
		return TC_ACT_SHOT; /* hop has just been there */
	set_macs(data, macs);
	return bpf_redirect_peer(link, 0);
}

/* Tags a packet from another host, or delivers it. outer is nobody's without a tunnel. */
static __always_inline int come_in(struct __sk_buff *skb, const struct setting *s, struct packet *p, const struct outer *o, const int room)
{
	struct count *c = counted();
	__u32 index = 0, now = epoch_now(), len = skb->len - room;
	struct bpf_xfrm_state xfrm;
	struct admission *a;
	struct peer *peer = 0; /* known already, if packets of the flow have been seen in this epoch */
	__u16 tag = 0;

	if (!c)
		return GO_ON;
	p->flow.direction = IN;
	if (p->refusal == NONE) {
		tag = tag_of(p, skb->ifindex, &o->remote, s, now);
		a = bpf_map_lookup_elem(&flows, &p->flow);
		peer = peer_by(a, tag, now);
		if (peer && in_life(a, s) && o->ecn != ECN_CE && (!skb->gso_size || p->flow.protocol == IPPROTO_TCP) && (!room || (peer->vni == o->vni && peer->port == o->port))) {
			int verdict = deliver(skb, a, room);
			if (verdict == TC_ACT_REDIRECT)
				count_fast(&c->in, a, len);
			if (verdict != GO_ON)
				return verdict;
		}
	}
	if (!peer) {
		if (!in_subnets(s, &p->flow.dst))
			return GO_ON;
		peer = peer_of(&p->flow.src, &index);
	}
	if (!peer || !peer->mode) {
		if (index == NOWHERE)
			refuse(c, EXCLUDED);
		else if (room)
			refuse(c, SENDER);
		return GO_ON;
	}
	if (room && (peer->mode != TUNNEL || !same(&peer->remote, &o->remote) || !same(&peer->local, &o->local) || peer->vni != o->vni || peer->port != o->port ||
		     !same_mac(p->macs, peer->local_mac))) {
#ifndef WITHOUT_PREFIX_CHECK
		refuse(c, SENDER);
		return GO_ON;
#endif
	}
	if (!room && (peer->mode != DIRECT || peer->link != skb->ifindex)) {
		refuse(c, SENDER);
		return GO_ON;
	}
	c->in.slow_packets++;
	c->in.slow_bytes += len;
	judge(s, p);
	if (p->refusal == NONE && s->excludes && is_excluded(&p->flow.dst))
		p->refusal = EXCLUDED;
	if (p->refusal == NONE && skb->gso_size && p->flow.protocol != IPPROTO_TCP)
		p->refusal = SIZE;
	if (p->refusal != NONE)
		refuse(c, p->refusal);
	else if (bpf_skb_get_xfrm_state(skb, 0, &xfrm, sizeof(xfrm), 0))
		skb->tc_index = tag;
	return GO_ON;
}

/* Ingress of the uplink. */
SEC("tc") int from_uplink(struct __sk_buff *skb)
{
	const struct setting *s = bpf_map_lookup_elem(&settings, &first);
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct outer o = {};
	struct packet p;

	skb->tc_index = 0;
	if (!s || skb->vlan_present)
		return GO_ON;
#ifndef WITHOUT_PKT_TYPE
	if (skb->pkt_type != PACKET_HOST)
		return GO_ON;
#endif
	switch (read_outer(data, end, s, &o.remote, &o.local, &o)) {
	case ROOM4:
		if (data + ETH + ROOM4 + IPV4_LEN + sizeof(struct tcphdr) > end && data + skb->len > end) {
			/* Hardware may have left the inner headers in another page. */
			if (bpf_skb_pull_data(skb, skb->len < 2 * ROOM4 + ETH ? skb->len : 2 * ROOM4 + ETH))
				return GO_ON;
			data = (void *)(long)skb->data;
			end = (void *)(long)skb->data_end;
		}
		if (!read_packet(data, end, ROOM4, &p))
			return GO_ON;
		return come_in(skb, s, &p, &o, ROOM4);
	case ROOM6:
		if (data + ETH + ROOM6 + IPV6_LEN + sizeof(struct tcphdr) > end && data + skb->len > end) {
			if (bpf_skb_pull_data(skb, skb->len < 2 * ROOM6 + ETH ? skb->len : 2 * ROOM6 + ETH))
				return GO_ON;
			data = (void *)(long)skb->data;
			end = (void *)(long)skb->data_end;
		}
		if (!read_packet(data, end, ROOM6, &p))
			return GO_ON;
		return come_in(skb, s, &p, &o, ROOM6);
	}
	__builtin_memset(&o, 0, sizeof(o));
	if (!read_packet(data, end, 0, &p) || !in_subnets(s, &p.flow.dst))
		return GO_ON;
	return come_in(skb, s, &p, &o, 0);
}

/* Egress of a container's link on the host, behind bridge and stack. */
SEC("tc") int to_container(struct __sk_buff *skb)
{
	const struct setting *s = bpf_map_lookup_elem(&settings, &first);
	struct admission a = {};
	struct packet p;
	struct peer *peer;
	__u32 index = 0;
	__u16 tag = skb->tc_index;

	if (!tag)
		return GO_ON;
	skb->tc_index = 0;
	if (!s || skb->vlan_present || !read_packet((void *)(long)skb->data, (void *)(long)skb->data_end, 0, &p) || p.refusal != NONE)
		return GO_ON;
	p.flow.direction = IN;
	if (is_fresh(&p.flow, tag) || !in_subnets(s, &p.flow.dst))
		return GO_ON;
	peer = peer_of(&p.flow.src, &index);
	if (!peer || !peer->mode || skb->ingress_ifindex != peer->link)
		return GO_ON;
#ifndef WITHOUT_STATION
	if (!is_station(skb->ifindex, p.macs))
		return GO_ON;
#endif
	a.link = skb->ifindex;
	__builtin_memcpy(a.macs, p.macs, sizeof(a.macs));
	admit(&p.flow, &a, peer, index, tag, s);
	return GO_ON;
}
