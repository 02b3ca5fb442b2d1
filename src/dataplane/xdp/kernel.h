// What the XDP programs need of the kernel's interface, so that building them needs clang and no headers.
//
// Owns the numbers and layouts of include/uapi/linux/bpf.h that are used here; they are stable ABI. Never holds logic.
#ifndef EVENKEEL_KERNEL_H
#define EVENKEEL_KERNEL_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))

// BTF map definitions, as libbpf and aya read them.
#define UINT(name, value) int(*name)[value]
#define TYPE(name, value) typeof(value) *name

// enum xdp_action
#define XDP_ABORTED 0
#define XDP_DROP 1
#define XDP_PASS 2
#define XDP_TX 3
#define XDP_REDIRECT 4

// enum bpf_map_type
#define BPF_MAP_TYPE_HASH 1
#define BPF_MAP_TYPE_ARRAY 2
#define BPF_MAP_TYPE_PERCPU_ARRAY 6
#define BPF_MAP_TYPE_LPM_TRIE 11
#define BPF_MAP_TYPE_XSKMAP 17

#define BPF_F_NO_PREALLOC 1
#define BPF_F_MMAPABLE (1 << 10)

struct xdp_md {
    u32 data;
    u32 data_end;
    u32 data_meta;
    u32 ingress_ifindex;
    u32 rx_queue_index;
    u32 egress_ifindex;
};

// Helpers, by their numbers in include/uapi/linux/bpf.h.
static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static u32 (*bpf_get_smp_processor_id)(void) = (void *)8;
static long (*bpf_redirect)(u32 ifindex, u64 flags) = (void *)23;
static long (*bpf_xdp_adjust_head)(struct xdp_md *ctx, int delta) = (void *)44;
static long (*bpf_redirect_map)(void *map, u64 key, u64 flags) = (void *)51;

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define htons(x) ((u16)__builtin_bswap16((u16)(x)))
#define htonl(x) ((u32)__builtin_bswap32((u32)(x)))
#else
#define htons(x) ((u16)(x))
#define htonl(x) ((u32)(x))
#endif
#define ntohs htons
#define ntohl htonl

#endif
