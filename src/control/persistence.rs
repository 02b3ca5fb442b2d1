//! Persistent clients as operators see them: listed, cleared, and forgotten when their services change.
//!
//! Owns the words of `evenkeel persistence`, what goes over the control socket for it, and its text. The table is the data
//! plane's.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::control::naming::misread;
use crate::dataplane::director::Director;
use crate::dataplane::persist::Template;
use crate::dataplane::snapshot::{ServiceEntry, Snapshot};
use crate::model::{PersistBy, Persistence, Protocol};

/// Most rows of an answer.
const MOST_ROWS: usize = 200_000;

/// What to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Show persistent clients.
    #[default]
    List,
    /// End their persistence: their next flows are scheduled anew, open ones go on.
    Clear,
}

/// The names of a [`Question`]'s members.
pub const OPTIONS: &[&str] = &["action", "service", "group", "client"];

/// Which clients are meant; nothing given means all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Question {
    /// What to do with them.
    pub action: Action,
    /// Those of the service of this name, and of its group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Those of this group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Those whose network touches this one: `ADDRESS` or `ADDRESS/BITS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

impl Question {
    /// A question as it came over the control socket.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(options: &Map<String, Value>) -> Result<Question, String> {
        serde_json::from_value(Value::Object(options.clone())).map_err(|error| misread("persistence", &error))
    }
}

/// What the engine answers to a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Persistent clients that were meant; `clients` may have fewer.
    pub count: u64,
    /// The clients.
    pub clients: Vec<Row>,
}

/// One persistent client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The client's address, or network with its bits.
    pub client: String,
    /// Its group, where it is one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Names of the services for which it holds.
    pub services: Vec<String>,
    /// Protocol, address and port of the service, where it is one's alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Place>,
    /// Address and port of its server; absent when it is no server of the services any more.
    pub server: Option<String>,
    /// Seconds until it ends, or is armed again while flows are under it.
    pub expires_s: u32,
    /// Flows under it.
    pub flows: u32,
    /// Whether one of them was confirmed by the client.
    pub assured: bool,
    /// Its Call-ID, cut to 88 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
}

/// A service's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Protocol.
    pub protocol: Protocol,
    /// Address and port, as `ipvsadm` writes them.
    pub address: String,
}

fn with_port(address: IpAddr, port: &str) -> String {
    match address {
        IpAddr::V4(v4) => format!("{v4}:{port}"),
        IpAddr::V6(v6) => format!("[{v6}]:{port}"),
    }
}

/// Templates that a question means.
struct Meant<'s> {
    services: HashMap<u32, Vec<&'s ServiceEntry>>,
    network: Option<(IpAddr, u8)>,
}

impl<'s> Meant<'s> {
    fn of(question: &Question, snapshot: &'s Snapshot) -> Result<Meant<'s>, String> {
        let mut services: HashMap<u32, Vec<&ServiceEntry>> = HashMap::new();
        for service in &snapshot.services {
            services.entry(service.unit).or_default().push(service);
        }
        let known = |what: &str, name: &str, is: &dyn Fn(&ServiceEntry) -> bool| {
            if snapshot.services.iter().any(is) { Ok(()) } else { Err(format!("there is no {what} `{name}`")) }
        };
        if let Some(name) = &question.service {
            let is = |service: &ServiceEntry| service.config.name == *name;
            known("service", name, &is)?;
            services.retain(|_, all| all.iter().any(|service| is(service)));
        }
        if let Some(name) = &question.group {
            let is = |service: &ServiceEntry| service.config.group.as_deref() == Some(name);
            known("group", name, &is)?;
            services.retain(|_, all| all.iter().any(|service| is(service)));
        }
        let network = question.client.as_deref().map(parse_network).transpose()?;
        Ok(Meant { services, network })
    }

    fn has(&self, template: &Template) -> bool {
        let touches = |(network, bits): (IpAddr, u8)| {
            let bits = bits.min(template.prefix);
            leading(network, bits).is_some_and(|bits_of| Some(bits_of) == leading_of(template.network, network, bits))
        };
        self.services.contains_key(&template.unit) && self.network.is_none_or(touches)
    }
}

/// The first bits of an address.
fn leading(address: IpAddr, bits: u8) -> Option<u128> {
    let (value, width) = match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    };
    let shift = u32::from(width - bits.min(width));
    Some(value.checked_shr(shift).unwrap_or(0))
}

/// The same, if the address is of the family of another one.
fn leading_of(address: IpAddr, like: IpAddr, bits: u8) -> Option<u128> {
    if address.is_ipv4() == like.is_ipv4() { leading(address, bits) } else { None }
}

/// `ADDRESS` or `ADDRESS/BITS`.
fn parse_network(text: &str) -> Result<(IpAddr, u8), String> {
    let shown: String = text.chars().take(60).collect();
    let refuse = |why: &str| {
        Err(format!("{shown:?} {why}; expected an address such as 192.0.2.7, or a network such as 192.0.2.0/24"))
    };
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let Ok(address) = address.parse::<IpAddr>() else { return refuse("is no address and no network") };
    let most = if address.is_ipv4() { 32 } else { 128 };
    match bits.map_or(Ok(most), str::parse::<u8>) {
        Ok(bits) if bits <= most => Ok((address, bits)),
        _ => refuse(&format!("has no number of bits from 0 to {most}")),
    }
}

/// Persistent clients. `now` by the workers' clock.
///
/// # Errors
/// What is wrong with the question.
pub fn list(director: &Director, snapshot: &Snapshot, question: &Question, now: u32) -> Result<Listing, String> {
    let meant = Meant::of(question, snapshot)?;
    let mut all: Vec<Template> = director.templates.list(now).filter(|template| meant.has(template)).collect();
    let count = all.len() as u64;
    all.sort_by(|a, b| (a.unit, a.network, &a.call_id).cmp(&(b.unit, b.network, &b.call_id)));
    all.truncate(MOST_ROWS);
    let clients = all.iter().filter_map(|template| Some(row(template, meant.services.get(&template.unit)?))).collect();
    Ok(Listing { count, clients })
}

fn row(template: &Template, services: &[&ServiceEntry]) -> Row {
    let member = services.iter().find_map(|service| service.real(template.real));
    let alone = services.first().filter(|service| service.config.group.is_none());
    let server = member.map(|member| match alone {
        // In a group the port is the services'.
        Some(_) if member.port != 0 => with_port(member.address, &member.port.to_string()),
        _ => member.address.to_string(),
    });
    let whole = if template.network.is_ipv4() { 32 } else { 128 };
    let bits = if template.prefix == whole { String::new() } else { format!("/{}", template.prefix) };
    let place = |service: &&ServiceEntry| {
        let key = service.key();
        Place { protocol: key.protocol, address: with_port(key.address, &key.ports.to_string()) }
    };
    Row {
        client: format!("{}{bits}", template.network),
        group: services.first().and_then(|service| service.config.group.clone()),
        services: services.iter().map(|service| service.config.name.clone()).collect(),
        service: alone.map(place),
        server,
        expires_s: template.left_ms / 1000,
        flows: template.flows,
        assured: template.assured,
        call_id: (!template.call_id.is_empty()).then(|| String::from_utf8_lossy(&template.call_id).into_owned()),
    }
}

/// Ends the persistence of clients, and says of how many.
///
/// # Errors
/// What is wrong with the question.
pub fn clear(director: &Director, snapshot: &Snapshot, question: &Question, now: u32) -> Result<usize, String> {
    let meant = Meant::of(question, snapshot)?;
    Ok(director.templates.clear(now, |template| meant.has(template)))
}

/// How each unit tells its clients apart.
pub type Units = HashMap<u32, Persistence>;

/// The units of a snapshot.
pub fn units(snapshot: &Snapshot) -> Units {
    let persistent = snapshot.services.iter().filter_map(|s| Some((s.unit, s.config.persistence.clone()?)));
    persistent.filter(|(_, persistence)| persistence.seconds > 0).collect()
}

/// Forgets the templates of units that are gone, or that tell their clients apart in another way now.
pub fn settle(director: &Director, units: &Units) {
    director.templates.retain(|template| {
        units.get(&template.unit).is_some_and(|persistence| {
            let prefix = if template.network.is_ipv4() { persistence.prefix_v4 } else { persistence.prefix_v6 };
            let by_call = persistence.by == PersistBy::SipCallId;
            prefix == template.prefix && by_call != template.call_id.is_empty()
        })
    });
}

/// A listing for people, in the form of `ipvsadm -Lnc`; what that has no column for comes behind.
pub fn render(listing: &Listing) -> String {
    let mut out = String::from("Persistent clients\n");
    out.push_str("pro expire state       source             virtual            destination        flows\n");
    for row in &listing.clients {
        let (protocol, virtual_) = match (&row.service, &row.group) {
            (Some(place), _) => (place.protocol.name().to_uppercase(), place.address.clone()),
            (None, group) => ("GRP".to_owned(), group.clone().unwrap_or_default()),
        };
        let state = if row.assured { "ASSURED" } else { "NONE" };
        let server = row.server.as_deref().unwrap_or("gone");
        let expires = format!("{:02}:{:02}", row.expires_s / 60, row.expires_s % 60);
        let _ = write!(
            out,
            "{protocol:<3} {expires:<6} {state:<11} {:<18} {virtual_:<18} {server:<18} {}",
            row.client, row.flows
        );
        let _ = row.call_id.iter().try_for_each(|call| write!(out, " sip {call}"));
        out.push('\n');
    }
    let shown = listing.clients.len() as u64;
    if shown < listing.count {
        let _ = writeln!(out, "and {} more: name a service, a group or a network", listing.count - shown);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_or_explained() {
        assert_eq!(parse_network("192.0.2.7"), Ok((IpAddr::from([192, 0, 2, 7]), 32)));
        assert_eq!(parse_network("2001:db8::/32").map(|(_, bits)| bits), Ok(32));
        for text in ["", "web", "192.0.2.0/33", "192.0.2.0/", "192.0.2.0/-1", "::/129", "1.2.3/8"] {
            assert!(parse_network(text).unwrap_err().contains("expected an address"), "{text}");
        }
        assert!(parse_network(&"9".repeat(10_000)).unwrap_err().len() < 300);
    }

    #[test]
    fn rows_are_those_of_ipvsadm_with_more_behind() {
        let place = Place { protocol: Protocol::Tcp, address: "192.0.2.10:80".to_owned() };
        let alone = Row {
            client: "198.51.100.0/24".to_owned(),
            group: None,
            services: vec!["web".to_owned()],
            service: Some(place),
            server: Some("10.0.0.11:80".to_owned()),
            expires_s: 299,
            flows: 2,
            assured: true,
            call_id: None,
        };
        let grouped = Row {
            group: Some("shop".to_owned()),
            service: None,
            server: None,
            assured: false,
            expires_s: 6000,
            call_id: Some("a@b".to_owned()),
            ..alone.clone()
        };
        let listing = Listing { count: 3, clients: vec![alone, grouped] };
        let expected = "\
Persistent clients
pro expire state       source             virtual            destination        flows
TCP 04:59  ASSURED     198.51.100.0/24    192.0.2.10:80      10.0.0.11:80       2
GRP 100:00 NONE        198.51.100.0/24    shop               gone               2 sip a@b
and 1 more: name a service, a group or a network
";
        assert_eq!(render(&listing), expected);
        let back: Listing = serde_json::from_value(serde_json::to_value(&listing).expect("JSON")).expect("back");
        assert_eq!(back, listing);
    }
}
