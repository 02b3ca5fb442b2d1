//! What AF_XDP needs of the system and of the processor: the raw calls, and the prefetch hint.
//!
//! Owns every `unsafe` call of the sockets. Never keeps state and never decides what an error means.

/// Asks the processor to bring the cache line of `value` close, for a read that will come soon. A hint without effect
/// on what the program computes; nothing where the processor has no such instruction.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program can observe and never faults; the address comes from a
        // live reference anyway. SSE is part of every x86_64 processor.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
