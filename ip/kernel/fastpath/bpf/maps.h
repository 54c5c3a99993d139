/* What programs and daemon share. The types have their likes in Go, which bpf2go makes from them. */

#define SUBNETS 8 /* of this host */
#define TUNNEL_PORTS 4
#define HELPER_PORTS 8
#define PEERS 32768
#define FLOWS 65536
#define STATIONS 16384

enum { DIRECT = 1, TUNNEL = 2 };  /* how a peer is reached */
enum { OUT = 1, IN = 2 };         /* from a container, to a container */

/* An address; IPv4's are mapped into IPv6 (RFC 4291, 2.5.5.2). */
struct addr {
	__u32 word[4];
};

struct subnet {
	struct addr addr, mask;
};

struct setting {
	__u64 life; /* of an admission, ns; 0: none is ever used */
	__u32 salt;
	__u8 tcp; /* TCP may be fast */
	__u8 subnet_count;
	__be16 tunnel_ports[TUNNEL_PORTS]; /* UDP; 0: none */
	__be16 helper_ports[HELPER_PORTS]; /* whose flows conntrack's helpers must see; 0: none */
	__u8 excludes; /* there are excluded prefixes */
	__u8 pad;
	struct subnet subnets[SUBNETS];
};

struct prefix {
	__u32 bits;
	struct addr addr;
};

/* What a prefix is: a peer's subnet, or one whose packets are never fast. */
struct place {
	__u32 peer; /* index into peers; NOWHERE: excluded */
};
#define NOWHERE 0xffffffff

struct peer {
	struct addr local, remote; /* ends of the tunnel */
	__u8 local_mac[6], remote_mac[6];
	__u32 link; /* that packets to it leave by, and those from it come by, as the IP stack sees it */
	__be32 vni; /* as in the header, shifted */
	__u32 serial; /* another one for each peer that has had this index */
	__be16 port;
	__u16 mtu;
	__u8 mode;
	__u8 pad[3];
};

struct flow {
	struct addr src, dst;
	__be16 sport, dport;
	__u8 protocol, direction;
	__u16 pad;
};

/* That a packet of a flow has come through the stack, and what it looked like then. */
struct admission {
	__u64 seen; /* when, ns since boot */
	__u64 packets, bytes; /* that went fast since the flow was first admitted */
	__u32 epoch;
	__u32 link; /* that it left by */
	__u32 serial;
	__u16 peer, used; /* used: a packet went fast by it */
	__u16 tag; /* that the packet carried */
	__be16 port; /* source port of the outer packet */
	__u8 macs[12]; /* of the frame as it left: destination, source */
};

/* Reasons why a packet between containers of different hosts may not be fast. Their names in Go are in the same order. */
enum refusal {
	NONE,
	PROTOCOL,  /* neither TCP nor UDP */
	FRAGMENT,
	OPTIONS,   /* of IPv4, or an extension header of IPv6 */
	LAST_HOP,  /* TTL */
	HANDSHAKE, /* SYN, FIN, RST */
	STRICT,    /* TCP, and conntrack would take later packets for invalid */
	HELPER,
	EXCLUDED,
	SIZE,
	SENDER,    /* the inner source is not of the host that it comes from, or the tunnel is another */
	REFUSALS,
};

/* The MAC that a container has sent from last. A bridge that does not know where a MAC is sends what is for it to all its ports. */
struct station {
	__u8 mac[6];
	__u16 pad;
};

struct traffic {
	__u64 fast_packets, fast_bytes, slow_packets, slow_bytes;
};

struct count {
	struct traffic out, in;
	__u64 admitted;
	__u64 refused[REFUSALS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct setting);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} epoch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, PEERS * 2);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, struct place);
} places SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PEERS);
	__type(key, __u32);
	__type(value, struct peer);
} peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FLOWS);
	__type(key, struct flow);
	__type(value, struct admission);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, STATIONS);
	__type(key, __u32); /* the container's link on the host */
	__type(value, struct station);
} stations SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct count);
} counters SEC(".maps");
