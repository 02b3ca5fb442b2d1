//! The engine `live-frames`: the kernel runs our XDP program on recycled frames, which go out of an interface.
//!
//! Owns the loaded program and its pace in chunks. Needs Linux 5.18, an interface whose driver can send XDP frames, and
//! on veth an XDP program on the peer (or GRO there).

use std::time::{Duration, Instant};

use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::{ProgramError, Xdp, XdpMode};
use aya::{Ebpf, TestRun, TestRunAttrs, TestRunOptions};

use super::template::{FIRST_PORT, Kind, MAX_HEADER, Template};
use super::{Bounds, Pace, PktgenError};

pub(super) const OBJECT: &[u8] = aya::include_bytes_aligned!("pktgen.o");

/// `struct config` of `pktgen.c` in words of the machine's order: twelve numbers, then the header.
const CONFIG_WORDS: usize = 12 + MAX_HEADER / 4;
/// Frames of one call at full rate: a tenth of a second and more.
const CHUNK: u64 = 1 << 19;
/// Frames that the kernel hands to the driver at once.
const BATCH: u32 = 64;

fn bpf(what: &'static str) -> impl Fn(Box<dyn std::error::Error + Send + Sync>) -> PktgenError {
    move |source| PktgenError::Bpf { what, source }
}

/// Loads a program of the object. Maps are taken by the caller.
pub(super) fn load(name: &str) -> Result<Ebpf, PktgenError> {
    let mut ebpf = Ebpf::load(OBJECT).map_err(|e| bpf("loading the object")(e.into()))?;
    let program = ebpf.program_mut(name).ok_or_else(|| bpf("finding the program")(name.into()))?;
    let program: &mut Xdp = program.try_into().map_err(|e: ProgramError| bpf("finding the program")(e.into()))?;
    program.load().map_err(|e| bpf("loading the program")(e.into()))?;
    Ok(ebpf)
}

/// Attaches a program to an interface, in the driver where that is possible.
pub(super) fn attach(ebpf: &mut Ebpf, name: &str, ifindex: u32) -> Result<(), PktgenError> {
    let program = ebpf.program_mut(name).ok_or_else(|| bpf("finding the program")(name.into()))?;
    let program: &mut Xdp = program.try_into().map_err(|e: ProgramError| bpf("finding the program")(e.into()))?;
    if program.attach_to_if_index(ifindex, XdpMode::Driver).is_err() {
        program.attach_to_if_index(ifindex, XdpMode::Skb).map_err(|e| bpf("attaching the program")(e.into()))?;
    }
    Ok(())
}

/// Takes a map.
pub(super) fn map<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, PktgenError>
where
    T: TryFrom<aya::maps::Map, Error = aya::maps::MapError>,
{
    let found = ebpf.take_map(name).ok_or_else(|| bpf("finding the map")(name.into()))?;
    T::try_from(found).map_err(|e| bpf("opening the map")(e.into()))
}

fn config(template: &Template, ifindex: u32, random: bool) -> [u32; CONFIG_WORDS] {
    let mut words = [0; CONFIG_WORDS];
    let parameters = &template.parameters;
    words[..10].copy_from_slice(&[
        ifindex,
        parameters.flows,
        parameters.sources.addresses,
        template.source(),
        u32::from(FIRST_PORT),
        u32::from(random),
        if parameters.destination.is_ipv4() { 4 } else { 6 },
        if parameters.kind == Kind::Udp { 17 } else { 6 },
        template.ip_sum,
        template.transport_sum,
    ]);
    let header = template.bytes[..template.header].chunks(4);
    for (word, bytes) in words[12..].iter_mut().zip(header) {
        let mut four = [0; 4];
        four[..bytes.len()].copy_from_slice(bytes);
        *word = u32::from_ne_bytes(four);
    }
    words
}

/// Sends until the bounds are reached; returns the number of frames given to the driver.
pub(super) fn run(
    template: &Template,
    ifindex: u32,
    random: bool,
    bounds: &Bounds,
    pace: &mut Pace,
) -> Result<u64, PktgenError> {
    let mut ebpf = load("generate")?;
    let mut settings: Array<MapData, [u32; CONFIG_WORDS]> = map(&mut ebpf, "config")?;
    settings.set(0, config(template, ifindex, random), 0).map_err(|e| bpf("writing the config")(e.into()))?;
    let mut state: PerCpuArray<MapData, [u64; 3]> = map(&mut ebpf, "state")?;
    let processors = aya::util::nr_cpus().map_err(|(_, e)| bpf("counting processors")(e.into()))?;
    let seeds: Vec<[u64; 3]> = (1..=processors as u64).map(|n| [n.wrapping_mul(0x9e37_79b9_7f4a_7c15), 0, 0]).collect();
    let seeds = aya::maps::PerCpuValues::try_from(seeds).map_err(|e: std::io::Error| bpf("seeding")(e.into()))?;
    state.set(0, seeds, 0).map_err(|e| bpf("seeding")(e.into()))?;
    // Each run puts the program on the kernel's list of XDP programs and waits for all processors before and after
    // (`bpf_prog_change_xdp`), some ten milliseconds of silence followed by a burst, unless it is there already. So it is
    // attached, in the mode that leaves the driver alone, and passes what arrives. Best effort: another program may be there.
    let program = ebpf.program_mut("generate").ok_or_else(|| bpf("finding the program")("generate".into()))?;
    let program: &mut Xdp = program.try_into().map_err(|e: ProgramError| bpf("finding the program")(e.into()))?;
    let _ = program.attach_to_if_index(ifindex, XdpMode::Skb);
    let program = ebpf.program("generate").ok_or_else(|| bpf("finding the program")("generate".into()))?;
    let program: &Xdp = program.try_into().map_err(|e: ProgramError| bpf("finding the program")(e.into()))?;

    let mut sent = 0u64;
    pace.start();
    while let Some(left) = bounds.left(sent) {
        let due = pace.due(sent, Instant::now());
        if due == 0 {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        let count = due.min(left).min(CHUNK);
        let options = TestRunOptions {
            data_in: Some(&template.bytes),
            repeat: count as u32,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH.min(count as u32)),
            ..TestRunOptions::new()
        };
        match program.test_run(options) {
            Ok(_) => sent += count,
            // A signal ended the run early; the count of the program below is the truth.
            Err(ProgramError::SyscallError(e)) if e.io_error.kind() == std::io::ErrorKind::Interrupted => break,
            Err(error) => return Err(bpf("running with live frames (Linux 5.18)")(error.into())),
        }
    }
    let totals = state.get(&0, 0).map_err(|e| bpf("reading the counts")(e.into()))?;
    Ok(totals.iter().map(|state| state[2]).sum())
}
