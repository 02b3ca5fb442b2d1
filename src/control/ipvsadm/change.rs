//! From what ipvsadm was asked to the edits that the engine understands. Pure.
//!
//! Owns what ipvsadm's defaults mean: an option that is not given takes what was there away.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::options::{Asked, Command, Forward, Mask, Stop, Tag, Target, TunnelType};
use super::values;
use crate::control::edit::Edit;
use crate::model::{GUE_PORT, PortRange, Protocol, ServiceKey};

/// Seconds of a time that the engine cannot hold: the longest is 1 000 000.
const MOST_PERSISTENT: u32 = 1_000_000;

/// What to say about firewall marks.
pub const NO_MARKS: &str = "Firewall marks are netfilter's, and Evenkeel's packets never come there: make one service for each \
                            address and port, and give them one `group` in the configuration to share their persistent clients";

/// The service as edits name it.
pub fn service_name(protocol: Protocol, address: IpAddr, port: u16) -> String {
    let ports = if port == 0 { PortRange::ANY } else { PortRange::single(port) };
    ServiceKey { address, protocol, ports }.to_string()
}

/// The server as edits name it.
fn server_name(address: IpAddr, port: u16) -> String {
    match port {
        0 => address.to_string(),
        _ => std::net::SocketAddr::new(address, port).to_string(),
    }
}

/// The service of a command that has one.
///
/// # Errors
/// It is a firewall mark.
pub fn target(asked: &Asked) -> Result<(Protocol, IpAddr, u16), Stop> {
    match asked.service {
        Some(Target::Address(protocol, address, port)) => Ok((protocol, address, port)),
        Some(Target::Mark(_)) => Err(Stop::failed(NO_MARKS)),
        None => Err(Stop::usage("illegal virtual server address[:port] specified")),
    }
}

/// What a command changes; `None`: it changes nothing.
///
/// # Errors
/// What Evenkeel cannot do.
pub fn edits(asked: &Asked) -> Result<Option<Vec<Edit>>, Stop> {
    let edit = match asked.command {
        Command::Clear => Edit::RemoveServices {},
        Command::Timeout => {
            let names = ["tcp_established", "tcp_fin_wait", "udp"];
            let given = names.into_iter().zip(asked.timeouts).filter(|(_, seconds)| *seconds > 0);
            let keys: Map<String, Value> = given.map(|(name, seconds)| (name.to_owned(), json!(seconds))).collect();
            if keys.is_empty() {
                return Ok(Some(Vec::new()));
            }
            Edit::EditTable { table: "timeouts".to_owned(), keys }
        }
        Command::Add | Command::Edit | Command::Delete => {
            let (protocol, address, port) = target(asked)?;
            let service = service_name(protocol, address, port);
            match asked.command {
                Command::Add => Edit::AddService { keys: added(asked, protocol, address, port)? },
                Command::Edit => Edit::EditService { service, keys: settings(asked, address)? },
                _ => Edit::RemoveService { service },
            }
        }
        Command::AddServer | Command::EditServer | Command::DeleteServer => return servers(asked).map(Some),
        _ => return Ok(None),
    };
    Ok(Some(vec![edit]))
}

/// Keys of a new service: what is not set is left out.
fn added(asked: &Asked, protocol: Protocol, address: IpAddr, port: u16) -> Result<Map<String, Value>, Stop> {
    let mut keys = Map::new();
    keys.insert("address".to_owned(), json!(address));
    keys.insert("protocol".to_owned(), json!(protocol.name()));
    keys.insert("port".to_owned(), if port == 0 { json!("any") } else { json!(port) });
    keys.extend(settings(asked, address)?.into_iter().filter(|(_, value)| !value.is_null()));
    // ipvsadm checks nothing.
    keys.insert("check".to_owned(), json!("none"));
    Ok(keys)
}

/// Keys that `-A` and `-E` set or take away.
fn settings(asked: &Asked, address: IpAddr) -> Result<Map<String, Value>, Stop> {
    if asked.persistent.is_some_and(|seconds| seconds > MOST_PERSISTENT) {
        let text = format!("invalid timeout value: Evenkeel's longest persistence is {MOST_PERSISTENT} seconds");
        return Err(Stop::usage(text));
    }
    let bits = match asked.mask {
        Some(Mask::V4(mask)) => Some(values::prefix(mask).ok_or_else(|| {
            Stop::usage(format!(
                "illegal virtual server persistent mask specified: the ones of {mask} are not together"
            ))
        })?),
        Some(Mask::V6(bits)) => Some(bits),
        None => None,
    };
    let bits = bits.filter(|bits| asked.persistent.is_some() && *bits != if address.is_ipv4() { 32 } else { 128 });
    let of = |family: bool| bits.filter(|_| address.is_ipv4() == family);
    let engine = asked.engine.as_deref().filter(|engine| *engine == "sip").map(|_| "sip-call-id");
    let flags = Some(&asked.flags).filter(|flags| !flags.is_empty());
    let pairs = [
        ("scheduler", json!(asked.scheduler)),
        ("scheduler_flags", json!(flags)),
        ("persistence", json!(asked.persistent)),
        ("persistence_prefix_v4", json!(of(true))),
        ("persistence_prefix_v6", json!(of(false))),
        ("persistence_by", json!(engine)),
        ("one_packet", json!(Some(true).filter(|_| asked.one_packet))),
    ];
    Ok(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn servers(asked: &Asked) -> Result<Vec<Edit>, Stop> {
    let (protocol, address, of_service) = target(asked)?;
    let service = service_name(protocol, address, of_service);
    let Some((address, mut port)) = asked.server else {
        return Err(Stop::usage("illegal real server address[:port] specified"));
    };
    if port == 0 {
        port = of_service;
    }
    let server = server_name(address, if of_service == 0 { 0 } else { port });
    if asked.command == Command::DeleteServer {
        return Ok(vec![Edit::RemoveServer { service: Some(service), server }]);
    }
    for (tag, what) in [(Tag::Checksum, "--tun-csum"), (Tag::RemoteChecksum, "--tun-remcsum")] {
        if asked.has(tag) {
            let text = format!("{what} is not to be had: Evenkeel's tunnels have no checksum of their own");
            return Err(Stop::failed(text));
        }
    }
    let method = match (asked.forward, asked.tunnel) {
        (Forward::Route, _) => "dr",
        (Forward::Masq, _) => "nat",
        (Forward::Tunnel, TunnelType::Ipip) => "ipip",
        (Forward::Tunnel, TunnelType::Gue) => "gue",
        (Forward::Tunnel, TunnelType::Gre) => "gre",
    };
    let some = |number: u32| Some(number).filter(|number| *number > 0);
    let mut keys = Map::new();
    let mut set = |key: &str, value: Value| {
        if asked.command == Command::EditServer || !value.is_null() {
            keys.insert(key.to_owned(), value);
        }
    };
    if asked.command == Command::AddServer {
        set("address", json!(address));
        set("port", json!(Some(port).filter(|port| *port != of_service)));
    }
    set("weight", json!(asked.weight));
    set("method", json!(method));
    set("upper_threshold", json!(some(asked.upper)));
    set("lower_threshold", json!(some(asked.lower)));
    let mut edits = Vec::new();
    if method == "gue" {
        let port = asked.tunnel_port.filter(|port| *port != GUE_PORT);
        let mut keys = Map::from_iter([("gue_port".to_owned(), json!(port))]);
        if port.is_some() {
            // The port may stand there after its last server has gone.
            keys.insert("method".to_owned(), json!(method));
        }
        edits.push(Edit::EditService { service: service.clone(), keys });
    }
    edits.push(match asked.command {
        Command::AddServer => Edit::AddServer { service, keys },
        _ => Edit::EditServer { service: Some(service), server, keys },
    });
    Ok(edits)
}

/// Whether an address is what the kernel takes for no server.
pub fn is_no_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ipvsadm::values::Lookup;

    fn of(line: &str) -> Value {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let asked = Asked::read(&args, &Lookup { host: &|_| None, port: &|_, _| None }).expect("is read");
        json!(edits(&asked).map_err(|stop| stop.text))["Ok"].take()
    }

    #[test]
    fn commands_become_edits() {
        let web = "tcp 192.0.2.10:80";
        for (line, expected) in [
            ("-C", json!([{ "do": "remove-services" }])),
            (
                "-A -t 192.0.2.10:80",
                json!([{ "do": "add-service", "keys":
                    { "address": "192.0.2.10", "protocol": "tcp", "port": 80, "scheduler": "wlc", "check": "none" } }]),
            ),
            (
                "-A -u [2001:db8::1]:0 -s sh -b sh-port -p 60 -M 64 -o",
                json!([{ "do": "add-service", "keys": {
                    "address": "2001:db8::1", "protocol": "udp", "port": "any", "scheduler": "sh",
                    "scheduler_flags": ["sh-port"], "persistence": 60, "persistence_prefix_v6": 64, "one_packet": true,
                    "check": "none" } }]),
            ),
            // What is not given is taken away.
            (
                "-E -t 192.0.2.10:80 -p 60 -M 255.255.255.255",
                json!([{ "do": "edit-service", "service": web, "keys": {
                    "scheduler": "wlc", "scheduler_flags": null, "persistence": 60, "persistence_prefix_v4": null,
                    "persistence_prefix_v6": null, "persistence_by": null, "one_packet": null } }]),
            ),
            ("-D -t 192.0.2.10:80", json!([{ "do": "remove-service", "service": web }])),
            (
                "-a -t 192.0.2.10:80 -r 10.0.0.1:8080 -m -x 9",
                json!([{ "do": "add-server", "service": web, "keys": {
                    "address": "10.0.0.1", "port": 8080, "weight": 1, "method": "nat", "upper_threshold": 9 } }]),
            ),
            // Only NAT has another port.
            (
                "-e -t 192.0.2.10:80 -r 10.0.0.1:8080 -w 0",
                json!([{ "do": "edit-server", "service": web, "server": "10.0.0.1:80", "keys": {
                    "weight": 0, "method": "dr", "upper_threshold": null, "lower_threshold": null } }]),
            ),
            (
                "-d -t 192.0.2.10:0 -r 10.0.0.1",
                json!([{ "do": "remove-server", "service": "tcp 192.0.2.10:any", "server": "10.0.0.1" }]),
            ),
            (
                "-a -t 192.0.2.10:80 -r 10.0.0.1 -i --tun-type gue --tun-port 6081",
                json!([
                    { "do": "edit-service", "service": web, "keys": { "gue_port": 6081, "method": "gue" } },
                    { "do": "add-server", "service": web, "keys": {
                        "address": "10.0.0.1", "weight": 1, "method": "gue" } },
                ]),
            ),
            ("--set 0 7 0", json!([{ "do": "edit-table", "table": "timeouts", "keys": { "tcp_fin_wait": 7 } }])),
            ("--set 0 0 0", json!([])),
            ("-Z", Value::Null),
        ] {
            assert_eq!(of(line), expected, "{line}");
        }
    }
}
