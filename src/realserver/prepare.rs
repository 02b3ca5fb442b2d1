//! `evenkeel realserver prepare`: makes this machine a real server for direct routing or a tunnel.
//!
//! Owns the command's arguments and the doing. What is to be done is [`super::wanted`]'s; what was before is written down by
//! [`super::state`] before it changes, so that [`super::undo`] can put it back whatever happens in between.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Args, ValueEnum};

use super::link::{self, Held, KernelDevice};
use super::persist;
use super::state::{Device, Gue, Put, Remembered, StateError};
use super::wanted::{Step, Tunnel, Wanted, conf, file_of, host, key_of};
use crate::model::Method;

/// Where what was changed is remembered.
pub const STATE: &str = "/var/lib/evenkeel/realserver.json";

/// How packets reach this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// Direct routing.
    Dr,
    /// IP in IP.
    Ipip,
    /// Generic routing encapsulation.
    Gre,
    /// Generic UDP encapsulation.
    Gue,
}

impl From<Way> for Method {
    fn from(way: Way) -> Method {
        match way {
            Way::Dr => Method::Dr,
            Way::Ipip => Method::Ipip,
            Way::Gre => Method::Gre,
            Way::Gue => Method::Gue,
        }
    }
}

/// What `prepare` and `verify` are told of the server.
#[derive(Clone, Debug, Args)]
pub struct Asked {
    /// Service address that this server has beside the others. Repeatable, both families.
    #[arg(long = "vip", value_name = "ADDRESS")]
    pub vips: Vec<IpAddr>,
    /// How packets reach this server: the `method` of the service.
    #[arg(long, value_enum)]
    pub method: Option<Way>,
    /// Interface that has the service addresses; one that asks nobody by ARP.
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// The tunnel's outer packets are IPv6.
    #[arg(long)]
    pub over_ipv6: bool,
    /// UDP port of GUE.
    #[arg(long)]
    pub gue_port: Option<u16>,
    /// File that remembers what was changed.
    #[arg(long, value_name = "FILE", default_value = STATE)]
    pub state: PathBuf,
}

impl Asked {
    /// What is wanted: what was said, then what is remembered, then the usual.
    pub fn wanted(&self, known: Option<&Remembered>) -> Wanted {
        let usual = known.map(Remembered::wanted);
        let usual = usual.unwrap_or_else(|| Remembered::default().wanted());
        Wanted {
            vips: if self.vips.is_empty() { usual.vips } else { self.vips.clone() },
            method: self.method.map_or(usual.method, Method::from),
            interface: self.interface.clone().unwrap_or(usual.interface),
            over_v6: self.over_ipv6 || usual.over_v6 && self.method.is_none(),
            gue_port: self.gue_port.unwrap_or(usual.gue_port),
        }
    }
}

/// Arguments of `evenkeel realserver prepare`.
#[derive(Debug, Args)]
pub struct PrepareArgs {
    #[command(flatten)]
    asked: Asked,
    /// Print the commands that would do the same, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Make it last over a restart of this machine: a file in sysctl.d and a unit of systemd.
    #[arg(long)]
    persist: bool,
    /// Where those files go.
    #[arg(long, value_name = "FOLDER", default_value = "/etc", hide = true)]
    etc: PathBuf,
}

/// Why a server is not prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Not root.
    #[error(
        "this changes settings of the kernel and needs root: run it with `sudo`; `--dry-run` shows what it would do"
    )]
    NotRoot,
    /// No address.
    #[error("no service address: say which by `--vip ADDRESS`, once for each")]
    NoAddress,
    /// An address that no service can have.
    #[error("{0} cannot be a service address; expected an address of one host, such as 192.0.2.10")]
    Nonsense(IpAddr),
    /// No such interface.
    #[error("there is no interface `{0}`; the service addresses usually go to `lo`")]
    NoInterface(String),
    /// The address is where it would be answered for.
    #[error(
        "{address} is on {interface} of this machine, which answers ARP for it and so takes clients from the appliance: take it \
         off (`ip address del {address}/{bits} dev {interface}`, or its other prefix), then prepare again", bits = host(*address)
    )]
    Elsewhere {
        /// The service address.
        address: IpAddr,
        /// The interface.
        interface: String,
    },
    /// A step failed.
    #[error("cannot do `{step}`; what was done before is remembered, and `evenkeel realserver undo` puts it back")]
    Step {
        /// As a command.
        step: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// This machine cannot be asked.
    #[error("cannot list the addresses of this machine")]
    Look(#[source] io::Error),
    /// The file of what was changed.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file that makes it last.
    #[error("cannot write {file}; all else is done")]
    Persist {
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Runs the command, and returns its exit code.
pub fn main(args: &PrepareArgs) -> ExitCode {
    let mut say = |line: String| println!("{line}");
    match run(args, &mut say) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {:#}", anyhow::Error::from(error));
            ExitCode::FAILURE
        }
    }
}

/// Prepares this machine. `say` is told each thing that was done.
///
/// # Errors
/// [`PrepareError`]: what is in the way. What was done before stays, and is remembered.
pub fn run(args: &PrepareArgs, say: &mut dyn FnMut(String)) -> Result<(), PrepareError> {
    let known = Remembered::load(&args.asked.state);
    // Whoever may not read the file may still look at the commands.
    let known = if args.dry_run { known.unwrap_or_default() } else { known? };
    let wanted = args.asked.wanted(known.as_ref());
    refuse_nonsense(&wanted)?;
    if args.dry_run {
        wanted.steps().iter().for_each(|step| say(step.to_string()));
        if args.persist {
            persist::files(&args.etc, &wanted).iter().for_each(|file| say(format!("# writes {}", file.path.display())));
        }
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(PrepareError::NotRoot);
    }
    if !link::exists(&wanted.interface) {
        return Err(PrepareError::NoInterface(wanted.interface));
    }
    let (held, _) = link::holdings().map_err(PrepareError::Look)?;
    refuse_elsewhere(&wanted, &held)?;
    let mut state = known.unwrap_or_default();
    state.ask(&wanted);
    state.save(&args.asked.state)?;
    let mut lacking = false;
    for step in wanted.steps() {
        let mut work = Work { state: &mut state, file: &args.asked.state, held: &held, lacking: &mut lacking };
        let done = work.step(&step)?;
        say(done);
    }
    if args.persist {
        make_it_last(&args.etc, &mut state, &args.asked.state, say)?;
    }
    if let Some(hint) = wanted.size_hint(1500) {
        say(format!("note: {hint}"));
    }
    if lacking {
        say(format!(
            "note: this kernel has no device for {}: keep `{}` running instead, which takes the packets out in user space",
            wanted.method.name(),
            wanted.decap_command()
        ));
    }
    say("next: start what serves the addresses, then `evenkeel realserver verify --port PORT`".to_owned());
    Ok(())
}

fn refuse_nonsense(wanted: &Wanted) -> Result<(), PrepareError> {
    if wanted.vips.is_empty() {
        return Err(PrepareError::NoAddress);
    }
    let bad = |ip: &IpAddr| {
        let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast() || v4.is_link_local());
        ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || broadcast
    };
    match wanted.vips.iter().find(|ip| bad(ip)) {
        Some(ip) => Err(PrepareError::Nonsense(*ip)),
        None => Ok(()),
    }
}

fn refuse_elsewhere(wanted: &Wanted, held: &[Held]) -> Result<(), PrepareError> {
    let elsewhere = |one: &&Held| wanted.vips.contains(&one.address) && one.interface != wanted.interface;
    match held.iter().find(elsewhere) {
        Some(one) => Err(PrepareError::Elsewhere { address: one.address, interface: one.interface.clone() }),
        None => Ok(()),
    }
}

fn make_it_last(
    etc: &Path,
    state: &mut Remembered,
    file: &Path,
    say: &mut dyn FnMut(String),
) -> Result<(), PrepareError> {
    for one in persist::files(etc, &state.wanted()) {
        if !state.files.contains(&one.path) {
            state.files.push(one.path.clone());
            state.save(file)?;
        }
        one.write().map_err(|source| PrepareError::Persist { file: one.path.clone(), source })?;
        say(format!("wrote    {}", one.path.display()));
    }
    Ok(())
}

struct Work<'w> {
    state: &'w mut Remembered,
    file: &'w Path,
    held: &'w [Held],
    lacking: &'w mut bool,
}

impl Work<'_> {
    /// Does a step unless it is done, and says which of the two.
    fn step(&mut self, step: &Step) -> Result<String, PrepareError> {
        let failed = |source| PrepareError::Step { step: step.to_string(), source };
        match step {
            Step::Set { path, value } => {
                let before = read(path).map_err(failed)?;
                if suffices(path, &before) {
                    return Ok(format!("is so    {}={before}", key_of(path)));
                }
                self.set(step, path, &before, value)
            }
            Step::Gue { port, v6 } => self.gue(Gue { port: *port, v6: *v6 }),
            Step::Device(tunnel) => self.device(step, tunnel),
            Step::AnySource(tunnel) => {
                if !link::exists(tunnel.name) {
                    return Ok(format!("left     the reverse path filter of {}, which is not there", tunnel.name));
                }
                let strict = read(&conf("all", "rp_filter")).is_ok_and(|value| value == "1");
                let path = conf(tunnel.name, "rp_filter");
                let (before, value) = (read(&path).map_err(failed)?, if strict { "2" } else { "0" });
                if before == value {
                    return Ok(format!("is so    {}={before}", key_of(&path)));
                }
                self.set(step, &path, &before, value)
            }
            Step::Address { address, interface } => {
                let put = Put { address: *address, interface: interface.clone() };
                if self.held.iter().any(|one| one.address == *address && one.interface == *interface) {
                    return Ok(format!("is there {address} on {interface}"));
                }
                if !self.state.addresses.contains(&put) {
                    self.state.addresses.push(put);
                    self.state.save(self.file)?;
                }
                link::add_address(*address, interface).map_err(failed)?;
                Ok(format!("added    {address}/{} on {interface}", host(*address)))
            }
        }
    }

    fn set(&mut self, step: &Step, path: &str, before: &str, value: &str) -> Result<String, PrepareError> {
        self.state.changes(path, before, value);
        self.state.save(self.file)?;
        fs::write(file_of(path), value).map_err(|source| PrepareError::Step { step: step.to_string(), source })?;
        Ok(format!("set      {}={value} (it was {before})", key_of(path)))
    }

    fn device(&mut self, step: &Step, tunnel: &Tunnel) -> Result<String, PrepareError> {
        let failed = |source| PrepareError::Step { step: step.to_string(), source };
        let known = self.state.devices.iter().any(|device| device.name == tunnel.name);
        if link::exists(tunnel.name) && (known || tunnel.external.is_some()) {
            link::switch(tunnel.name, true).map_err(failed)?;
            return Ok(format!("is there the device {}", tunnel.name));
        }
        if !known {
            self.state.devices.push(Device { name: tunnel.name.to_owned(), made: tunnel.external.is_some() });
            self.state.save(self.file)?;
        }
        if link::add_tunnel(tunnel).map_err(failed)? == KernelDevice::Lacking {
            *self.lacking = true;
            self.state.devices.retain(|device| device.name != tunnel.name);
            self.state.save(self.file)?;
            return Ok(format!("left     the device {}: this kernel has no {}", tunnel.name, tunnel.kind));
        }
        Ok(format!("made     the device {} ({})", tunnel.name, tunnel.kind))
    }

    fn gue(&mut self, gue: Gue) -> Result<String, PrepareError> {
        if self.state.gue.contains(&gue) {
            return Ok(format!("is open  UDP port {} for GUE", gue.port));
        }
        if let Err(error) = fou("add", gue) {
            *self.lacking = true;
            return Ok(format!("left     UDP port {} for GUE: {error}", gue.port));
        }
        self.state.gue.push(gue);
        self.state.save(self.file)?;
        Ok(format!("opened   UDP port {} for GUE", gue.port))
    }
}

/// `ip fou add` and `del`: the kernel's family `fou` of generic netlink has no better face.
pub(super) fn fou(what: &str, gue: Gue) -> io::Result<()> {
    let mut command = Command::new("ip");
    if gue.v6 {
        command.arg("-6");
    }
    let port = gue.port.to_string();
    let kind: &[&str] = if what == "add" { &["gue"] } else { &[] };
    let output = command.args(["fou", what, "port", &port]).args(kind).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")))
}

/// The value of a setting.
pub(super) fn read(path: &str) -> io::Result<String> {
    Ok(fs::read_to_string(file_of(path))?.trim().to_owned())
}

/// Whether a setting keeps silent enough as it is. `arp_ignore` 2 is stricter than 1 and lets the server's own address be
/// found; 8 answers for nothing, not even that.
pub(super) fn suffices(path: &str, value: &str) -> bool {
    if path.ends_with("arp_ignore") { matches!(value, "1" | "2") } else { value == "2" }
}
