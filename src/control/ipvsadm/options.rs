//! The command line of ipvsadm 1.31: its commands and options, which of them go together, and its words where they do not.
//!
//! Owns what was asked, and every refusal that needs no engine. Names of hosts and ports are looked up by who calls. Pure.

mod legal;
mod spelling;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr};

use super::popt::Options as Cutter;
use super::values::{self, Lookup};
use crate::model::Protocol;
pub use legal::Command;
pub use spelling::Tag;
use spelling::{SPELLINGS, TABLE};

/// Seconds of `-p` without a value (ipvsadm.c's `IPVS_SVC_PERSISTENT_TIMEOUT`; its manual says 300).
pub const PERSISTENT: u32 = 360;

/// Longest time of `-p` and `--set`, in seconds: 31 days.
const MOST_SECONDS: i64 = 31 * 86_400;

/// Why nothing is done: what goes to standard error, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// One or more lines, the last without its newline.
    pub text: String,
    /// Exit code of the program.
    pub code: u8,
    /// Of a line of `-R`: whether the lines behind it are not done either.
    pub ends: bool,
}

impl Stop {
    /// A mistake in what was asked: code 2, and the end.
    pub fn usage(text: impl Into<String>) -> Stop {
        Stop { text: text.into(), code: 2, ends: true }
    }

    /// What was asked cannot be done: code 255.
    pub fn failed(text: impl Into<String>) -> Stop {
        Stop { text: text.into(), code: 255, ends: false }
    }

    /// Where help is to be had: code 255, and the end.
    pub fn help() -> Stop {
        let text = "Try `ipvsadm -h' or 'ipvsadm --help' for more information.";
        Stop { text: text.to_owned(), code: 255, ends: true }
    }
}

/// Granularity of persistence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// Of IPv4: the mask as an address.
    V4(Ipv4Addr),
    /// Of IPv6: leading bits.
    V6(u8),
}

/// The virtual service that is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// By protocol, address and port; port 0 is every port.
    Address(Protocol, IpAddr, u16),
    /// By a firewall mark.
    Mark(u32),
}

/// How packets reach a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forward {
    /// `-g`.
    #[default]
    Route,
    /// `-i`.
    Tunnel,
    /// `-m`.
    Masq,
}

/// Kind of tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TunnelType {
    /// IP in IP.
    #[default]
    Ipip,
    /// Generic UDP encapsulation.
    Gue,
    /// Generic routing encapsulation.
    Gre,
}

/// What was asked, with the defaults of ipvsadm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The command.
    pub command: Command,
    /// The options that were given, by their bits.
    given: u64,
    /// The virtual service.
    pub service: Option<Target>,
    /// `-s`.
    pub scheduler: String,
    /// Scheduler flags, by their names in Evenkeel's configuration.
    pub flags: Vec<&'static str>,
    /// `-p`, in seconds.
    pub persistent: Option<u32>,
    /// `-M`.
    pub mask: Option<Mask>,
    /// `--pe`.
    pub engine: Option<String>,
    /// `-o`.
    pub one_packet: bool,
    /// `-r`: address and port.
    pub server: Option<(IpAddr, u16)>,
    /// `-g`, `-i`, `-m`.
    pub forward: Forward,
    /// `-w`.
    pub weight: u16,
    /// `-x`; 0 is none.
    pub upper: u32,
    /// `-y`; 0 is none.
    pub lower: u32,
    /// `--tun-type`.
    pub tunnel: TunnelType,
    /// `--tun-port`.
    pub tunnel_port: Option<u16>,
    /// `--set`: seconds of tcp, tcpfin and udp; 0 leaves one as it is.
    pub timeouts: [u32; 3],
}

impl Asked {
    /// Whether an option was given.
    pub const fn has(&self, tag: Tag) -> bool {
        self.given & tag.bit() != 0
    }

    fn new(command: Command) -> Asked {
        Asked {
            command,
            given: 0,
            service: None,
            scheduler: String::new(),
            flags: Vec::new(),
            persistent: None,
            mask: None,
            engine: None,
            one_packet: false,
            server: None,
            forward: Forward::default(),
            weight: 1,
            upper: 0,
            lower: 0,
            tunnel: TunnelType::default(),
            tunnel_port: None,
            timeouts: [0; 3],
        }
    }

    fn note(&mut self, tag: Tag) -> Result<(), Stop> {
        if self.has(tag) {
            return Err(Stop::usage(format!("multiple '{}' options specified", tag.name())));
        }
        self.given |= tag.bit();
        Ok(())
    }

    /// Reads the arguments behind the program's name; there is at least one.
    ///
    /// # Errors
    /// [`Stop`], in ipvsadm's words.
    pub fn read(args: &[String], lookup: &Lookup<'_>) -> Result<Asked, Stop> {
        let mut cutter = Cutter::new(&SPELLINGS, args);
        let (tag, value) = cutter.next().and_then(Result::ok).ok_or_else(Stop::help)?;
        let command = tag.command().ok_or_else(Stop::help)?;
        match (command, value) {
            (Command::StartDaemon, Some(state)) if !matches!(state, "master" | "backup") => {
                return Err(Stop::usage("illegal start-daemon parameter specified"));
            }
            (Command::StopDaemon, Some(state)) if !matches!(state, "master" | "backup") => {
                return Err(Stop::usage("illegal start_daemon specified"));
            }
            _ => {}
        }
        let mut asked = Asked::new(command);
        if matches!(command, Command::Help | Command::Version) {
            return Ok(asked);
        }
        let mut flags = None;
        while let Some(option) = cutter.next() {
            let (tag, value) = option.map_err(|bad| Stop::failed(format!("{}: {}", bad.argument, bad.why)))?;
            if tag.command().is_some() {
                return Err(Stop::usage(format!("invalid option `{}'", cutter.last())));
            }
            asked.take(tag, value, lookup, &mut flags)?;
        }
        let mut leftover = cutter.leftover.into_iter();
        if command == Command::Timeout {
            let (Some(tcp), Some(fin), Some(udp)) = (leftover.next(), leftover.next(), leftover.next()) else {
                return Err(Stop::usage("--set option requires 3 timeout values"));
            };
            for (timeout, text) in asked.timeouts.iter_mut().zip([tcp, fin, udp]) {
                *timeout = seconds(text, 0)?;
            }
        }
        if let Some(more) = leftover.next() {
            return Err(Stop::usage(format!("unexpected argument {more}")));
        }
        legal::check(command, asked.given)?;
        asked.complete(flags)?;
        Ok(asked)
    }

    /// Takes one option.
    fn take<'a>(
        &mut self,
        tag: Tag,
        value: Option<&'a str>,
        lookup: &Lookup<'_>,
        flags: &mut Option<&'a str>,
    ) -> Result<(), Stop> {
        let text = value.unwrap_or_default();
        let number = |least, most, what: &str| {
            values::number(text, least, most).ok_or_else(|| Stop::usage(format!("illegal {what} specified")))
        };
        match tag {
            Tag::Sort => return Ok(()),
            Tag::Tcp | Tag::Udp | Tag::Sctp => {
                self.note(Tag::Service)?;
                let protocol = match tag {
                    Tag::Udp => Protocol::Udp,
                    Tag::Sctp => Protocol::Sctp,
                    _ => Protocol::Tcp,
                };
                let end = values::end(text, Some(protocol), lookup)
                    .ok_or_else(|| Stop::usage("illegal virtual server address[:port] specified"))?;
                self.service = Some(Target::Address(protocol, end.address, end.port.unwrap_or(0)));
                if end.address.is_ipv6() {
                    self.mask = None;
                }
                return Ok(());
            }
            Tag::Mark => {
                self.note(Tag::Service)?;
                let mark = values::number(text, 1, i64::from(u32::MAX));
                let mark = mark.and_then(|mark| u32::try_from(mark).ok());
                let mark = mark.ok_or_else(|| Stop::usage(format!("invalid fwmark value `{text}' specified")))?;
                self.service = Some(Target::Mark(mark));
                return Ok(());
            }
            Tag::Ipv6 => {
                return match self.service {
                    Some(Target::Mark(_)) => Ok(()),
                    _ => Err(Stop::usage("-6 used before -f\n")),
                };
            }
            Tag::Route | Tag::Tunnel | Tag::Masq => {
                self.note(Tag::Forward)?;
                self.forward = match tag {
                    Tag::Tunnel => Forward::Tunnel,
                    Tag::Masq => Forward::Masq,
                    _ => Forward::Route,
                };
                return Ok(());
            }
            _ => self.note(tag)?,
        }
        match tag {
            // The kernel's names have 15 characters.
            Tag::Scheduler => self.scheduler = text.chars().take(15).collect(),
            Tag::Persistent => self.persistent = Some(value.map_or(Ok(PERSISTENT), |text| seconds(text, 1))?),
            Tag::Netmask => self.mask = Some(self.mask_of(text, lookup)?),
            Tag::Server => {
                let protocol = match self.service {
                    Some(Target::Address(protocol, ..)) => Some(protocol),
                    _ => None,
                };
                let end = values::end(text, protocol, lookup)
                    .ok_or_else(|| Stop::usage("illegal real server address[:port] specified"))?;
                let of_service = match self.service {
                    Some(Target::Address(_, _, port)) => port,
                    _ => 0,
                };
                self.server = Some((end.address, end.port.unwrap_or(of_service)));
            }
            Tag::Weight => {
                // The kernel takes more; a weight here has 16 bits.
                self.weight = number(0, i64::from(u16::MAX), "weight")? as u16;
            }
            Tag::Upper => self.upper = number(0, i64::from(i32::MAX), "u_threshold")? as u32,
            Tag::Lower => self.lower = number(0, i64::from(i32::MAX), "l_threshold")? as u32,
            Tag::SyncId => drop(number(0, 255, "syncid")?),
            Tag::McastPort => drop(number(1, 65_535, "mcast-port")?),
            Tag::McastTtl => drop(number(1, 255, "mcast-ttl")?),
            Tag::SyncMaxLen => drop(number(1, 65_535 - 20 - 8, "sync-maxlen")?),
            Tag::McastGroup => {
                let family = if text.contains(':') { "IPv6" } else { "IPv4" };
                if !text.parse::<IpAddr>().is_ok_and(|group| group.is_multicast()) {
                    return Err(Stop::usage(format!("invalid {family} mcast-group `{text}'")));
                }
            }
            Tag::OnePacket => self.one_packet = true,
            Tag::Engine => self.engine = Some(text.to_owned()),
            Tag::SchedulerFlags => *flags = Some(text),
            Tag::TunnelType => {
                self.tunnel = match text {
                    "ipip" => TunnelType::Ipip,
                    "gue" => TunnelType::Gue,
                    "gre" => TunnelType::Gre,
                    _ => return Err(Stop::usage("illegal tunnel type specified")),
                };
            }
            Tag::TunnelPort => self.tunnel_port = Some(number(1, 65_535, "tunnel port")? as u16),
            _ => {}
        }
        Ok(())
    }

    /// `-M`: of the family that the service has so far.
    fn mask_of(&self, text: &str, lookup: &Lookup<'_>) -> Result<Mask, Stop> {
        if let Some(Target::Address(_, IpAddr::V6(_), _)) = self.service {
            let bits = values::number(text, 1, 128).and_then(|bits| u8::try_from(bits).ok());
            return bits.map(Mask::V6).ok_or_else(|| Stop::usage("illegal ipv6 netmask specified"));
        }
        let mask = values::dotted(text).or_else(|| (lookup.host)(text));
        mask.map(Mask::V4).ok_or_else(|| Stop::usage("illegal virtual server persistent mask specified"))
    }

    /// What only makes sense, or not, when all is known.
    fn complete(&mut self, flags: Option<&str>) -> Result<(), Stop> {
        match self.command {
            Command::Add | Command::Edit => self.complete_service(flags),
            Command::AddServer | Command::EditServer => self.complete_server(),
            Command::List => self.complete_list(),
            _ => Ok(()),
        }
    }

    fn complete_service(&mut self, flags: Option<&str>) -> Result<(), Stop> {
        if let Some(Target::Address(protocol, _, port)) = self.service {
            if port == 0 && self.persistent.is_none() {
                return Err(Stop::usage("Zero port specified for non-persistent service"));
            }
            if self.one_packet && protocol != Protocol::Udp {
                return Err(Stop::usage("One-Packet Scheduling is only for UDP virtual services"));
            }
        }
        if self.scheduler.is_empty() {
            self.scheduler = "wlc".to_owned();
        }
        self.flags = values::scheduler_flags(&self.scheduler, flags.unwrap_or_default()).map_err(Stop::usage)?;
        Ok(())
    }

    fn complete_server(&mut self) -> Result<(), Stop> {
        if let (Some(Target::Address(_, address, port)), Some(server)) = (self.service, &mut self.server) {
            if self.forward != Forward::Masq {
                server.1 = port;
                if address.is_ipv4() != server.0.is_ipv4() && self.forward != Forward::Tunnel {
                    let text = "Different address family is allowed only for tunneling servers";
                    return Err(Stop::usage(text));
                }
            } else if address.is_ipv4() != server.0.is_ipv4() {
                return Err(Stop::usage("Different address family is allowed only for tunneling servers"));
            }
        }
        let any = [Tag::TunnelType, Tag::TunnelPort, Tag::NoChecksum, Tag::Checksum, Tag::RemoteChecksum];
        if any.into_iter().any(|tag| self.has(tag)) && self.forward != Forward::Tunnel {
            return Err(Stop::usage("Tunnel options conflict with forward method"));
        }
        legal::check_tunnel(self.tunnel, self.given)
    }

    fn complete_list(&self) -> Result<(), Stop> {
        let any = |tags: &[Tag]| tags.iter().any(|tag| self.has(*tag));
        let other = any(&[Tag::Connection, Tag::Timeout, Tag::Daemon]);
        let counted = any(&[Tag::Stats, Tag::Rate, Tag::Thresholds]);
        let plain = any(&[Tag::Timeout, Tag::Daemon]);
        if other && counted || plain && self.has(Tag::PersistentConn) {
            return Err(Stop::usage("options conflicts in the list command"));
        }
        Ok(())
    }
}

fn seconds(text: &str, least: i64) -> Result<u32, Stop> {
    let value = values::number(text, least, MOST_SECONDS).and_then(|value| u32::try_from(value).ok());
    value.ok_or_else(|| Stop::usage(format!("invalid timeout value `{text}' specified")))
}

/// All options that have a bit, in the order in which ipvsadm checks them.
fn all_tags() -> impl Iterator<Item = Tag> {
    TABLE.iter().map(|(tag, _)| *tag)
}
