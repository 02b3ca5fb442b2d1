// The XDP filter: which frames of an interface go to the engine. Everything else goes on to the kernel.
//
// Owns the decision "ours or the kernel's". Never changes a frame that came from the wire, drops none but those of clients
// that the access lists deny, and never holds state of a flow.
//
// A frame is taken when it is clearly ours:
//   - IPv4 or IPv6, TCP, UDP or SCTP, to an address and port of a service, behind 0 to 2 VLAN tags and any IPv4
//     options or IPv6 extension headers;
//   - the same from an address and port of a NAT server, if there are any: what may be a reply;
//   - a fragment, the first one too, to an address that has a service of its protocol, or from a NAT server of it: the
//     engine decides for all fragments of a packet alike;
//   - ARP whose target is an owned address, and neighbour solicitations for one (RFC 826, RFC 4861 section 4.3);
//   - echo requests and ICMP errors to an owned address (RFC 792, RFC 4443);
//   - ICMP errors to anybody about a packet to a NAT server: the engine had translated that packet;
//   - ICMP errors to anybody that a packet to a server behind a tunnel is too large: the engine may have wrapped it.
// Of these, packets to an address and port of a service, and fragments to such an address, are dropped when the access
// lists deny their source. Nothing else is judged: answers of servers, ARP, neighbour discovery and ICMP pass the lists by.
// What the engine took and does not want comes back behind `struct returned`, and is the kernel's (ADR 0010).
// The memory layout of the maps is shared with table.rs beside this file.

#include "kernel.h"

#define ETH_IPV4 htons(0x0800)
#define ETH_ARP htons(0x0806)
#define ETH_8021Q htons(0x8100)
#define ETH_8021AD htons(0x88a8)
#define ETH_IPV6 htons(0x86dd)
#define ETH_RETURNED htons(0x88b5) // IEEE 802 local experimental

#define MAX_VLANS 2
#define MAX_EXTENSIONS 8
#define MAX_RANGES 16
// Headers end before this offset, or the frame is odd enough to be the kernel's. Also what bounds the verifier.
#define MAX_OFFSET 1024

// Bits of an address: what is taken for it. A protocol's bit is shifted by its index (tcp 0, udp 1, sctp 2).
#define ADDRESS_OWNED 0x1
#define ADDRESS_TUNNEL 0x2
#define ADDRESS_JUDGED 0x4 // the access lists judge who sends to it
#define ADDRESS_SERVICE 0x10
#define ADDRESS_ANY_PORT 0x100
#define ADDRESS_RANGES 0x1000
#define ADDRESS_SERVICE_MASK 0x70
#define ADDRESS_ANY_PORT_OF(service) ((service) << 4)
#define ADDRESS_RANGES_OF(service) ((service) << 8)
// What is taken from an address, as a NAT server, is said by the same bits (but the first), this much higher.
#define ADDRESS_REPLY_SHIFT 16
// What is taken besides what comes to us: bits that no address has.
#define ALSO_REPLIES 0x80000000
#define ALSO_TUNNELS 0x40000000
// In the key's family: the ports are source ports of a NAT server.
#define FAMILY_REPLY 0x80

// What becomes of a frame besides 0, the kernel's, and 1, ours.
#define DENIED 2

// The access lists, as src/dataplane/access.rs describes them. A cell's bits:
#define CELL_DENIED 1
#define CELL_CLOSER 2
// Where in `access` a part begins: a cell for each /24 of IPv4, one for the leading 24 bits of IPv6, the summary of IPv6.
#define ACCESS_PART (1 << 19)
#define CELLS4 0
#define CELLS6 ACCESS_PART
#define SUMMARY6 (2 * ACCESS_PART)
#define SUMMARY_SHORT (1ull << 63)
#define LONG_DENIED 1

// Where a port stands: there is none.
#define NO_PORT 0x10000

// Key of all tables. `addresses` has protocol and port 0, `ranges` has port 0.
struct key {
    u32 address[4]; // network order; IPv4 in address[3], the others 0
    u16 port;       // network order
    u8 protocol;
    u8 family;      // 4 or 6, and FAMILY_REPLY in `ports` and `ranges`
};

struct settings {
    u32 secret[3]; // what only the engine knows: nobody else can give frames back
    u32 also;      // ALSO_REPLIES where there are NAT servers, ALSO_TUNNELS where there are servers behind tunnels
};

// What the engine puts before a frame that it gives back. In generic mode the frame meets this program twice, and has
// this twice.
struct returned {
    u16 secret[6];
    u16 type; // ETH_RETURNED
    u16 what; // 0: the frame that follows is the kernel's; else a trial that ends here
};

struct ranges {
    u32 count;
    u32 range[MAX_RANGES]; // first port << 16 | last port, host order
};

struct {
    UINT(type, BPF_MAP_TYPE_HASH);
    UINT(max_entries, 16384);
    UINT(map_flags, BPF_F_NO_PREALLOC);
    TYPE(key, struct key);
    TYPE(value, u32);
} addresses SEC(".maps");

struct {
    UINT(type, BPF_MAP_TYPE_HASH);
    UINT(max_entries, 65536);
    UINT(map_flags, BPF_F_NO_PREALLOC);
    TYPE(key, struct key);
    TYPE(value, u32);
} ports SEC(".maps");

struct {
    UINT(type, BPF_MAP_TYPE_HASH);
    UINT(max_entries, 16384);
    UINT(map_flags, BPF_F_NO_PREALLOC);
    TYPE(key, struct key);
    TYPE(value, struct ranges);
} ranges SEC(".maps");

struct {
    UINT(type, BPF_MAP_TYPE_XSKMAP);
    UINT(max_entries, 1024);
    TYPE(key, u32);
    TYPE(value, u32);
} sockets SEC(".maps");

struct {
    UINT(type, BPF_MAP_TYPE_ARRAY);
    UINT(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, struct settings);
} settings SEC(".maps");

// Cells and summary. User space writes them in place, word by word.
struct {
    UINT(type, BPF_MAP_TYPE_ARRAY);
    UINT(max_entries, 3 * ACCESS_PART);
    UINT(map_flags, BPF_F_MMAPABLE);
    TYPE(key, u32);
    TYPE(value, u64);
} access SEC(".maps");

struct block {
    u64 denied[4]; // a bit for each address of a /24
};

// By the leading 24 bits of an IPv4 address, host order.
struct {
    UINT(type, BPF_MAP_TYPE_HASH);
    UINT(max_entries, 524288);
    UINT(map_flags, BPF_F_NO_PREALLOC);
    TYPE(key, u32);
    TYPE(value, struct block);
} blocks SEC(".maps");

struct long_key {
    u32 length;     // host order
    u32 address[4]; // network order
};

// IPv6 prefixes longer than /24: LONG_DENIED or 0.
struct {
    UINT(type, BPF_MAP_TYPE_LPM_TRIE);
    UINT(max_entries, 1048576);
    UINT(map_flags, BPF_F_NO_PREALLOC);
    TYPE(key, struct long_key);
    TYPE(value, u32);
} prefixes SEC(".maps");

enum { COUNT_PASSED, COUNT_REDIRECTED, COUNT_NO_SOCKET, COUNT_DENIED, COUNTERS };

struct {
    UINT(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    UINT(max_entries, COUNTERS);
    TYPE(key, u32);
    TYPE(value, u64);
} counters SEC(".maps");

INLINE void count(u32 which) {
    u64 *counter = bpf_map_lookup_elem(&counters, &which);
    if (counter)
        *counter += 1;
}

// The bytes [offset, offset + length) of the frame, or 0 when it ends before.
INLINE void *at(struct xdp_md *ctx, u64 offset, u32 length) {
    void *data = (void *)(long)ctx->data;
    void *end = (void *)(long)ctx->data_end;
    if (offset > MAX_OFFSET)
        return 0;
    void *start = data + offset;
    return start + length > end ? 0 : start;
}

// Field by field: a literal would become read-only data, which is a map of its own.
INLINE void start_key(struct key *key, u8 family) {
    key->address[0] = 0;
    key->address[1] = 0;
    key->address[2] = 0;
    key->address[3] = 0;
    key->port = 0;
    key->protocol = 0;
    key->family = family;
}

INLINE u32 address_bits(struct key *key) {
    u32 *bits = bpf_map_lookup_elem(&addresses, key);
    return bits ? *bits : 0;
}

INLINE struct settings *get_settings(void) {
    u32 first = 0;
    return bpf_map_lookup_elem(&settings, &first);
}

INLINE u32 get_also(void) {
    struct settings *known = get_settings();
    return known ? known->also : 0;
}

// The bit of a protocol that has ports; 0 for the others.
INLINE u32 service_bit(u8 protocol) {
    switch (protocol) {
    case 6:
        return ADDRESS_SERVICE;
    case 17:
        return ADDRESS_SERVICE << 1;
    case 132:
        return ADDRESS_SERVICE << 2;
    default:
        return 0;
    }
}

// An address in two words, as they lie in `struct key`; IPv4 has zeros but in the last quarter.
INLINE void set_address(struct key *key, u64 first, u64 second) {
    start_key(key, first || (u32)second ? 6 : 4);
    key->address[0] = first;
    key->address[1] = first >> 32;
    key->address[2] = second;
    key->address[3] = second >> 32;
}

// These are not inlined: the verifier looks at a global function once, and not again for each of the many ways
// that lead to a call. That matters more than the calls: no packet for a single port of a service comes here.

// Whether a port (in network order) is in the ranges of an address. `family` is 0 or FAMILY_REPLY.
NOINLINE int in_ranges(u64 first, u64 second, u32 protocol, u32 port, u32 family) {
    struct key key;
    set_address(&key, first, second);
    key.family |= family;
    key.protocol = protocol;
    struct ranges *list = bpf_map_lookup_elem(&ranges, &key);
    if (!list)
        return 0;
    port = ntohs(port);
#pragma clang loop unroll(disable)
    for (u32 i = 0; i < MAX_RANGES; i++) {
        if (i >= list->count)
            break;
        u32 range = list->range[i];
        if (range >> 16 <= port && port <= (range & 0xffff))
            return 1;
    }
    return 0;
}

// Whether an address and port are a NAT server's. With protocol 0 any port will do. `wanted` is the protocol's
// ADDRESS_SERVICE bit.
NOINLINE int is_server(u64 first, u64 second, u32 protocol, u32 port, u32 wanted) {
    if (!(get_also() & ALSO_REPLIES))
        return 0;
    struct key key;
    set_address(&key, first, second);
    u32 bits = address_bits(&key) >> ADDRESS_REPLY_SHIFT;
    if (!(bits & wanted))
        return 0;
    if (!protocol || bits & ADDRESS_ANY_PORT_OF(wanted))
        return 1;
    if (port == NO_PORT)
        return 0;
    key.family |= FAMILY_REPLY;
    key.protocol = protocol;
    key.port = port;
    if (bpf_map_lookup_elem(&ports, &key))
        return 1;
    return bits & ADDRESS_RANGES_OF(wanted) && in_ranges(first, second, protocol, port, FAMILY_REPLY);
}

// Whether an address is that of a server behind a tunnel.
NOINLINE int is_tunnel(u64 first, u64 second) {
    if (!(get_also() & ALSO_TUNNELS))
        return 0;
    struct key key;
    set_address(&key, first, second);
    return address_bits(&key) & ADDRESS_TUNNEL;
}

// A TCP, UDP or SCTP header, if there is one, to the address in `key`. `wanted` is the protocol's ADDRESS_SERVICE bit.
INLINE int is_service(struct key *key, u16 *transport, u32 bits, u8 protocol, u32 wanted) {
    if (!(bits & wanted))
        return 0;
    if (bits & ADDRESS_ANY_PORT_OF(wanted))
        return 1;
    if (!transport)
        return 0;
    key->protocol = protocol;
    key->port = transport[1];
    if (bpf_map_lookup_elem(&ports, key))
        return 1;
    return bits & ADDRESS_RANGES_OF(wanted) &&
           in_ranges(key->address[0] | (u64)key->address[1] << 32, key->address[2] | (u64)key->address[3] << 32,
                     protocol, key->port, 0);
}

// Network headers lie on two-byte boundaries only: 14 bytes of Ethernet come before them.
INLINE u32 load32(const u16 *half) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return (u32)half[0] << 16 | half[1];
#else
    return (u32)half[0] | (u32)half[1] << 16;
#endif
}

INLINE u64 access_word(u32 index) {
    u64 *word = bpf_map_lookup_elem(&access, &index);
    return word ? *(volatile u64 *)word : 0;
}

INLINE u32 access_cell(u32 part, u32 leading) {
    return access_word(part + (leading >> 5)) >> ((leading & 31) * 2) & 3;
}

// Whether an IPv4 client, in host order, is denied.
NOINLINE int is_denied4(u32 client) {
    u32 leading = client >> 8;
    u32 cell = access_cell(CELLS4, leading);
    if (!(cell & CELL_CLOSER))
        return cell & CELL_DENIED;
    struct block *block = bpf_map_lookup_elem(&blocks, &leading);
    if (block)
        return block->denied[client >> 6 & 3] >> (client & 63) & 1;
    // A change took it away after we had seen the cell: by now the cell says all.
    return access_cell(CELLS4, leading) & CELL_DENIED;
}

// Whether both bits of a value are in the summary.
INLINE int in_summary(u64 value) {
    value *= 0x9e3779b97f4a7c15;
    value ^= value >> 32;
    value *= 0x9e3779b97f4a7c15;
    u32 probe = value >> 39;
    if (!(access_word(SUMMARY6 + (probe >> 6)) >> (probe & 63) & 1))
        return 0;
    probe = value >> 14 & 0x1ffffff;
    return access_word(SUMMARY6 + (probe >> 6)) >> (probe & 63) & 1;
}

// Whether an IPv6 client, in two words as they lie in `struct key`, is denied.
NOINLINE int is_denied6(u64 first, u64 second) {
    u32 high = ntohl((u32)first);
    u32 leading = high >> 8;
    u32 cell = access_cell(CELLS6, leading);
    if (!(cell & CELL_CLOSER))
        return cell & CELL_DENIED;
    if (!in_summary(high | SUMMARY_SHORT) && !in_summary((u64)high << 16 | ntohl((u32)(first >> 32)) >> 16))
        return cell & CELL_DENIED;
    struct long_key key;
    key.length = 128;
    key.address[0] = first;
    key.address[1] = first >> 32;
    key.address[2] = second;
    key.address[3] = second >> 32;
    u32 *says = bpf_map_lookup_elem(&prefixes, &key);
    if (says)
        return *says;
    u32 now = access_cell(CELLS6, leading);
    if ((now ^ cell) & CELL_DENIED) {
        // A change is under way, and goes from the longest prefixes to the cells: once more, in its order.
        says = bpf_map_lookup_elem(&prefixes, &key);
        if (says)
            return *says;
    }
    return now & CELL_DENIED;
}

// The cell of an IPv4 client of an address with these bits; 0 where nobody is judged. Asked for before the ports are looked
// up, and used after: the memory has the time of that lookup to answer.
INLINE u32 cell4(u32 bits, u32 client) {
    return bits & ADDRESS_JUDGED ? access_cell(CELLS4, client >> 8) : 0;
}

// What becomes of a packet for a service: 1, or DENIED. Most clients' cells say it all, without a call.
INLINE int judge4(u32 cell, u32 client) {
    if (cell & CELL_CLOSER)
        cell = is_denied4(client);
    return cell & CELL_DENIED ? DENIED : 1;
}

INLINE int take_arp(struct xdp_md *ctx, u32 offset) {
    u8 *arp = at(ctx, offset, 28);
    if (!arp)
        return 0;
    // Ethernet and IPv4, with their lengths.
    u16 *half = (u16 *)arp;
    if (half[0] != htons(1) || half[1] != ETH_IPV4 || half[2] != htons(0x0604))
        return 0;
    struct key key;
    start_key(&key, 4);
    key.address[3] = load32(half + 12);
    return address_bits(&key) & ADDRESS_OWNED;
}

INLINE int is_server4(const u16 *address, u32 protocol, u32 port, u32 wanted) {
    return is_server(0, (u64)load32(address) << 32, protocol, port, wanted);
}

INLINE int take_ipv4(struct xdp_md *ctx, u32 offset) {
    u8 *ip = at(ctx, offset, 20);
    if (!ip || ip[0] >> 4 != 4)
        return 0;
    u32 length = (ip[0] & 0xf) * 4;
    if (length < 20)
        return 0;
    u8 protocol = ip[9];
    u16 fragment = ((u16 *)ip)[3] & htons(0x3fff); // more fragments, and the offset
    struct key key;
    start_key(&key, 4);
    key.address[3] = load32((u16 *)(ip + 16));
    u32 bits = address_bits(&key);
    u32 wanted = service_bit(protocol);
    offset += length;

    if (wanted) {
        u32 client = ntohl(load32((u16 *)(ip + 12)));
        u32 cell = cell4(bits, client);
        if (fragment)
            return bits & wanted ? judge4(cell, client) : is_server4((u16 *)(ip + 12), 0, 0, wanted);
        u16 *transport = at(ctx, offset, 4);
        u32 port = transport ? transport[0] : NO_PORT;
        return is_service(&key, transport, bits, protocol, wanted)
                   ? judge4(cell, client)
                   : is_server4((u16 *)(ip + 12), protocol, port, wanted);
    }
    if (protocol != 1 || fragment & htons(0x1fff))
        return 0;
    u8 *icmp = at(ctx, offset, 8);
    if (!icmp)
        return 0;
    // Unreachable, source quench, time exceeded, parameter problem.
    int error = icmp[0] == 3 || icmp[0] == 4 || icmp[0] == 11 || icmp[0] == 12;
    if (bits & ADDRESS_OWNED)
        return icmp[0] == 8 || error;
    if (!error)
        return 0;
    int too_big = icmp[0] == 3 && icmp[1] == 4;
    // To anybody: about a packet to a NAT server, or to one behind a tunnel.
    ip = at(ctx, offset + 8, 20);
    if (!ip || ip[0] >> 4 != 4)
        return 0;
    wanted = service_bit(ip[9]);
    if (wanted && is_server4((u16 *)(ip + 16), 0, 0, wanted))
        return 1;
    return too_big && is_tunnel(0, (u64)load32((u16 *)(ip + 16)) << 32);
}

INLINE int is_extension(u8 next) {
    return next == 0 || next == 43 || next == 44 || next == 51 || next == 60;
}

INLINE void load_ipv6(struct key *key, const u16 *half) {
    key->address[0] = load32(half);
    key->address[1] = load32(half + 2);
    key->address[2] = load32(half + 4);
    key->address[3] = load32(half + 6);
}

// What an address's bits say of fragments with this next header.
INLINE u32 fragment_bits(u8 next) {
    u32 wanted = service_bit(next);
    // Behind another extension header: the protocol is in the first fragment only.
    return wanted || !is_extension(next) ? wanted : ADDRESS_SERVICE_MASK;
}

INLINE int is_server6(const u16 *address, u32 protocol, u32 port, u32 wanted) {
    return is_server(load32(address) | (u64)load32(address + 2) << 32,
                     load32(address + 4) | (u64)load32(address + 6) << 32, protocol, port, wanted);
}

// Whether a packet comes from a NAT server. `offset` is where its ports are; with protocol 0 any port will do, and it is
// what the address must have. Global as the others.
NOINLINE int is_reply6(struct xdp_md *ctx, u64 network, u32 protocol, u64 offset) {
    if (!(get_also() & ALSO_REPLIES))
        return 0;
    u8 *ip = at(ctx, network, 40);
    if (!ip)
        return 0;
    if (!protocol)
        return is_server6((u16 *)(ip + 8), 0, 0, offset);
    u16 *transport = at(ctx, offset, 4);
    return is_server6((u16 *)(ip + 8), protocol, transport ? transport[0] : NO_PORT, service_bit(protocol));
}

// As `judge4`. Takes the address anew, as `is_reply6` does.
INLINE int judge6(struct xdp_md *ctx, u32 cell, u32 network) {
    if (cell & CELL_CLOSER) {
        u8 *ip = at(ctx, network, 40);
        if (!ip)
            return 0;
        u16 *source = (u16 *)(ip + 8);
        cell = is_denied6(load32(source) | (u64)load32(source + 2) << 32,
                          load32(source + 4) | (u64)load32(source + 6) << 32);
    }
    return cell & CELL_DENIED ? DENIED : 1;
}

INLINE int take_icmpv6(struct xdp_md *ctx, u32 bits, u32 offset) {
    u8 *icmp = at(ctx, offset, 8);
    if (!icmp)
        return 0;
    u8 type = icmp[0];
    if (type == 135 || type == 136) {
        // Neighbour solicitation and advertisement: the target decides, not the destination, which is mostly a
        // multicast group. An advertisement of an owned address is another host's claim to it.
        icmp = at(ctx, offset, 24);
        if (!icmp)
            return 0;
        struct key target;
        start_key(&target, 6);
        load_ipv6(&target, (u16 *)(icmp + 8));
        return address_bits(&target) & ADDRESS_OWNED;
    }
    // Errors (RFC 4443 section 2.1: types below 128).
    int error = type >= 1 && type <= 4;
    if (bits & ADDRESS_OWNED)
        return type == 128 || error;
    if (!error)
        return 0;
    // To anybody: about a packet to a NAT server, or to one behind a tunnel.
    u8 *ip = at(ctx, offset + 8, 40);
    if (!ip || ip[0] >> 4 != 6)
        return 0;
    u32 wanted = fragment_bits(ip[6]);
    u16 *to = (u16 *)(ip + 24);
    if (wanted && is_server6(to, 0, 0, wanted))
        return 1;
    return type == 2 &&
           is_tunnel(load32(to) | (u64)load32(to + 2) << 32, load32(to + 4) | (u64)load32(to + 6) << 32);
}

// The way over IPv6 extension headers to what follows them: its next header in the low byte, from WALK_OFFSET on where it begins.
// With WALK_FRAGMENT the packet is a fragment, and the next header is what its fragment header says.
#define WALK_FRAGMENT 0x100
#define WALK_OFFSET 16
#define NO_NEXT 59 // RFC 8200 section 4.7: nothing follows

// `next` stands at `offset`. Global as the others: few packets have such headers, and all the ways through them are many.
NOINLINE u32 walk6(struct xdp_md *ctx, u64 offset, u32 next) {
#pragma clang loop unroll(disable)
    for (int i = 0; i < MAX_EXTENSIONS; i++) {
        if (!is_extension(next))
            break;
        u8 *header = at(ctx, offset, 8);
        if (!header)
            return NO_NEXT;
        if (next == 44) {
            // More fragments, or an offset; without either it is a whole packet (RFC 6946).
            if (((u16 *)header)[1] & htons(0xfff9))
                return WALK_FRAGMENT | header[0];
            offset += 8;
        } else if (next == 51) {
            offset += ((u32)header[1] + 2) * 4; // RFC 4302 section 2.2
        } else {
            offset += ((u32)header[1] + 1) * 8;
        }
        next = header[0];
    }
    return (u32)offset << WALK_OFFSET | (next & 0xff);
}

INLINE int take_ipv6(struct xdp_md *ctx, u32 offset) {
    u8 *ip = at(ctx, offset, 40);
    if (!ip || ip[0] >> 4 != 6)
        return 0;
    u8 next = ip[6];
    struct key key;
    start_key(&key, 6);
    load_ipv6(&key, (u16 *)(ip + 24));
    u32 bits = address_bits(&key);
    // Solicitations go to a link-local multicast group.
    if (!bits && ip[24] != 0xff) {
        // No bit of an address, but not a known 0 either, which would make the verifier walk everything once more.
        bits = get_also();
        if (!bits)
            return 0;
    }
    u32 network = offset;
    // As `cell4`.
    u32 cell = bits & ADDRESS_JUDGED ? access_cell(CELLS6, ntohl(load32((u16 *)(ip + 8))) >> 8) : 0;
    offset += 40;

    if (is_extension(next)) {
        u32 walked = walk6(ctx, offset, next);
        next = walked;
        if (walked & WALK_FRAGMENT) {
            u32 wanted = fragment_bits(next);
            return bits & wanted ? judge6(ctx, cell, network) : is_reply6(ctx, network, 0, wanted);
        }
        offset = walked >> WALK_OFFSET;
    }

    if (next == 58)
        return take_icmpv6(ctx, bits, offset);
    u32 wanted = service_bit(next);
    if (!wanted)
        return 0;
    return is_service(&key, at(ctx, offset, 4), bits, next, wanted) ? judge6(ctx, cell, network)
                                                                     : is_reply6(ctx, network, next, offset);
}

INLINE int take(struct xdp_md *ctx) {
    u16 *ethernet = at(ctx, 0, 14);
    if (!ethernet)
        return 0;
    u16 type = ethernet[6];
    u32 offset = 14;
#pragma unroll
    for (int i = 0; i < MAX_VLANS; i++) {
        if (type != ETH_8021Q && type != ETH_8021AD)
            break;
        u16 *tag = at(ctx, offset, 4);
        if (!tag)
            return 0;
        type = tag[1];
        offset += 4;
    }
    if (type == ETH_IPV4)
        return take_ipv4(ctx, offset);
    if (type == ETH_IPV6)
        return take_ipv6(ctx, offset);
    if (type == ETH_ARP)
        return take_arp(ctx, offset);
    return 0;
}

// What becomes of a frame that the engine gave back; 0 when it is none. What it stood behind is taken off.
INLINE int returned(struct xdp_md *ctx) {
    struct returned *head = at(ctx, 0, sizeof(*head));
    if (!head || head->type != ETH_RETURNED)
        return 0;
    struct settings *known = get_settings();
    if (!known || load32(head->secret) != known->secret[0] || load32(head->secret + 2) != known->secret[1] ||
        load32(head->secret + 4) != known->secret[2])
        return 0;
    if (head->what || bpf_xdp_adjust_head(ctx, sizeof(*head)))
        return XDP_DROP;
    return XDP_PASS;
}

INLINE int filter(struct xdp_md *ctx) {
    int taken = take(ctx);
    if (!taken) {
        int action = returned(ctx);
        if (action)
            return action;
        count(COUNT_PASSED);
        return XDP_PASS;
    }
    if (taken == DENIED) {
        count(COUNT_DENIED);
        return XDP_DROP;
    }
    int action = bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
    count(action == XDP_REDIRECT ? COUNT_REDIRECTED : COUNT_NO_SOCKET);
    return action;
}

// For kernels and drivers that can hand over frames in several buffers (5.18); the headers are in the first.
SEC("xdp.frags")
int evenkeel_frags(struct xdp_md *ctx) {
    return filter(ctx);
}

SEC("xdp")
int evenkeel(struct xdp_md *ctx) {
    return filter(ctx);
}

char program_license[] SEC("license") = "Dual MIT/GPL";
