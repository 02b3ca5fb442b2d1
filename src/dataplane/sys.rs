//! Two things that safe Rust cannot give at speed: fetch a cache line ahead of need, and plain values in huge pages.
//!
//! They live here so that no other file of the pipeline needs `unsafe` (see `docs/adr/0004-unsafe-code.md`).

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

/// What backs a [`Zeroed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Reserved 2 MiB pages (hugetlbfs).
    Reserved,
    /// Pages of the kernel's choice, 2 MiB ones where it has them to spare (transparent huge pages).
    Transparent,
    /// Normal pages.
    Normal,
}

/// A fixed slice of zeroed plain values in pages of its own, so that huge pages can back it.
///
/// The allocator would do but for one thing: it touches zeroed memory of high alignment before the kernel can be told
/// that huge pages are wanted, and then the wish comes too late.
pub struct Zeroed<T: bytemuck::Pod> {
    map: memmap2::MmapMut,
    len: usize,
    backing: Backing,
    value: std::marker::PhantomData<T>,
}

impl<T: bytemuck::Pod> Zeroed<T> {
    /// `len` zeroed values; `huge` tries reserved huge pages, then transparent ones.
    ///
    /// # Errors
    /// The kernel has not that much memory.
    pub fn new(len: usize, huge: bool) -> std::io::Result<Self> {
        let bytes = (len * size_of::<T>()).max(1);
        let mut backing = Backing::Reserved;
        let reserved = if huge && bytes >= 1 << 21 {
            memmap2::MmapOptions::new().len(bytes.next_multiple_of(1 << 21)).huge(Some(21)).map_anon().ok()
        } else {
            None
        };
        let map = match reserved {
            Some(map) => map,
            None => {
                let map = memmap2::MmapOptions::new().len(bytes).map_anon()?;
                backing = Backing::Normal;
                if huge && map.advise(memmap2::Advice::HugePage).is_ok() {
                    backing = Backing::Transparent;
                }
                map
            }
        };
        assert!(map.as_ptr().cast::<T>().is_aligned(), "a mapping starts at a page");
        Ok(Zeroed { map, len, backing, value: std::marker::PhantomData })
    }

    /// What backs it.
    pub fn backing(&self) -> Backing {
        self.backing
    }
}

impl<T: bytemuck::Pod> std::ops::Deref for Zeroed<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: the mapping is at least `len` values long and aligned (both made sure of in `new`), lives as long
        // as `self`, and any bytes are a valid `T: Pod`. `bytemuck::cast_slice` would check all that on each access.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<T>(), self.len) }
    }
}

impl<T: bytemuck::Pod> std::ops::DerefMut for Zeroed<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().cast::<T>(), self.len) }
    }
}
