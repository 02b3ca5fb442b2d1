//! Two hints to the machine that safe Rust cannot give: fetch a cache line, back memory with huge pages.
//!
//! Neither can change what a program computes; they live here so that no other file of the pipeline needs `unsafe`
//! (see `docs/adr/0004-unsafe-code.md`).

/// Asks the CPU to fetch the cache line at the start of `value` into all cache levels.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no architectural effect, whatever the address; this one is a live reference's.
    unsafe {
        core::arch::x86_64::_mm_prefetch(core::ptr::from_ref(value).cast::<i8>(), core::arch::x86_64::_MM_HINT_T0);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// Asks the kernel to back `memory` with transparent huge pages. Best called before it is first touched; the kernel
/// may decline, which costs speed and nothing else.
pub fn advise_huge<T: Copy>(memory: &mut [T]) {
    let page = 4096;
    let start = (memory.as_ptr() as usize).next_multiple_of(page);
    let end = memory.as_ptr_range().end as usize / page * page;
    if end > start {
        // SAFETY: the range lies inside an exclusively borrowed live slice, and MADV_HUGEPAGE changes how pages are
        // backed, never what they contain.
        unsafe {
            libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE);
        }
    }
}
