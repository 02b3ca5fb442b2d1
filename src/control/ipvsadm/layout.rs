//! What ipvsadm 1.31 prints, byte for byte: services and servers in each of its views, connections, timeouts, rules.
//!
//! Values in, text out. Owns widths, order and units. Never asks an engine. Pure.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::model::Protocol;

/// Packet and byte counters of a service or server, or their rates a second: connections, packets to it, packets from it, bytes
/// to it, bytes from it.
pub type Counts = [u64; 5];

/// What is shown of each server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// How it is reached, weight, connections.
    #[default]
    Plain,
    /// What `-R` reads (`-S`).
    Rules,
    /// Counters.
    Stats,
    /// Counters a second.
    Rates,
    /// Thresholds.
    Thresholds,
    /// Persistent clients.
    PersistentConn,
    /// Tunnels.
    TunnelInfo,
}

/// How all is shown.
#[derive(Clone, Copy)]
pub struct Format<'a> {
    /// What is shown.
    pub view: View,
    /// Numbers are not cut to thousands.
    pub exact: bool,
    /// Services and servers as they come.
    pub unsorted: bool,
    /// An address and port in words.
    pub end: &'a dyn Fn(IpAddr, u16, Protocol) -> String,
}

/// A virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Protocol.
    pub protocol: Protocol,
    /// Virtual address.
    pub address: IpAddr,
    /// Port; 0 is every port.
    pub port: u16,
    /// Scheduler.
    pub scheduler: String,
    /// Its flags.
    pub flags: Vec<String>,
    /// Seconds of persistence.
    pub persistent: Option<u32>,
    /// Granularity of persistence, where it is not each address.
    pub mask: Option<String>,
    /// Persistence engine.
    pub engine: Option<String>,
    /// One-packet scheduling.
    pub one_packet: bool,
    /// Counters.
    pub stats: Counts,
    /// Counters a second.
    pub rates: Counts,
    /// Real servers.
    pub servers: Vec<Server>,
}

/// How a server is reached, as ipvsadm shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// NAT.
    Masq,
    /// It is this machine.
    Local,
    /// Direct routing.
    Route,
    /// IP in IP.
    Ipip,
    /// Generic UDP encapsulation, to this port.
    Gue(u16),
    /// Generic routing encapsulation.
    Gre,
    /// Both addresses translated, which IPVS cannot.
    FullNat,
}

/// A real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Address.
    pub address: IpAddr,
    /// Port; 0 where it is the client's choice.
    pub port: u16,
    /// How it is reached.
    pub way: Way,
    /// Weight.
    pub weight: u32,
    /// Upper threshold; 0 is none.
    pub upper: u32,
    /// Lower threshold; 0 is none.
    pub lower: u32,
    /// Established connections.
    pub active: u32,
    /// Other connections.
    pub inactive: u32,
    /// Persistent clients.
    pub persistent: u32,
    /// Counters.
    pub stats: Counts,
    /// Counters a second.
    pub rates: Counts,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Protocol, in capitals.
    pub protocol: String,
    /// Seconds until it expires.
    pub expires: u32,
    /// State.
    pub state: String,
    /// Client, service and server.
    pub ends: [(IpAddr, u16); 3],
    /// Persistence engine and what it tells clients apart by.
    pub engine: Option<(String, String)>,
}

/// An address and port without names.
pub fn numeric(address: IpAddr, port: u16, _: Protocol) -> String {
    match address {
        IpAddr::V4(v4) => format!("{v4}:{port}"),
        IpAddr::V6(v6) => format!("[{v6}]:{port}"),
    }
}

/// The first line of a whole table. `size`: of the connection table.
pub fn version(size: u64) -> String {
    format!("IP Virtual Server version 1.2.1 (size={size})\n")
}

/// Timeouts of established TCP, TCP after a FIN, and UDP, in seconds.
pub fn timeouts([tcp, fin, udp]: [u32; 3]) -> String {
    format!("Timeout (tcp tcpfin udp): {tcp} {fin} {udp}\n")
}

/// The heading of a table.
pub fn title(view: View) -> String {
    let counted = |columns: [&str; 5]| {
        let [a, b, c, d, e] = columns;
        let first = "Prot LocalAddress:Port";
        format!("{first:<33} {a:>8} {b:>8} {c:>8} {d:>8} {e:>8}\n  -> RemoteAddress:Port\n")
    };
    let plain = "Prot LocalAddress:Port Scheduler Flags\n";
    let first = "Prot LocalAddress:Port";
    match view {
        View::Rules => String::new(),
        View::Stats => counted(["Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"]),
        View::Rates => counted(["CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"]),
        View::Thresholds => format!(
            "{first:<33} {:<10} {:<10} {:<10} {:<10}\n  -> RemoteAddress:Port\n",
            "Uthreshold", "Lthreshold", "ActiveConn", "InActConn"
        ),
        View::PersistentConn => format!(
            "{first:<33} {:<9} {:<11} {:<10} {:<10}\n  -> RemoteAddress:Port\n",
            "Weight", "PersistConn", "ActiveConn", "InActConn"
        ),
        View::TunnelInfo => {
            format!("{plain}  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n")
        }
        View::Plain => {
            format!("{plain}  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n")
        }
    }
}

/// An address as its bytes are compared: IPv4 fills the first four.
fn bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// All services.
pub fn services(mut services: Vec<Service>, format: Format<'_>) -> String {
    if !format.unsorted {
        let key = |s: &Service| (s.address.is_ipv6(), s.protocol.number(), bytes(s.address), s.port);
        services.sort_by_key(key);
    }
    services.iter_mut().fold(String::new(), |mut out, service| {
        if !format.unsorted {
            service.servers.sort_by_key(|server| (bytes(server.address), server.port));
        }
        write_service(&mut out, service, format);
        out
    })
}

/// The first so many characters.
fn cut(text: String, most: usize) -> String {
    if text.chars().count() > most { text.chars().take(most).collect() } else { text }
}

fn write_service(out: &mut String, service: &Service, format: Format<'_>) {
    let end = (format.end)(service.address, service.port, service.protocol);
    let name = match format.view {
        View::Rules => {
            let option = match service.protocol {
                Protocol::Tcp => "-t",
                Protocol::Udp => "-u",
                Protocol::Sctp => "--sctp-service",
            };
            format!("{option} {end}")
        }
        _ => {
            let name = format!("{:<4} {end}", service.protocol.name().to_uppercase());
            if service.address.is_ipv4() { cut(name, 33) } else { name }
        }
    };
    match format.view {
        View::Rules => {
            let _ = write!(out, "-A {name} -s {}", service.scheduler);
            let mut option = |letter: &str, value: Option<String>| {
                let _ = value.map(|value| write!(out, " {letter} {value}"));
            };
            option("-p", service.persistent.map(|seconds| seconds.to_string()));
            option("-M", service.mask.clone().filter(|_| service.persistent.is_some()));
            option("--pe", service.engine.clone());
            out.push_str(if service.one_packet { " -o" } else { "" });
            if !service.flags.is_empty() {
                let _ = write!(out, " -b {}", service.flags.join(","));
            }
        }
        View::Stats => {
            let _ = write!(out, "{name:<33}");
            service.stats.iter().for_each(|count| large(out, *count, format.exact));
        }
        View::Rates => {
            let _ = write!(out, "{name:<33}");
            service.rates.iter().for_each(|rate| large(out, *rate, format.exact));
        }
        _ => {
            let _ = write!(out, "{name} {}", service.scheduler);
            if !service.flags.is_empty() {
                let _ = write!(out, " ({})", service.flags.join(","));
            }
            if let Some(seconds) = service.persistent {
                let _ = write!(out, " persistent {seconds}");
                let _ = service.mask.as_ref().map(|mask| write!(out, " mask {mask}"));
                let _ = service.engine.as_ref().map(|engine| write!(out, " pe {engine}"));
            }
            out.push_str(if service.one_packet { " ops" } else { "" });
        }
    }
    out.push('\n');
    for server in &service.servers {
        write_server(out, service, &name, server, format);
    }
}

fn write_server(out: &mut String, service: &Service, rule: &str, server: &Server, format: Format<'_>) {
    let end = (format.end)(server.address, server.port, service.protocol);
    let name = if format.view != View::Rules && service.address.is_ipv4() { cut(end, 28) } else { end };
    let Server { weight, active, inactive, upper, lower, persistent, .. } = server;
    let _ = match format.view {
        View::Rules => {
            let (option, tunnel) = match &server.way {
                Way::Masq | Way::FullNat => ("-m", String::new()),
                Way::Local | Way::Route => ("-g", String::new()),
                Way::Ipip => ("-i", " --tun-type ipip".to_owned()),
                Way::Gue(port) => ("-i", format!(" --tun-type gue --tun-port {port} --tun-nocsum")),
                Way::Gre => ("-i", " --tun-type gre --tun-nocsum".to_owned()),
            };
            writeln!(out, "-a {rule} -r {name} {option} -w {weight}{tunnel}")
        }
        View::Stats => {
            let _ = write!(out, "  -> {name:<28}");
            server.stats.iter().for_each(|count| large(out, *count, format.exact));
            writeln!(out)
        }
        View::Rates => {
            let [conns, in_packets, out_packets, in_bytes, out_bytes] = server.rates;
            let _ = write!(out, "  -> {name:<28} {conns:>8} {in_packets:>8} {out_packets:>8}");
            large(out, in_bytes, format.exact);
            large(out, out_bytes, format.exact);
            writeln!(out)
        }
        View::Thresholds => writeln!(out, "  -> {name:<28} {upper:<10} {lower:<10} {active:<10} {inactive:<10}"),
        View::PersistentConn => {
            writeln!(out, "  -> {name:<28} {weight:<9} {persistent:<11} {active:<10} {inactive:<10}")
        }
        View::TunnelInfo => {
            let (way, tunnel) = (forward(&server.way), tunnel(&server.way));
            writeln!(out, "  -> {name:<28} {way:<7} {tunnel:<13} {weight:<6} {active:<10} {inactive:<10}")
        }
        View::Plain => {
            let way = forward(&server.way);
            writeln!(out, "  -> {name:<28} {way:<7} {weight:<6} {active:<10} {inactive:<10}")
        }
    };
}

const fn forward(way: &Way) -> &'static str {
    match way {
        Way::Masq => "Masq",
        Way::Local => "Local",
        Way::Route => "Route",
        Way::Ipip | Way::Gue(_) | Way::Gre => "Tunnel",
        Way::FullNat => "FullNat",
    }
}

fn tunnel(way: &Way) -> String {
    match way {
        Way::Ipip => "ipip".to_owned(),
        // Without checksums.
        Way::Gue(port) => format!("gue:{port}:-c"),
        Way::Gre => "gre:-c".to_owned(),
        _ => "n/a".to_owned(),
    }
}

/// A number in nine columns: thousands, millions and so on where it would not fit, or all of it behind a space.
fn large(out: &mut String, number: u64, exact: bool) {
    let _ = match number {
        _ if exact && number > 99_999_999 => write!(out, " {number}"),
        _ if exact => write!(out, "{number:>9}"),
        0..100_000_000 => write!(out, "{number:>9}"),
        100_000_000..1_000_000_000 => write!(out, "{:>8}K", number / 1000),
        1_000_000_000..100_000_000_000 => write!(out, "{:>8}M", number / 1_000_000),
        100_000_000_000..100_000_000_000_000 => write!(out, "{:>8}G", number / 1_000_000_000),
        _ => write!(out, "{:>8}T", number / 1_000_000_000_000),
    };
}

/// The heading of connections. `engines`: with what persistence engines tell clients apart by.
pub fn connections_title(engines: bool) -> String {
    let first = format!("pro expire {:<11} {:<18} {:<18}", "state", "source", "virtual");
    let rest = match engines {
        true => format!("{:<18} {:<16} pe_data", "destination", "pe name"),
        false => "destination".to_owned(),
    };
    format!("IPVS connection entries\n{first} {rest}\n")
}

/// One connection in a line.
pub fn connection(out: &mut String, row: &Connection, engines: bool, end: &dyn Fn(IpAddr, u16, Protocol) -> String) {
    let protocol = Protocol::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(&row.protocol));
    let [client, service, server] = row.ends.map(|(address, port)| match protocol {
        Some(protocol) => end(address, port, protocol),
        None => numeric(address, port, Protocol::Tcp),
    });
    let expires = format!("{:02}:{:02}", row.expires / 60, row.expires % 60);
    let _ = write!(out, "{:<3} {expires:<6} {:<11} {client:<18} {service:<18} ", row.protocol, row.state);
    let _ = match &row.engine {
        Some((name, data)) if engines => writeln!(out, "{server:<16} {name:<18} {data}"),
        _ => writeln!(out, "{server}"),
    };
}
