/* Reading packets: direct access, at offsets that are known when the program is compiled. */

#define ETH 14
#define IPV4_LEN 20
#define IPV6_LEN 40
#define UDP_LEN 8
#define VXLAN_LEN 8
#define ROOM4 (IPV4_LEN + UDP_LEN + VXLAN_LEN + ETH) /* that a tunnel over IPv4 takes */
#define ROOM6 (IPV6_LEN + UDP_LEN + VXLAN_LEN + ETH)
#define ECN_MASK 3
#define ECN_CE 3
#define ECN_ECT0 2

struct vxlan {
	__be32 flags, vni; /* RFC 7348, 5 */
};
#define VXLAN_FLAGS bpf_htonl(0x08000000)

/* A packet of one container to another. */
struct packet {
	struct flow flow;
	__u8 macs[12]; /* of its frame: destination, source */
	__u32 headers; /* of IP and what it carries, bytes */
	__u8 ecn;
	__u8 refusal;
};

/* An outer packet. */
struct outer {
	struct addr local, remote; /* destination and source where it comes in, source and destination where it leaves */
	__be32 vni;
	__be16 sport, port;
	__u8 ecn;
};

static __always_inline struct addr addr4(__be32 a)
{
	struct addr mapped = { .word = { 0, 0, bpf_htonl(0xffff), a } };
	return mapped;
}

static __always_inline struct addr addr6(const struct in6_addr *a)
{
	struct addr all = { .word = { a->in6_u.u6_addr32[0], a->in6_u.u6_addr32[1], a->in6_u.u6_addr32[2], a->in6_u.u6_addr32[3] } };
	return all;
}

static __always_inline int same(const struct addr *a, const struct addr *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] && a->word[3] == b->word[3];
}

static __always_inline int same_mac(const __u8 *a, const __u8 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3] && a[4] == b[4] && a[5] == b[5];
}

static __always_inline int is_helper_port(const struct setting *s, __be16 port)
{
	for (int i = 0; i < HELPER_PORTS; i++)
		if (port && s->helper_ports[i] == port)
			return 1;
	return 0;
}

static __always_inline int is_tunnel_port(const struct setting *s, __be16 port)
{
	for (int i = 0; i < TUNNEL_PORTS; i++)
		if (port && s->tunnel_ports[i] == port)
			return 1;
	return 0;
}

static __always_inline int in_subnets(const struct setting *s, const struct addr *a)
{
	for (int i = 0; i < SUBNETS; i++) {
		const struct subnet *n = &s->subnets[i];
		if (i >= s->subnet_count)
			break;
		if ((a->word[0] & n->mask.word[0]) == n->addr.word[0] && (a->word[1] & n->mask.word[1]) == n->addr.word[1] &&
		    (a->word[2] & n->mask.word[2]) == n->addr.word[2] && (a->word[3] & n->mask.word[3]) == n->addr.word[3])
			return 1;
	}
	return 0;
}

/* Reads what follows the IP header. */
static __always_inline void read_ports(void *l4, void *end, struct packet *p)
{
	if (p->flow.protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = l4;
		if ((void *)(tcp + 1) > end) {
			p->refusal = PROTOCOL;
			return;
		}
		p->flow.sport = tcp->source;
		p->flow.dport = tcp->dest;
		p->headers += tcp->doff * 4;
		if (tcp->syn || tcp->fin || tcp->rst)
			p->refusal = HANDSHAKE;
	} else if (p->flow.protocol == IPPROTO_UDP) {
		struct udphdr *udp = l4;
		if ((void *)(udp + 1) > end) {
			p->refusal = PROTOCOL;
			return;
		}
		p->flow.sport = udp->source;
		p->flow.dport = udp->dest;
		p->headers += UDP_LEN;
	} else {
		p->refusal = PROTOCOL;
	}
}

/* Says whether a flow may be admitted. It need not be asked of one that is. */
static __always_inline void judge(const struct setting *s, struct packet *p)
{
	if (p->refusal != NONE)
		return;
	if (p->flow.protocol == IPPROTO_TCP && !s->tcp)
		p->refusal = STRICT;
	else if (is_helper_port(s, p->flow.sport) || is_helper_port(s, p->flow.dport))
		p->refusal = HELPER;
}

/* Reads the frame at an offset of the packet. Returns 0 if it holds no IP packet that could be one of containers. */
static __always_inline int read_packet(void *data, void *end, const int at, struct packet *p)
{
	struct ethhdr *eth = data + at;
	void *l3 = eth + 1;

	__builtin_memset(p, 0, sizeof(*p));
	if (l3 > end)
		return 0;
	__builtin_memcpy(p->macs, eth, sizeof(p->macs));
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = l3;
		if ((void *)(ip + 1) > end || ip->version != 4)
			return 0;
		p->flow.src = addr4(ip->saddr);
		p->flow.dst = addr4(ip->daddr);
		p->flow.protocol = ip->protocol;
		p->headers = IPV4_LEN;
		p->ecn = ip->tos & ECN_MASK;
		if (ip->ihl != 5)
			p->refusal = OPTIONS;
		else if (ip->frag_off & bpf_htons(0x3fff)) /* more fragments, or an offset */
			p->refusal = FRAGMENT;
		else if (ip->ttl <= 1)
			p->refusal = LAST_HOP;
		else
			read_ports(ip + 1, end, p);
		return 1;
	}
	if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = l3;
		if ((void *)(ip + 1) > end || ip->version != 6)
			return 0;
		p->flow.src = addr6(&ip->saddr);
		p->flow.dst = addr6(&ip->daddr);
		p->flow.protocol = ip->nexthdr;
		p->headers = IPV6_LEN;
		p->ecn = ip->flow_lbl[0] >> 4 & ECN_MASK;
		if (ip->nexthdr == IPPROTO_HOPOPTS || ip->nexthdr == IPPROTO_ROUTING || ip->nexthdr == IPPROTO_DSTOPTS)
			p->refusal = OPTIONS;
		else if (ip->nexthdr == IPPROTO_FRAGMENT)
			p->refusal = FRAGMENT;
		else if (ip->hop_limit <= 1)
			p->refusal = LAST_HOP;
		else
			read_ports(ip + 1, end, p);
		return 1;
	}
	return 0;
}

/* Reads the headers of a VXLAN packet: those before the inner frame. from and to are the ends in the order of the packet. Returns how long they are; 0: it is none. */
static __always_inline int read_outer(void *data, void *end, const struct setting *s, struct addr *from, struct addr *to, struct outer *o)
{
	struct ethhdr *eth = data;
	struct udphdr *udp;
	struct vxlan *vxlan;
	int room;

	if ((void *)(eth + 1) > end)
		return 0;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(eth + 1);
		if ((void *)(ip + 1) > end || ip->protocol != IPPROTO_UDP || ip->ihl != 5 || ip->frag_off & bpf_htons(0x3fff))
			return 0;
		udp = (void *)(ip + 1);
		*from = addr4(ip->saddr);
		*to = addr4(ip->daddr);
		o->ecn = ip->tos & ECN_MASK;
		room = ROOM4;
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(eth + 1);
		if ((void *)(ip + 1) > end || ip->nexthdr != IPPROTO_UDP)
			return 0;
		udp = (void *)(ip + 1);
		*from = addr6(&ip->saddr);
		*to = addr6(&ip->daddr);
		o->ecn = ip->flow_lbl[0] >> 4 & ECN_MASK;
		room = ROOM6;
	} else {
		return 0;
	}
	vxlan = (void *)(udp + 1);
	if ((void *)(vxlan + 1) > end || !is_tunnel_port(s, udp->dest) || vxlan->flags != VXLAN_FLAGS)
		return 0;
	o->vni = vxlan->vni;
	o->sport = udp->source;
	o->port = udp->dest;
	return room;
}
