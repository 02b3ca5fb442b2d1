// The XDP filter: which frames of an interface go to the engine. Everything else goes on to the kernel.
//
// Owns the decision "ours or the kernel's". Never changes a frame, never drops one, and never holds state of a flow.
//
// A frame is taken when it is clearly ours:
//   - IPv4 or IPv6, TCP, UDP or SCTP, to an address and port of a service, behind 0 to 2 VLAN tags and any IPv4
//     options or IPv6 extension headers;
//   - a fragment other than the first, to an address that has a service of its protocol: it has no ports;
//   - ARP whose target is an owned address, and neighbour solicitations for one (RFC 826, RFC 4861 section 4.3);
//   - echo requests and ICMP errors to an owned address (RFC 792, RFC 4443).
// The memory layout of the maps is shared with table.rs beside this file.

#include "kernel.h"

#define ETH_IPV4 htons(0x0800)
#define ETH_ARP htons(0x0806)
#define ETH_8021Q htons(0x8100)
#define ETH_8021AD htons(0x88a8)
#define ETH_IPV6 htons(0x86dd)

#define MAX_VLANS 2
#define MAX_EXTENSIONS 8
#define MAX_RANGES 16
// Headers end before this offset, or the frame is odd enough to be the kernel's. Also what bounds the verifier.
#define MAX_OFFSET 1024

// Bits of an address: what is taken for it. A protocol's bit is shifted by its index (tcp 0, udp 1, sctp 2).
#define ADDRESS_OWNED 0x1
#define ADDRESS_SERVICE 0x10
#define ADDRESS_ANY_PORT 0x100
#define ADDRESS_RANGES 0x1000
#define ADDRESS_SERVICE_MASK 0x70

// Key of all tables. `addresses` has protocol and port 0, `ranges` has port 0.
struct key {
    u32 address[4]; // network order; IPv4 in address[3], the others 0
    u16 port;       // network order
    u8 protocol;
    u8 family;      // 4 or 6
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

enum { COUNT_PASSED, COUNT_REDIRECTED, COUNT_NO_SOCKET, COUNTERS };

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
INLINE void *at(struct xdp_md *ctx, u32 offset, u32 length) {
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

INLINE int protocol_index(u8 protocol) {
    switch (protocol) {
    case 6:
        return 0;
    case 17:
        return 1;
    case 132:
        return 2;
    default:
        return -1;
    }
}

// A TCP, UDP or SCTP header at `offset`. `key` holds the address.
INLINE int is_service(struct xdp_md *ctx, struct key *key, u32 bits, u8 protocol, int index, u32 offset) {
    if (!(bits & (ADDRESS_SERVICE << index)))
        return 0;
    if (bits & (ADDRESS_ANY_PORT << index))
        return 1;
    u16 *transport = at(ctx, offset, 4);
    if (!transport)
        return 0;
    key->protocol = protocol;
    key->port = transport[1];
    if (bpf_map_lookup_elem(&ports, key))
        return 1;
    if (!(bits & (ADDRESS_RANGES << index)))
        return 0;
    u32 port = ntohs(key->port);
    key->port = 0;
    struct ranges *list = bpf_map_lookup_elem(&ranges, key);
    if (!list)
        return 0;
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

// Network headers lie on two-byte boundaries only: 14 bytes of Ethernet come before them.
INLINE u32 load32(const u16 *half) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return (u32)half[0] << 16 | half[1];
#else
    return (u32)half[0] | (u32)half[1] << 16;
#endif
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

INLINE int take_ipv4(struct xdp_md *ctx, u32 offset) {
    u8 *ip = at(ctx, offset, 20);
    if (!ip || ip[0] >> 4 != 4)
        return 0;
    u32 length = (ip[0] & 0xf) * 4;
    if (length < 20)
        return 0;
    u8 protocol = ip[9];
    u16 fragment = ((u16 *)ip)[3] & htons(0x1fff);
    struct key key;
    start_key(&key, 4);
    key.address[3] = load32((u16 *)(ip + 16));
    u32 bits = address_bits(&key);
    if (!bits)
        return 0;

    int index = protocol_index(protocol);
    if (fragment)
        return index >= 0 && bits & (ADDRESS_SERVICE << index);
    if (index >= 0)
        return is_service(ctx, &key, bits, protocol, index, offset + length);
    if (protocol == 1 && bits & ADDRESS_OWNED) {
        u8 *icmp = at(ctx, offset + length, 8);
        if (!icmp)
            return 0;
        // Echo request; unreachable, source quench, time exceeded, parameter problem.
        return icmp[0] == 8 || icmp[0] == 3 || icmp[0] == 4 || icmp[0] == 11 || icmp[0] == 12;
    }
    return 0;
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

INLINE int take_icmpv6(struct xdp_md *ctx, u32 bits, u32 offset) {
    u8 *icmp = at(ctx, offset, 8);
    if (!icmp)
        return 0;
    if (icmp[0] == 135 || icmp[0] == 136) {
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
    // Echo request; errors (RFC 4443 section 2.1: types below 128).
    return bits & ADDRESS_OWNED && (icmp[0] == 128 || (icmp[0] >= 1 && icmp[0] <= 4));
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
    if (!bits && ip[24] != 0xff)
        return 0;
    offset += 40;

#pragma clang loop unroll(disable)
    for (int i = 0; i < MAX_EXTENSIONS; i++) {
        if (!is_extension(next))
            break;
        u8 *header = at(ctx, offset, 8);
        if (!header)
            return 0;
        if (next == 44) {
            if (((u16 *)header)[1] & htons(0xfff8)) {
                int index = protocol_index(header[0]);
                if (index >= 0)
                    return bits & (ADDRESS_SERVICE << index);
                // Behind another extension header: the protocol is in the first fragment only.
                return is_extension(header[0]) && bits & ADDRESS_SERVICE_MASK;
            }
            offset += 8;
        } else if (next == 51) {
            offset += ((u32)header[1] + 2) * 4; // RFC 4302 section 2.2
        } else {
            offset += ((u32)header[1] + 1) * 8;
        }
        next = header[0];
    }

    if (next == 58)
        return take_icmpv6(ctx, bits, offset);
    int index = protocol_index(next);
    return index >= 0 && is_service(ctx, &key, bits, next, index, offset);
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

INLINE int filter(struct xdp_md *ctx) {
    if (!take(ctx)) {
        count(COUNT_PASSED);
        return XDP_PASS;
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
