//! The engine `xsk`: frames written in user space and sent over AF_XDP.
//!
//! Owns one socket on queue 0. Never receives: what arrives on the interface stays the kernel's, because no program
//! hands it over.

use std::time::{Duration, Instant};

use super::template::Template;
use super::{Bounds, Pace, PktgenError};
use crate::dataplane::io::facts::InterfaceFacts;
use crate::dataplane::io::xsk::{PortBinding, XskIo};
use crate::dataplane::io::{BATCH, FrameMemory, PacketIo};
use crate::dataplane::xdp::XdpAttach;
use crate::model::EngineSettings;

/// Sends until the bounds are reached; returns the number of frames given to the ring and the mode.
pub(super) fn run(
    template: &Template,
    facts: &InterfaceFacts,
    random: bool,
    bounds: &Bounds,
    pace: &mut Pace,
) -> Result<u64, PktgenError> {
    let settings = EngineSettings { ring_size: 2048, frames: 8192, frame_size: 4096, ..EngineSettings::default() };
    let binding = PortBinding {
        port: 0,
        name: facts.name.clone(),
        ifindex: facts.ifindex,
        queues: vec![0],
        attach: XdpAttach::Native,
        tx_queues: facts.tx_queues,
    };
    let (mut io, report) = XskIo::open(0, &[binding], &settings)?;
    if let Some(socket) = report.sockets.first() {
        eprintln!("{}: AF_XDP {}", socket.interface, socket.mode);
    }
    let flows = template.parameters.flows.max(1);
    let length = template.bytes.len() as u32;
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = 0u32;
    let mut sent = 0u64;
    pace.start();
    while let Some(left) = bounds.left(sent) {
        let due = pace.due(sent, Instant::now()).min(left).min(BATCH as u64);
        for _ in 0..due {
            let Some(frame) = io.allocate(0, length) else { break };
            let flow = if random {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (((state >> 32) * u64::from(flows)) >> 32) as u32
            } else {
                let flow = next;
                next = if next + 1 >= flows { 0 } else { next + 1 };
                flow
            };
            template.write(flow, io.memory().bytes_mut(&frame));
            if !io.transmit(0, frame) {
                io.release(frame);
                break;
            }
            sent += 1;
        }
        io.service();
        if due == 0 {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    let deadline = Instant::now() + Duration::from_secs(1);
    while io.tx_pending() && Instant::now() < deadline {
        io.service();
    }
    Ok(sent)
}
