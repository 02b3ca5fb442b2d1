//! Questions to the kernel about an interface: the device and ethtool ioctls.
//!
//! Owns the calls and their layouts (`include/uapi/linux/ethtool.h`, `include/uapi/linux/if.h`). Never keeps state.
//! An interface is looked up in the network namespace of the calling thread, when the [`Control`] is made.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 0x3;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// The legacy getters of one value: `struct ethtool_value`.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Getter {
    /// `ETHTOOL_GLINK`: the carrier.
    Link = 0xa,
    /// `ETHTOOL_GTXCSUM`: transmit checksums are computed below the kernel.
    TxChecksum = 0x16,
    /// `ETHTOOL_GTSO`.
    Tso = 0x1e,
    /// `ETHTOOL_GGRO`.
    Gro = 0x2b,
    /// `ETHTOOL_GFLAGS`: bit 8 receive VLAN offload, bit 15 LRO.
    Flags = 0x25,
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Channels {
    cmd: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    pub(crate) rx: u32,
    pub(crate) tx: u32,
    other: u32,
    pub(crate) combined: u32,
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    cmd: u32,
    data: u32,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    rom: [u8; 32],
    reserved: [u8; 12],
    flags: [u32; 5],
}

/// An open door to the ioctls of one interface.
#[derive(Debug)]
pub(crate) struct Control {
    socket: OwnedFd,
    name: [libc::c_char; libc::IFNAMSIZ],
}

impl Control {
    /// # Errors
    /// `EINVAL` for a name that no interface can have; no more sockets.
    pub(crate) fn new(interface: &str) -> io::Result<Control> {
        if interface.is_empty() || interface.len() >= libc::IFNAMSIZ || interface.contains('\0') {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut name = [0; libc::IFNAMSIZ];
        for (to, from) in name.iter_mut().zip(interface.bytes()) {
            *to = from as libc::c_char;
        }
        // SAFETY: no pointers; the result is checked before it becomes a descriptor.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor, nobody else has it.
        Ok(Control { socket: unsafe { OwnedFd::from_raw_fd(fd) }, name })
    }

    fn request(&self) -> libc::ifreq {
        // SAFETY: zero is a value of every member.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_name = self.name;
        request
    }

    fn call(&self, code: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: all codes used here take a `struct ifreq`, which lives across the call; where it holds a pointer
        // (`SIOCETHTOOL`), `ethtool` vouches for it.
        let done = unsafe { libc::ioctl(self.socket.as_raw_fd(), code as _, std::ptr::from_mut(request)) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn ethtool<T>(&self, command: &mut T) -> io::Result<()> {
        let mut request = self.request();
        request.ifr_ifru.ifru_data = std::ptr::from_mut(command).cast();
        self.call(SIOCETHTOOL, &mut request)
    }

    /// Bytes of a packet that the link takes, without the Ethernet header.
    pub(crate) fn mtu(&self) -> io::Result<u32> {
        let mut request = self.request();
        self.call(libc::SIOCGIFMTU as libc::c_ulong, &mut request)?;
        // SAFETY: the kernel filled this member of the union.
        Ok(unsafe { request.ifr_ifru.ifru_mtu }.cast_unsigned())
    }

    /// The hardware type (`ARPHRD_*`) and the Ethernet address.
    pub(crate) fn hardware(&self) -> io::Result<(u16, [u8; 6])> {
        let mut request = self.request();
        self.call(libc::SIOCGIFHWADDR as libc::c_ulong, &mut request)?;
        // SAFETY: the kernel filled this member of the union.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        let mut mac = [0; 6];
        for (to, from) in mac.iter_mut().zip(address.sa_data) {
            *to = from as u8;
        }
        Ok((address.sa_family, mac))
    }

    /// `IFF_*` flags.
    pub(crate) fn flags(&self) -> io::Result<u32> {
        let mut request = self.request();
        self.call(libc::SIOCGIFFLAGS as libc::c_ulong, &mut request)?;
        // SAFETY: the kernel filled this member of the union.
        Ok(u32::from(unsafe { request.ifr_ifru.ifru_flags }.cast_unsigned()))
    }

    /// The driver's name.
    pub(crate) fn driver(&self) -> io::Result<String> {
        let mut info = DriverInfo {
            cmd: ETHTOOL_GDRVINFO,
            driver: [0; 32],
            version: [0; 32],
            firmware: [0; 32],
            bus: [0; 32],
            rom: [0; 32],
            reserved: [0; 12],
            flags: [0; 5],
        };
        self.ethtool(&mut info)?;
        let end = info.driver.iter().position(|&byte| byte == 0).unwrap_or(info.driver.len());
        Ok(String::from_utf8_lossy(&info.driver[..end]).into_owned())
    }

    /// The numbers of queues in use.
    pub(crate) fn channels(&self) -> io::Result<Channels> {
        let mut channels = Channels { cmd: ETHTOOL_GCHANNELS, ..Channels::default() };
        self.ethtool(&mut channels)?;
        Ok(channels)
    }

    /// One legacy offload value.
    pub(crate) fn get(&self, getter: Getter) -> io::Result<u32> {
        let mut value = Value { cmd: getter as u32, data: 0 };
        self.ethtool(&mut value)?;
        Ok(value.data)
    }
}

const _: () = assert!(size_of::<DriverInfo>() == 196 && size_of::<Channels>() == 36 && size_of::<Value>() == 8);
