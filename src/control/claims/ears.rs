//! The packet socket by which the engine asks who else answers for a service address, and hears who does.
//!
//! Owns the socket. It takes nothing but answers to such questions, waits for nothing, and knows nothing of services.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{LinkAddr, MsgFlags, recv, sendto};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::answer;
use crate::model::MacAddr;

/// Most answers that one turn looks at.
const MOST: usize = 512;

/// `linux/bpf_common.h`.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// The socket.
#[derive(Debug)]
pub struct Ears {
    socket: Socket,
}

impl Ears {
    /// Opens it, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's word; without `CAP_NET_RAW` there is no such socket.
    pub fn open() -> io::Result<Ears> {
        let arp = Protocol::from(i32::from((libc::ETH_P_ARP as u16).to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(arp))?;
        socket.attach_filter(&answers_to_nobody())?;
        // What came before the filter was there is read again as what it is.
        Ok(Ears { socket })
    }

    /// Sends frames by interfaces, by their kernel indices. What cannot be sent is asked again in the next round.
    ///
    /// # Errors
    /// The interfaces cannot be listed.
    pub fn ask(&self, frames: &[(u32, Vec<u8>)]) -> io::Result<()> {
        if frames.is_empty() {
            return Ok(());
        }
        let mut links: HashMap<usize, LinkAddr> = HashMap::new();
        for entry in getifaddrs()? {
            if let Some(link) = entry.address.and_then(|address| address.as_link_addr().copied()) {
                links.insert(link.ifindex(), link);
            }
        }
        for (index, frame) in frames {
            if let Some(link) = links.get(&(*index as usize)) {
                let _ = sendto(self.socket.as_raw_fd(), frame, link, MsgFlags::MSG_DONTWAIT);
            }
        }
        Ok(())
    }

    /// What was answered since the last time: addresses, and who says that he has them.
    pub fn hear(&self) -> Vec<(Ipv4Addr, MacAddr)> {
        let mut all = Vec::new();
        let mut buffer = [0; 128];
        for _ in 0..MOST {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => all.extend(buffer.get(..length).and_then(answer)),
                Err(Errno::EINTR) => {}
                // Nothing waits; or an interface went down, which is told once and forgotten.
                Err(_) => break,
            }
        }
        all
    }
}

/// ARP replies whose target is nobody's address, by the bytes of an untagged frame: the kernel takes tags off before.
fn answers_to_nobody() -> [SockFilter; 6] {
    [
        SockFilter::new(LOAD_HALF, 0, 0, 20),
        SockFilter::new(EQUAL, 0, 3, 2),
        SockFilter::new(LOAD_WORD, 0, 0, 38),
        SockFilter::new(EQUAL, 0, 1, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}
