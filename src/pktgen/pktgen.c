// The generator's and the sink's XDP programs.
//
// `generate` is run by BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES: each run turns one recycled frame into a
// packet of some flow and redirects it out of an interface. Recycled frames come back as the receiver left them, so
// the whole header is written each time. `sink` counts and drops the packets that a generator makes.
//
// Owns no policy: `config` says it all. Its layout is repeated in live.rs.

#include "../dataplane/xdp/kernel.h"

#define MAX_HEADER 80

struct config {
    u32 ifindex;
    u32 flows;
    u32 addresses;    // source addresses; flow i has address i % addresses and port first_port + i / addresses
    u32 source;       // lowest source address, host order (IPv6: its last four bytes)
    u32 first_port;   // host order
    u32 random;       // flows in random order instead of one after the other
    u32 family;       // 4 or 6
    u32 protocol;     // 6 or 17
    u32 ip_sum;       // ones' complement sums with source address, source port and checksums 0, in memory order
    u32 transport_sum;
    u32 reserved[2];
    u8 header[MAX_HEADER];
};

struct state {
    u64 random;
    u64 next;
    u64 sent;
};

struct {
    UINT(type, BPF_MAP_TYPE_ARRAY);
    UINT(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, struct config);
} config SEC(".maps");

struct {
    UINT(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    UINT(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, struct state);
} state SEC(".maps");

struct counts {
    u64 packets;
    u64 bytes;
};

struct {
    UINT(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    UINT(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, struct counts);
} sunk SEC(".maps");

INLINE u16 fold(u32 sum) {
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return ~sum;
}

INLINE int emit(struct xdp_md *ctx, const struct config *c, u32 source, u16 port, const int v6, const int tcp) {
    void *data = (void *)(long)ctx->data;
    void *end = (void *)(long)ctx->data_end;
    const u32 transport = v6 ? 54 : 34;
    const u32 header = transport + (tcp ? 20 : 8);
    if (data + header > end)
        return XDP_ABORTED;
    __builtin_memcpy(data, c->header, header);

    u32 address = htonl(source);
    u16 *words = data;
    u16 low = address & 0xffff, high = address >> 16;
    const u32 place = v6 ? 34 : 26;
    words[place / 2] = low;
    words[place / 2 + 1] = high;
    words[transport / 2] = htons(port);
    if (!v6)
        words[24 / 2] = fold(c->ip_sum + low + high);
    u16 sum = fold(c->transport_sum + low + high + htons(port));
    if (!tcp && sum == 0)
        sum = 0xffff; // RFC 768: zero means none
    words[(transport + (tcp ? 16 : 6)) / 2] = sum;
    return bpf_redirect(c->ifindex, 0);
}

SEC("xdp")
int generate(struct xdp_md *ctx) {
    u32 zero = 0;
    struct config *c = bpf_map_lookup_elem(&config, &zero);
    struct state *s = bpf_map_lookup_elem(&state, &zero);
    if (!c || !s)
        return XDP_ABORTED;
    // The program is also attached to the interface, see live.rs: what arrives there is no frame of ours.
    if (ctx->ingress_ifindex == c->ifindex)
        return XDP_PASS;
    u64 flow;
    if (c->random) {
        u64 x = s->random; // xorshift64
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        s->random = x;
        flow = ((x >> 32) * c->flows) >> 32;
    } else {
        flow = s->next;
        s->next = flow + 1 >= c->flows ? 0 : flow + 1;
    }
    s->sent += 1;
    u32 addresses = c->addresses ? c->addresses : 1;
    u32 source = c->source + (u32)flow % addresses;
    u16 port = c->first_port + (u32)flow / addresses;
    if (c->family == 4)
        return c->protocol == 17 ? emit(ctx, c, source, port, 0, 0) : emit(ctx, c, source, port, 0, 1);
    return c->protocol == 17 ? emit(ctx, c, source, port, 1, 0) : emit(ctx, c, source, port, 1, 1);
}

INLINE int is_generated(u8 protocol) {
    return protocol == 6 || protocol == 17 || protocol == 132;
}

// Neighbour discovery, ping and everything that is not a generator's packet still reaches the kernel.
SEC("xdp")
int sink(struct xdp_md *ctx) {
    void *data = (void *)(long)ctx->data;
    void *end = (void *)(long)ctx->data_end;
    if (data + 34 > end)
        return XDP_PASS;
    u8 *bytes = data;
    u16 type = ((u16 *)data)[6];
    if (!(type == htons(0x0800) && is_generated(bytes[23])) && !(type == htons(0x86dd) && is_generated(bytes[20])))
        return XDP_PASS;
    u32 zero = 0;
    struct counts *counts = bpf_map_lookup_elem(&sunk, &zero);
    if (counts) {
        counts->packets += 1;
        counts->bytes += end - data;
    }
    return XDP_DROP;
}

char program_license[] SEC("license") = "Dual MIT/GPL";
