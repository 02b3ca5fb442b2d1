//! Which options go with which command, and with which kind of tunnel; the order of the checks is ipvsadm's. Pure.

use super::spelling::Tag;
use super::{Stop, TunnelType, all_tags};

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `-A`.
    Add,
    /// `-E`.
    Edit,
    /// `-D`.
    Delete,
    /// `-C`.
    Clear,
    /// `-L`, `-l`.
    List,
    /// `-a`.
    AddServer,
    /// `-d`.
    DeleteServer,
    /// `-e`.
    EditServer,
    /// `--set`.
    Timeout,
    /// `--start-daemon`.
    StartDaemon,
    /// `--stop-daemon`.
    StopDaemon,
    /// `-R`.
    Restore,
    /// `-S`.
    Save,
    /// `-Z`.
    Zero,
    /// `-h`.
    Help,
    /// `-v`.
    Version,
}

/// Whether an option goes with something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// It must be there.
    Needed,
    /// It may not.
    Illegal,
    /// At most one of these.
    OneOf,
    /// It may.
    Free,
}

impl Command {
    /// What messages call it.
    const fn name(self) -> &'static str {
        match self {
            Command::Add => "add-service",
            Command::Edit => "edit-service",
            Command::Delete => "delete-service",
            Command::Clear => "flush",
            Command::List => "list",
            Command::AddServer => "add-server",
            Command::DeleteServer => "delete-server",
            Command::EditServer => "edit-server",
            Command::Timeout => "set",
            Command::StartDaemon => "start-daemon",
            Command::StopDaemon => "stop-daemon",
            Command::Restore => "restore",
            Command::Save => "save",
            Command::Zero => "zero",
            Command::Help => "help",
            Command::Version => "version",
        }
    }

    const fn rule(self, tag: Tag) -> Rule {
        match (self, tag) {
            (Command::Add | Command::Edit | Command::Delete, Tag::Service)
            | (Command::AddServer | Command::EditServer | Command::DeleteServer, Tag::Service | Tag::Server) => {
                Rule::Needed
            }
            (Command::List, Tag::Connection | Tag::Service | Tag::Timeout | Tag::Daemon) => Rule::OneOf,
            (
                Command::Add | Command::Edit,
                Tag::Scheduler | Tag::Persistent | Tag::Netmask | Tag::OnePacket | Tag::Engine | Tag::SchedulerFlags,
            )
            | (
                Command::List,
                Tag::Numeric
                | Tag::Stats
                | Tag::Rate
                | Tag::Thresholds
                | Tag::PersistentConn
                | Tag::NoSort
                | Tag::SyncId
                | Tag::Exact
                | Tag::TunnelInfo,
            )
            | (
                Command::AddServer | Command::EditServer,
                Tag::Forward
                | Tag::Weight
                | Tag::Upper
                | Tag::Lower
                | Tag::TunnelType
                | Tag::TunnelPort
                | Tag::NoChecksum
                | Tag::Checksum
                | Tag::RemoteChecksum,
            )
            | (
                Command::StartDaemon,
                Tag::McastInterface | Tag::SyncId | Tag::McastGroup | Tag::McastPort | Tag::McastTtl | Tag::SyncMaxLen,
            )
            | (Command::StopDaemon, Tag::SyncId)
            | (Command::Save, Tag::Numeric)
            | (Command::Zero, Tag::Service)
            | (Command::Help | Command::Version, _) => Rule::Free,
            _ => Rule::Illegal,
        }
    }
}

/// Checks the options that were given, by their bits, against the command.
pub(super) fn check(command: Command, given: u64) -> Result<(), Stop> {
    against(all_tags(), given, |tag| command.rule(tag), &format!("'{}' command", command.name()))
}

/// Checks the options of a tunnel against its kind.
pub(super) fn check_tunnel(kind: TunnelType, given: u64) -> Result<(), Stop> {
    let rule = |tag| match (kind, tag) {
        (TunnelType::Gue, Tag::TunnelPort) => Rule::Needed,
        (TunnelType::Gue, _) | (TunnelType::Gre, Tag::NoChecksum | Tag::Checksum) => Rule::OneOf,
        _ => Rule::Illegal,
    };
    let name = match kind {
        TunnelType::Ipip => "ipip",
        TunnelType::Gue => "gue",
        TunnelType::Gre => "gre",
    };
    let tags = [Tag::TunnelPort, Tag::NoChecksum, Tag::Checksum, Tag::RemoteChecksum];
    against(tags.into_iter(), given, rule, &format!("'{name}' tunnel type"))
}

fn against(tags: impl Iterator<Item = Tag>, given: u64, rule: impl Fn(Tag) -> Rule, what: &str) -> Result<(), Stop> {
    let mut one: Option<Tag> = None;
    for tag in tags {
        let name = tag.name();
        match (rule(tag), given & tag.bit() != 0) {
            (Rule::Needed, false) => {
                return Err(Stop::usage(format!("You need to supply the '{name}' option for the {what}")));
            }
            (Rule::Illegal, true) => return Err(Stop::usage(format!("Illegal '{name}' option with the {what}"))),
            (Rule::OneOf, true) => match one {
                None => one = Some(tag),
                Some(other) => {
                    let text =
                        format!("The option '{name}' conflicts with the '{}' option in the {what}", other.name());
                    return Err(Stop::usage(text));
                }
            },
            _ => {}
        }
    }
    Ok(())
}
