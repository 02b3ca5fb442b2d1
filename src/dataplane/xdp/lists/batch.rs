//! Many elements into a map by one system call (`BPF_MAP_UPDATE_BATCH`, Linux 5.6; tries 5.13), which aya does not have.
//!
//! Owns the system call and what to do where the kernel does not know it or has to fetch memory first. Elements go in one
//! after the other, in their order.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use aya::Pod;

const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;
/// The kernel's own number for "this map type has no such operation".
const ENOTSUPP: i32 = 524;
/// Elements a call.
const MOST: usize = 4096;
/// How often, a millisecond apart, the kernel may say that it has no memory at hand: it keeps some per processor, and
/// fetches more while it is already asked for it.
const PATIENCE: u32 = 100;

/// The member `batch` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The member for single elements.
#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn bpf<T>(command: libc::c_long, attr: &mut T) -> std::io::Result<()> {
    // SAFETY: `attr` is one of the two structures above, laid out as the kernel has them, with its true size; what its
    // pointers point to outlives the call (the callers borrow it), and the kernel only reads it, but for `count`.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Inserts elements, or replaces those with the same key. `keys` and `values` belong together by their order and have the map's
/// sizes.
pub(super) fn update<K: Pod, V: Pod>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> std::io::Result<()> {
    let map_fd = map.as_raw_fd() as u32;
    let (mut at, mut patience, mut batches) = (0, PATIENCE, true);
    let end = keys.len().min(values.len());
    while at < end {
        let (key, value) = (keys[at..].as_ptr() as u64, values[at..].as_ptr() as u64);
        let (done, result) = if batches {
            let count = (end - at).min(MOST) as u32;
            let mut attr = BatchAttr { keys: key, values: value, count, map_fd, ..BatchAttr::default() };
            let result = bpf(BPF_MAP_UPDATE_BATCH, &mut attr);
            // A call that the kernel does not know leaves the count.
            let unknown = matches!(&result, Err(error)
                if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | ENOTSUPP)));
            if unknown {
                batches = false;
                continue;
            }
            (attr.count.min(count) as usize, result)
        } else {
            let mut attr = ElementAttr { map_fd, padding: 0, key, value, flags: 0 };
            let result = bpf(BPF_MAP_UPDATE_ELEM, &mut attr);
            (usize::from(result.is_ok()), result)
        };
        match result {
            Ok(()) => at += done,
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EAGAIN)) && patience > 0 => {
                at += done;
                patience -= 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
