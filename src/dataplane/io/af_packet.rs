//! Frame I/O over AF_PACKET sockets: the fallback where XDP cannot be had.
//!
//! Owns one raw socket for each interface and frames on the heap. Never touches the kernel's own copy of a frame: the
//! kernel sees everything too, so frames that are not ours are simply ignored, and routing them must be off
//! (`net.ipv4.ip_forward=0`) or the kernel would forward what we forward.
//!
//! The sockets see all queues of an interface at once, so there is one worker at most.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use pnet::datalink::{self, Channel, Config, DataLinkReceiver, DataLinkSender};

use super::memory::HeapMemory;
use super::xsk::{FrameAccount, packet, sys};
use super::{BATCH, Frame, FrameMemory, IoStats, PacketIo, PortIndex};
use crate::dataplane::xdp::{Fate, Matcher};

/// Bytes that the kernel may queue for a socket.
const RECEIVE_BUFFER: i32 = 8 << 20;

/// An interface for the fallback.
#[derive(Clone, Debug)]
pub struct PacketBinding {
    /// The engine's index of the interface; they count from 0 without gaps.
    pub port: PortIndex,
    /// Kernel name, in the network namespace of the calling thread.
    pub name: String,
    /// What is ours on this interface; swapped by whoever decides that.
    pub matcher: Arc<ArcSwap<Matcher>>,
    /// Where frames are counted whose senders the access lists deny.
    pub denied: Arc<AtomicU64>,
}

/// Why there is no AF_PACKET socket.
#[derive(Debug, thiserror::Error)]
pub enum AfPacketError {
    /// There is no such interface.
    #[error("{0}: there is no such interface")]
    NoInterface(String),
    /// A socket was refused.
    #[error("{interface}: no AF_PACKET socket (needs root or CAP_NET_RAW)")]
    Socket {
        /// Interface name.
        interface: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

struct Port {
    port: PortIndex,
    socket: OwnedFd,
    matcher: Arc<ArcSwap<Matcher>>,
    denied: Arc<AtomicU64>,
    sender: Box<dyn DataLinkSender>,
    // Only keeps pnet's half of the channel: reception needs the auxiliary data that pnet does not hand out.
    _receiver: Box<dyn DataLinkReceiver>,
}

/// AF_PACKET sockets of the one worker.
pub struct AfPacketIo {
    ports: Vec<Port>,
    memory: HeapMemory,
    poll: Vec<libc::pollfd>,
    next: usize,
    partial_checksums: u64,
    stats: IoStats,
}

impl AfPacketIo {
    /// Opens a socket for each interface, with `frames` frames of `frame_size` bytes for all of them.
    ///
    /// # Errors
    /// [`AfPacketError`].
    pub fn open(bindings: &[PacketBinding], frames: u32, frame_size: u32) -> Result<AfPacketIo, AfPacketError> {
        let interfaces = datalink::interfaces();
        let mut ports = Vec::new();
        for binding in bindings {
            let error = |source| AfPacketError::Socket { interface: binding.name.clone(), source };
            let interface = interfaces
                .iter()
                .find(|interface| interface.name == binding.name)
                .ok_or_else(|| AfPacketError::NoInterface(binding.name.clone()))?;
            let socket = packet::receiver(RECEIVE_BUFFER).map_err(error)?;
            let ours = socket.try_clone().map_err(error)?;
            let config = Config {
                promiscuous: false,
                // The channel owns this descriptor from here on, also when it fails.
                socket_fd: Some(socket.into_raw_fd()),
                write_timeout: Some(Duration::from_millis(1)),
                ..Config::default()
            };
            let (sender, receiver) = match datalink::channel(interface, config).map_err(error)? {
                Channel::Ethernet(sender, receiver) => (sender, receiver),
                _ => return Err(error(io::Error::from(io::ErrorKind::Unsupported))),
            };
            let (matcher, denied) = (Arc::clone(&binding.matcher), Arc::clone(&binding.denied));
            ports.push(Port { port: binding.port, socket: ours, matcher, denied, sender, _receiver: receiver });
        }
        ports.sort_by_key(|port| port.port);
        let poll = ports.iter().map(|port| sys::readable(port.socket.as_fd())).chain([sys::NOTHING]).collect();
        Ok(AfPacketIo {
            ports,
            memory: HeapMemory::new(frames, frame_size),
            poll,
            next: 0,
            partial_checksums: 0,
            stats: IoStats::default(),
        })
    }

    /// Frames of ours whose transport checksum the sender left to hardware that is not there. Forwarded as they are,
    /// their receivers drop them.
    pub fn partial_checksums(&self) -> u64 {
        self.partial_checksums
    }

    /// Where all frames are.
    pub fn frames_accounted(&self) -> FrameAccount {
        FrameAccount {
            free: self.memory.free() as u64,
            rx: 0,
            held: self.memory.held,
            tx: 0,
            total: self.memory.frames() as u64,
        }
    }

    /// Receives frames of one port into `out`; ignores at most a batch of others, so that the other ports have a turn.
    fn receive_from(&mut self, index: usize, out: &mut [Frame]) -> usize {
        let port = &self.ports[index];
        let matcher = port.matcher.load();
        let mut filled = 0;
        for _ in 0..out.len().max(BATCH) {
            if filled == out.len() {
                break;
            }
            let Some(mut frame) = self.memory.take(port.port) else { break };
            let received = packet::receive(port.socket.as_fd(), self.memory.bytes_mut(&frame));
            let Ok(Some(received)) = received else {
                self.memory.give(frame.addr);
                break;
            };
            if received.len > frame.len as usize {
                self.stats.rx_ring_drops += 1;
                self.memory.give(frame.addr);
                continue;
            }
            frame.len = received.len as u32;
            if let Some((protocol, tag)) = received.vlan {
                frame.addr -= 4;
                frame.len += 4;
                put_tag(self.memory.bytes_mut(&frame), protocol, tag);
            }
            let fate = matcher.fate(self.memory.bytes(&frame));
            if fate != Fate::Taken {
                if fate == Fate::Denied {
                    port.denied.fetch_add(1, Ordering::Relaxed);
                }
                self.memory.give(frame.addr);
                continue;
            }
            self.partial_checksums += u64::from(received.partial_checksum);
            self.stats.rx_bytes += u64::from(frame.len);
            out[filled] = frame;
            filled += 1;
        }
        filled
    }
}

/// Puts a VLAN tag back: `bytes` begins with four free bytes, before the addresses.
fn put_tag(bytes: &mut [u8], protocol: u16, tag: u16) {
    if bytes.len() < 16 {
        return;
    }
    bytes.copy_within(4..16, 0);
    bytes[12..14].copy_from_slice(&protocol.to_be_bytes());
    bytes[14..16].copy_from_slice(&tag.to_be_bytes());
}

impl PacketIo for AfPacketIo {
    type Memory = HeapMemory;

    fn memory(&mut self) -> &mut HeapMemory {
        &mut self.memory
    }

    fn receive(&mut self, out: &mut [Frame]) -> usize {
        let count = self.ports.len();
        let mut filled = 0;
        for _ in 0..count {
            let index = self.next;
            self.next = if index + 1 == count { 0 } else { index + 1 };
            filled += self.receive_from(index, &mut out[filled..]);
            if filled == out.len() {
                break;
            }
        }
        self.stats.rx_frames += filled as u64;
        self.memory.held += filled as u64;
        filled
    }

    fn transmit(&mut self, port: PortIndex, frame: Frame) -> bool {
        let Some(to) = self.ports.get_mut(usize::from(port)) else {
            self.stats.tx_full += 1;
            return false;
        };
        self.stats.tx_kicks += 1;
        match to.sender.send_to(self.memory.bytes(&frame), None) {
            Some(Ok(())) => {
                self.stats.tx_frames += 1;
                self.stats.tx_bytes += u64::from(frame.len);
                self.release(frame);
                true
            }
            _ => {
                self.stats.tx_full += 1;
                false
            }
        }
    }

    fn pass(&mut self, frame: Frame) -> bool {
        // The kernel has had its own copy from the start.
        self.stats.passed += 1;
        self.release(frame);
        true
    }

    fn release(&mut self, frame: Frame) {
        self.memory.give_back(frame);
    }

    fn service(&mut self) {
        debug_assert!(self.frames_accounted().balanced(), "{:?}", self.frames_accounted());
    }

    fn wait(&mut self, timeout: Duration, bell: Option<BorrowedFd<'_>>) {
        self.stats.rx_wakeups += 1;
        sys::wait_for(&mut self.poll, bell, timeout);
    }

    fn tx_pending(&self) -> bool {
        false
    }

    fn stats(&mut self) -> IoStats {
        // Counted before the matcher: some of these were never ours.
        let dropped: u64 = self.ports.iter().map(|port| packet::take_drops(port.socket.as_fd())).sum();
        self.stats.rx_ring_drops += dropped;
        self.stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_goes_between_the_addresses_and_the_type() {
        let mut bytes: Vec<u8> = [0; 4].into_iter().chain(1..=14).collect();
        put_tag(&mut bytes, 0x88a8, 0x0fff);
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x88, 0xa8, 0x0f, 0xff, 13, 14]);
    }
}
