//! What would become of a client's packet, and why: the words of `evenkeel explain`. Pure.
//!
//! Owns the question, the answer, and the order of the steps that lead to it ([`decide`]), which is that of the pipeline. It
//! changes nothing: sequences are asked on a copy of where they stand, limits and persistent clients are looked at only.

pub mod client;
pub mod decide;
mod render;
mod servers;

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::capture::service;
use super::flows::options::text;
use super::naming::{cut, end};
use crate::model::{Desired, Protocol};
pub use render::render;

/// The options of the command on the control socket.
pub const OPTIONS: &[&str] = &["client", "to", "protocol", "service"];

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The client.
    pub client: IpAddr,
    /// Its port, host order; absent: any new flow of it.
    pub port: Option<u16>,
    /// Where its packet goes.
    pub to: SocketAddr,
    /// By which protocol.
    pub protocol: Protocol,
}

impl Question {
    /// A question as it came over the control socket: `client` (`ADDRESS` or `ADDRESS:PORT`), and `to` (`ADDRESS:PORT`) with
    /// `protocol` (tcp where it is not given), or `service`, a name or `PROTOCOL ADDRESS:PORT`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(given: &Map<String, Value>, desired: &Desired) -> Result<Question, String> {
        let client = text(given, "client")?.ok_or("`client` is missing; expected an address, or one with a port")?;
        let (client, port) = end(client).ok_or_else(|| {
            format!(
                "`client` is {:?}; expected an address, or one with a port such as 198.51.100.7:4000 or [2001:db8::7]:4000",
                cut(client)
            )
        })?;
        let named = text(given, "service")?.map(|name| service(name, desired)).transpose()?;
        let protocol = match text(given, "protocol")? {
            None => named.map(|service| service.key.protocol),
            Some(word) => {
                let known = Protocol::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(word));
                Some(known.ok_or_else(|| {
                    let all = Protocol::ALL.map(Protocol::name).join(", ");
                    format!("`protocol` is {:?}; expected one of {all}", cut(word))
                })?)
            }
        };
        let to = match (text(given, "to")?, named) {
            (Some(_), Some(_)) => return Err("`to` and `service` exclude each other".to_owned()),
            (None, None) => return Err("`to` is missing: expected ADDRESS:PORT, or `service` with a name".to_owned()),
            (Some(to), None) => to
                .parse::<SocketAddr>()
                .map_err(|_| format!("`to` is {:?}; expected such as 192.0.2.10:80 or [2001:db8::10]:80", cut(to)))?,
            (None, Some(named)) => SocketAddr::new(named.key.address, named.key.ports.first.max(1)),
        };
        if let Some(named) = named
            && protocol != Some(named.key.protocol)
        {
            return Err(format!("the service `{}` is {}: leave `protocol` out", named.name, named.key));
        }
        if client.is_ipv4() != to.is_ipv4() {
            return Err(format!("a client of {client} sends no packet to {to}: they are of different families"));
        }
        Ok(Question { client, port, to, protocol: protocol.unwrap_or(Protocol::Tcp) })
    }
}

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fortune {
    /// It goes to a server.
    Forwarded,
    /// The appliance answers: a SYN cookie, a reset, ICMP.
    Answered,
    /// It is dropped.
    Dropped,
    /// It is left to the appliance's kernel.
    Passed,
}

/// Why this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// The flow is there already.
    Flow,
    /// The client is persistent.
    Persistence,
    /// The scheduler's choice.
    Scheduler,
    /// The scheduler draws lots: there is no telling which one it will be.
    Lot,
}

/// One step of the way to the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What was looked at: address, service, access, flow, flood, limits, persistence, scheduler, next hop.
    pub step: String,
    /// What was found.
    pub says: String,
}

/// How a packet reaches the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WayRow {
    /// The forwarding method.
    pub method: String,
    /// The interface by which it leaves; absent where the server is this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The Ethernet address that it goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The VLAN tag with which it leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Largest packet of the client that fits, in bytes.
    pub mtu: u32,
    /// The outer source address of a tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_source: Option<IpAddr>,
    /// Full NAT: from which addresses the server is asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub local_addresses: Vec<IpAddr>,
}

/// One server of the service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerRow {
    /// Its address and port.
    pub server: String,
    /// Its weight now.
    pub weight: u32,
    /// Its flows in ESTABLISHED.
    pub active: u32,
    /// Its other flows.
    pub inactive: u32,
    /// Whether it is the one.
    pub taken: bool,
    /// Whether a new flow can get it at all.
    pub available: bool,
    /// Where lots are drawn: how likely it is, from 0 to 1, about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Why it is the one, or why not.
    pub why: String,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The client, with its port where one was given.
    pub client: String,
    /// Where its packet goes.
    pub to: String,
    /// By which protocol.
    pub protocol: Protocol,
    /// What becomes of it.
    pub fortune: Fortune,
    /// The drop reason, where it is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// All in one sentence.
    pub summary: String,
    /// The service, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The server's address and port; absent where none is taken, or lots are drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Why that server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<By>,
    /// What was looked at, in the order of a packet's way.
    pub steps: Vec<Step>,
    /// How the packet reaches the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<WayRow>,
    /// All servers of the service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<ServerRow>,
}

/// An address with a port that may be none.
fn with_port(address: IpAddr, port: u16) -> String {
    if port == 0 { address.to_string() } else { SocketAddr::new(address, port).to_string() }
}

#[cfg(test)]
mod tests;
