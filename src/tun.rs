//! A TUN device: packets that are written to it arrive in this machine's kernel, and what the kernel routes to it is read.
//!
//! Owns the one system call for which neither the standard library nor a crate at hand has a safe form. The device goes
//! with the last descriptor of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

const CLONE_DEVICE: &str = "/dev/net/tun";

nix::ioctl_write_ptr_bad!(
    /// Gives an open clone device its interface.
    set_interface,
    libc::TUNSETIFF,
    libc::ifreq
);

/// A TUN device of this process.
#[derive(Debug)]
pub struct Tun {
    file: File,
}

impl Tun {
    /// Creates the device, still down. Needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// What the kernel says; a name that no interface can have.
    pub fn create(name: &str) -> io::Result<Tun> {
        if name.is_empty()
            || name.len() >= libc::IFNAMSIZ
            || name.contains(['/', '%', ' '])
            || name == "."
            || name == ".."
        {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no interface can have this name"));
        }
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(CLONE_DEVICE)?;
        let mut request = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_flags: (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_TUN_EXCL) as libc::c_short,
            },
        };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        // SAFETY: the descriptor is open, and the request is a whole `struct ifreq` that lives through the call; the
        // kernel reads the name, which ends in a zero byte, and the flags, and keeps no pointer.
        unsafe { set_interface(file.as_raw_fd(), &raw const request) }?;
        Ok(Tun { file })
    }

    /// Lets a packet (from its IP header on) arrive.
    ///
    /// # Errors
    /// The kernel does not take it: no IP packet, or the device is down.
    pub fn write(&self, packet: &[u8]) -> io::Result<()> {
        (&self.file).write(packet).map(drop)
    }
    /// Takes the next packet (from its IP header on) that the kernel sends by the device, with its checksums; never waits. What
    /// does not fit is cut.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: none waits. Else what the kernel says: the device is down.
    pub fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(into)
    }
}

impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}
