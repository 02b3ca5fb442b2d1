//! How commands and options of ipvsadm are written, and what its messages call them. Pure.

use super::legal::Command;
use crate::control::ipvsadm::popt::{Spelling, Takes};

/// A command or an option. Those with a bit are checked against the command; the others are spellings of such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// A command.
    Command(Command),
    /// `-n`.
    Numeric,
    /// `-c`.
    Connection,
    /// One of `-t`, `-u`, `--sctp-service`, `-f`.
    Service,
    /// `-s`.
    Scheduler,
    /// `-p`.
    Persistent,
    /// `-M`.
    Netmask,
    /// `-r`.
    Server,
    /// One of `-g`, `-i`, `-m`.
    Forward,
    /// `-w`.
    Weight,
    /// `-x`.
    Upper,
    /// `-y`.
    Lower,
    /// `--mcast-interface`.
    McastInterface,
    /// `--timeout`.
    Timeout,
    /// `--daemon`.
    Daemon,
    /// `--stats`.
    Stats,
    /// `--rate`.
    Rate,
    /// `--thresholds`.
    Thresholds,
    /// `--persistent-conn`.
    PersistentConn,
    /// `--nosort`.
    NoSort,
    /// `--syncid`.
    SyncId,
    /// `--exact`.
    Exact,
    /// `-o`.
    OnePacket,
    /// `--pe`.
    Engine,
    /// `-b`.
    SchedulerFlags,
    /// `--mcast-group`.
    McastGroup,
    /// `--mcast-port`.
    McastPort,
    /// `--mcast-ttl`.
    McastTtl,
    /// `--sync-maxlen`.
    SyncMaxLen,
    /// `--tun-info`.
    TunnelInfo,
    /// `--tun-type`.
    TunnelType,
    /// `--tun-port`.
    TunnelPort,
    /// `--tun-nocsum`.
    NoChecksum,
    /// `--tun-csum`.
    Checksum,
    /// `--tun-remcsum`.
    RemoteChecksum,
    /// `-t`.
    Tcp,
    /// `-u`.
    Udp,
    /// `--sctp-service`.
    Sctp,
    /// `-f`.
    Mark,
    /// `-6`.
    Ipv6,
    /// `-g`.
    Route,
    /// `-i`.
    Tunnel,
    /// `-m`.
    Masq,
    /// `--sort`: does nothing.
    Sort,
}

/// The options with a bit, in the order of their bits, and what messages call them.
pub(super) const TABLE: [(Tag, &str); 34] = [
    (Tag::Numeric, "numeric"),
    (Tag::Connection, "connection"),
    (Tag::Service, "service-address"),
    (Tag::Scheduler, "scheduler"),
    (Tag::Persistent, "persistent"),
    (Tag::Netmask, "netmask"),
    (Tag::Server, "real-server"),
    (Tag::Forward, "forwarding-method"),
    (Tag::Weight, "weight"),
    (Tag::Upper, "u-threshold"),
    (Tag::Lower, "l-threshold"),
    (Tag::McastInterface, "mcast-interface"),
    (Tag::Timeout, "timeout"),
    (Tag::Daemon, "daemon"),
    (Tag::Stats, "stats"),
    (Tag::Rate, "rate"),
    (Tag::Thresholds, "thresholds"),
    (Tag::PersistentConn, "persistent-conn"),
    (Tag::NoSort, "nosort"),
    (Tag::SyncId, "syncid"),
    (Tag::Exact, "exact"),
    (Tag::OnePacket, "ops"),
    (Tag::Engine, "pe"),
    (Tag::SchedulerFlags, "sched-flags"),
    (Tag::McastGroup, "mcast-group"),
    (Tag::McastPort, "mcast-port"),
    (Tag::McastTtl, "mcast-ttl"),
    (Tag::SyncMaxLen, "sync-maxlen"),
    (Tag::TunnelInfo, "tun-info"),
    (Tag::TunnelType, "tun-type"),
    (Tag::TunnelPort, "tun-port"),
    (Tag::NoChecksum, "tun-nocsum"),
    (Tag::Checksum, "tun-csum"),
    (Tag::RemoteChecksum, "tun-remcsum"),
];

impl Tag {
    /// The command that it is.
    pub const fn command(self) -> Option<Command> {
        match self {
            Tag::Command(command) => Some(command),
            _ => None,
        }
    }

    /// Its bit; 0 where it has none.
    pub const fn bit(self) -> u64 {
        match self.place() {
            Some(place) => 1 << place,
            None => 0,
        }
    }

    /// Its place in the table.
    const fn place(self) -> Option<u32> {
        Some(match self {
            Tag::Numeric => 0,
            Tag::Connection => 1,
            Tag::Service => 2,
            Tag::Scheduler => 3,
            Tag::Persistent => 4,
            Tag::Netmask => 5,
            Tag::Server => 6,
            Tag::Forward => 7,
            Tag::Weight => 8,
            Tag::Upper => 9,
            Tag::Lower => 10,
            Tag::McastInterface => 11,
            Tag::Timeout => 12,
            Tag::Daemon => 13,
            Tag::Stats => 14,
            Tag::Rate => 15,
            Tag::Thresholds => 16,
            Tag::PersistentConn => 17,
            Tag::NoSort => 18,
            Tag::SyncId => 19,
            Tag::Exact => 20,
            Tag::OnePacket => 21,
            Tag::Engine => 22,
            Tag::SchedulerFlags => 23,
            Tag::McastGroup => 24,
            Tag::McastPort => 25,
            Tag::McastTtl => 26,
            Tag::SyncMaxLen => 27,
            Tag::TunnelInfo => 28,
            Tag::TunnelType => 29,
            Tag::TunnelPort => 30,
            Tag::NoChecksum => 31,
            Tag::Checksum => 32,
            Tag::RemoteChecksum => 33,
            _ => return None,
        })
    }

    /// What messages call it; empty where it has no bit.
    pub fn name(self) -> &'static str {
        TABLE.iter().find(|(tag, _)| *tag == self).map_or("", |(_, name)| name)
    }
}

const fn plain(long: &'static str, short: char, tag: Tag) -> Spelling<Tag> {
    Spelling { long, short, takes: Takes::Nothing, tag }
}

const fn valued(long: &'static str, short: char, tag: Tag) -> Spelling<Tag> {
    Spelling { long, short, takes: Takes::Value, tag }
}

const fn command(long: &'static str, short: char, command: Command) -> Spelling<Tag> {
    plain(long, short, Tag::Command(command))
}

/// Every spelling.
pub(super) const SPELLINGS: [Spelling<Tag>; 58] = [
    command("add-service", 'A', Command::Add),
    command("edit-service", 'E', Command::Edit),
    command("delete-service", 'D', Command::Delete),
    command("clear", 'C', Command::Clear),
    command("list", 'L', Command::List),
    command("list", 'l', Command::List),
    command("zero", 'Z', Command::Zero),
    command("add-server", 'a', Command::AddServer),
    command("edit-server", 'e', Command::EditServer),
    command("delete-server", 'd', Command::DeleteServer),
    command("set", '\0', Command::Timeout),
    command("help", 'h', Command::Help),
    command("version", 'v', Command::Version),
    command("restore", 'R', Command::Restore),
    command("save", 'S', Command::Save),
    valued("start-daemon", '\0', Tag::Command(Command::StartDaemon)),
    valued("stop-daemon", '\0', Tag::Command(Command::StopDaemon)),
    valued("tcp-service", 't', Tag::Tcp),
    valued("udp-service", 'u', Tag::Udp),
    valued("sctp-service", '\0', Tag::Sctp),
    valued("fwmark-service", 'f', Tag::Mark),
    valued("scheduler", 's', Tag::Scheduler),
    Spelling { long: "persistent", short: 'p', takes: Takes::MaybeValue, tag: Tag::Persistent },
    valued("netmask", 'M', Tag::Netmask),
    valued("real-server", 'r', Tag::Server),
    plain("masquerading", 'm', Tag::Masq),
    plain("ipip", 'i', Tag::Tunnel),
    plain("gatewaying", 'g', Tag::Route),
    valued("weight", 'w', Tag::Weight),
    valued("u-threshold", 'x', Tag::Upper),
    valued("l-threshold", 'y', Tag::Lower),
    plain("numeric", 'n', Tag::Numeric),
    plain("connection", 'c', Tag::Connection),
    valued("mcast-interface", '\0', Tag::McastInterface),
    valued("syncid", '\0', Tag::SyncId),
    plain("timeout", '\0', Tag::Timeout),
    plain("daemon", '\0', Tag::Daemon),
    plain("stats", '\0', Tag::Stats),
    plain("rate", '\0', Tag::Rate),
    plain("thresholds", '\0', Tag::Thresholds),
    plain("persistent-conn", '\0', Tag::PersistentConn),
    plain("nosort", '\0', Tag::NoSort),
    plain("sort", '\0', Tag::Sort),
    plain("exact", 'X', Tag::Exact),
    plain("ipv6", '6', Tag::Ipv6),
    plain("ops", 'o', Tag::OnePacket),
    valued("pe", '\0', Tag::Engine),
    valued("sched-flags", 'b', Tag::SchedulerFlags),
    valued("mcast-group", '\0', Tag::McastGroup),
    valued("mcast-port", '\0', Tag::McastPort),
    valued("mcast-ttl", '\0', Tag::McastTtl),
    valued("sync-maxlen", '\0', Tag::SyncMaxLen),
    plain("tun-info", '\0', Tag::TunnelInfo),
    valued("tun-type", '\0', Tag::TunnelType),
    valued("tun-port", '\0', Tag::TunnelPort),
    plain("tun-nocsum", '\0', Tag::NoChecksum),
    plain("tun-csum", '\0', Tag::Checksum),
    plain("tun-remcsum", '\0', Tag::RemoteChecksum),
];
