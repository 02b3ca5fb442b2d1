//! `evenkeel realserver verify`: whether this machine is a sound real server, and if not, what to do.
//!
//! Owns the questions to this machine. What the answers mean is [`super::judge`]'s. Never changes anything. A machine cannot
//! hear itself answer ARP, so the proof that it is silent is the appliance's: it asks all the time, and `evenkeel status` there
//! names whoever answers.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::judge::{Listener, Seen, judge};
use super::link;
use super::prepare::{Asked, read};
use super::state::{Remembered, StateError};
use super::wanted::conf;

/// Arguments of `evenkeel realserver verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    asked: Asked,
    /// Port on which something must listen, such as 80, tcp/80 or udp/53. Repeatable.
    #[arg(long = "port", value_name = "PORT", value_parser = port)]
    ports: Vec<(bool, u16)>,
    /// A client's address, to which there must be a way back.
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn port(text: &str) -> Result<(bool, u16), String> {
    let (tcp, number) = match text.split_once('/') {
        Some(("udp", number)) => (false, number),
        Some(("tcp", number)) => (true, number),
        Some((other, _)) => return Err(format!("`{other}` is no protocol; expected tcp or udp")),
        None => (true, text),
    };
    let number = number.parse::<u16>().ok().filter(|number| *number > 0);
    number.map(|number| (tcp, number)).ok_or_else(|| "expected a port from 1 to 65535, such as 80 or udp/53".to_owned())
}

/// Why this machine cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Nothing is known of service addresses.
    #[error("no service address: say which by `--vip ADDRESS`; nothing was prepared here that could be looked up")]
    NoAddress,
    /// The file of what was changed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The addresses.
    #[error("cannot list the addresses of this machine")]
    Look(#[source] io::Error),
}

/// Runs the command, and returns its exit code: 1 where something is wrong.
pub fn main(args: &VerifyArgs) -> ExitCode {
    let (wanted, seen) = match look(args) {
        Ok(found) => found,
        Err(error) => {
            eprintln!("error: {:#}", anyhow::Error::from(error));
            return ExitCode::FAILURE;
        }
    };
    let found = judge(&wanted, &seen);
    let wrong = found.iter().filter(|finding| finding.wrong).count();
    if args.json {
        let all: Vec<_> = found
            .iter()
            .map(|f| json!({ "id": f.id, "ok": !f.wrong, "found": f.found, "why": f.why, "command": f.command }))
            .collect();
        println!("{}", json!({ "version": 1, "ok": wrong == 0, "findings": all }));
    } else {
        found.iter().for_each(|finding| println!("{finding}"));
        if wrong == 0 {
            println!(
                "fine. The proof that this machine is silent is on the appliance: `evenkeel status` warns there while any server \
                 answers ARP for a service address"
            );
        } else {
            println!("{wrong} to mend; then `evenkeel realserver verify` again");
        }
    }
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn look(args: &VerifyArgs) -> Result<(super::wanted::Wanted, Seen), VerifyError> {
    let known = Remembered::load(&args.asked.state);
    let known = match known {
        // Whoever says what to look for needs no file.
        Err(StateError::Read { .. }) if !args.asked.vips.is_empty() => None,
        known => known?,
    };
    let wanted = args.asked.wanted(known.as_ref());
    if wanted.vips.is_empty() {
        return Err(VerifyError::NoAddress);
    }
    let (held, links) = link::holdings().map_err(VerifyError::Look)?;
    let number = |of: &str, key: &str| read(&conf(of, key)).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let arp = |key: &str| {
        let interfaces = links.iter().filter(|link| link.up && link.asks).map(|link| &link.name);
        interfaces.map(|name| (name.clone(), number(name, key).max(number("all", key)))).collect()
    };
    let devices = wanted.tunnels();
    let is_up = |name: &str| links.iter().any(|link| link.name == name && link.up);
    let seen = Seen {
        arp_ignore: arp("arp_ignore"),
        arp_announce: arp("arp_announce"),
        held,
        up: devices.iter().map(|device| device.name).filter(|name| is_up(name)).map(str::to_owned).collect(),
        filtered: devices
            .iter()
            .filter(|device| {
                is_up(device.name) && number(device.name, "rp_filter").max(number("all", "rp_filter")) == 1
            })
            .map(|device| device.name.to_owned())
            .collect(),
        decap: decap_runs(),
        ports: args.ports.clone(),
        listeners: listeners(),
        client: args.client.map(|client| (client, way_back(client))),
        routed: [default_route_v4(), default_route_v6()],
    };
    Ok((wanted, seen))
}

/// Whether `evenkeel realserver decap` runs in this network namespace.
fn decap_runs() -> bool {
    let here = fs::read_link("/proc/self/ns/net").ok();
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    processes.flatten().any(|process| {
        let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
        let is_decap = words.get(1..3).is_some_and(|two| two == [&b"realserver"[..], b"decap"]);
        is_decap && fs::read_link(process.path().join("ns/net")).ok() == here
    })
}

/// Sockets of this machine that take connections or datagrams.
fn listeners() -> Vec<Listener> {
    let tables = [("tcp", true), ("tcp6", true), ("udp", false), ("udp6", false)];
    let read = |(name, tcp): (&str, bool)| {
        let text = fs::read_to_string(format!("/proc/self/net/{name}")).unwrap_or_default();
        Listener::parse(&text, tcp)
    };
    tables.into_iter().flat_map(read).collect()
}

/// Whether the kernel would send to a client.
fn way_back(client: IpAddr) -> bool {
    let any: IpAddr = if client.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    // Connecting a datagram socket sends nothing: it only looks for the route.
    std::net::UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((client, 9))).is_ok()
}

fn default_route_v4() -> bool {
    let text = fs::read_to_string("/proc/self/net/route").unwrap_or_default();
    text.lines().skip(1).any(|line| line.split_whitespace().nth(1) == Some("00000000"))
}

fn default_route_v6() -> bool {
    let text = fs::read_to_string("/proc/self/net/ipv6_route").unwrap_or_default();
    text.lines().any(|line| {
        let mut words = line.split_whitespace();
        let (to, bits, device) = (words.next(), words.next(), words.nth(7));
        to == Some("00000000000000000000000000000000") && bits == Some("00") && device != Some("lo")
    })
}
