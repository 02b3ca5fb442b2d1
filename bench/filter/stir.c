// The XDP filter with a client of its own for every run: what it costs when packets come from many.
//
// Owns the choice of the client, from a list that the bench fills. Only for `bench/filter`.

#include "../../src/dataplane/xdp/filter.c"

#define CLIENTS (1 << 18)

struct client {
    u32 address[4]; // as in the packet; IPv4 has only the first
};

struct {
    UINT(type, BPF_MAP_TYPE_ARRAY);
    UINT(max_entries, CLIENTS);
    UINT(map_flags, BPF_F_MMAPABLE);
    TYPE(key, u32);
    TYPE(value, struct client);
} clients SEC(".maps");

struct {
    UINT(type, BPF_MAP_TYPE_ARRAY);
    UINT(max_entries, 1);
    TYPE(key, u32);
    TYPE(value, u32);
} next SEC(".maps");

INLINE void store32(u16 *half, u32 word) {
    half[0] = word;
    half[1] = word >> 16;
}

// Writes the next client's address over the source of a frame without tags. 0 if that cannot be.
INLINE int stir(struct xdp_md *ctx) {
    u32 first = 0;
    u32 *turn = bpf_map_lookup_elem(&next, &first);
    if (!turn)
        return 0;
    u32 index = (*turn)++ & (CLIENTS - 1);
    struct client *client = bpf_map_lookup_elem(&clients, &index);
    u16 *ethernet = at(ctx, 0, 38);
    if (!client || !ethernet)
        return 0;
    if (ethernet[6] == ETH_IPV4) {
        store32(ethernet + 13, client->address[0]);
        return 1;
    }
    store32(ethernet + 11, client->address[0]);
    store32(ethernet + 13, client->address[1]);
    store32(ethernet + 15, client->address[2]);
    store32(ethernet + 17, client->address[3]);
    return 1;
}

SEC("xdp")
int stirred(struct xdp_md *ctx) {
    return stir(ctx) ? filter(ctx) : XDP_ABORTED;
}

// The same without the filter: what is taken off.
SEC("xdp")
int stirred_only(struct xdp_md *ctx) {
    return stir(ctx) ? XDP_PASS : XDP_ABORTED;
}
