//! The sink: counts and drops generated packets in XDP, so that reception is not the bottleneck of a measurement.
//!
//! Owns the program on the interface as long as it runs. ARP, neighbour discovery and ping still reach the kernel.

use std::time::{Duration, Instant};

use aya::maps::{MapData, PerCpuArray};

use super::{Bounds, PktgenError, live};

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// From the first packet to the last, at the resolution of the readings.
    pub(super) active: Duration,
}

/// Counts until the bounds are reached; `each` gets the rate of every second.
pub(super) fn run(ifindex: u32, bounds: &Bounds, mut each: impl FnMut(f64, u64)) -> Result<Counts, PktgenError> {
    let mut ebpf = live::load("sink")?;
    let counts: PerCpuArray<MapData, [u64; 2]> = live::map(&mut ebpf, "sunk")?;
    live::attach(&mut ebpf, "sink", ifindex)?;
    let read = || -> Result<(u64, u64), PktgenError> {
        let values =
            counts.get(&0, 0).map_err(|e| PktgenError::Bpf { what: "reading the counts", source: e.into() })?;
        Ok(values.iter().fold((0, 0), |sum, value| (sum.0 + value[0], sum.1 + value[1])))
    };
    let (mut first, mut last) = (None, None);
    let mut total = (0, 0);
    let mut shown = (Instant::now(), 0);
    while bounds.left(total.0).is_some() {
        std::thread::sleep(Duration::from_millis(10));
        let now = Instant::now();
        let fresh = read()?;
        if fresh.0 != total.0 {
            first.get_or_insert(now);
            last = Some(now);
            total = fresh;
        }
        let since = now - shown.0;
        if since >= Duration::from_secs(1) {
            each((total.0 - shown.1) as f64 / since.as_secs_f64(), total.0);
            shown = (now, total.0);
        }
    }
    let total = read()?;
    let active = first.zip(last).map_or(Duration::ZERO, |(first, last)| last - first);
    Ok(Counts { packets: total.0, bytes: total.1, active })
}
