//! The table that calls of ipvsadm build, as services of a configuration.
//!
//! Owns ipvsadm's defaults: scheduler `wlc`, direct routing, weight 1, persistence of 300 s. Pure.

use std::net::IpAddr;

use super::call::{Call, Named, Refusal};
use crate::control::import::document::{Table, Value};
use crate::control::import::report::{Note, Place, Weight};

/// IPVS's schedulers.
const SCHEDULERS: [&str; 14] =
    ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "mh", "fo", "ovf", "sed", "nq", "twos"];

/// ipvsadm's default of `-p`, in seconds.
const PERSISTENCE: i64 = 300;

/// A service of the table.
#[derive(Debug)]
struct Known {
    named: Named,
    table: Table,
    servers: Vec<(IpAddr, u16, Table)>,
}

/// The table.
#[derive(Debug, Default)]
pub struct Services {
    known: Vec<Known>,
    timeouts: Option<Table>,
}

fn broken<T>(message: impl Into<String>, help: &str) -> Result<T, Refusal> {
    Err(Refusal::Broken(message.into(), help.to_owned()))
}

fn number(call: &Call, option: &str, most: i64) -> Result<Option<i64>, Refusal> {
    let Some(text) = call.option(option) else { return Ok(None) };
    match text.parse::<i64>() {
        Ok(number) if (0..=most).contains(&number) => Ok(Some(number)),
        _ => broken(format!("`{text}` is no number from 0 to {most}, for `--{option}`"), "correct it"),
    }
}

impl Services {
    /// Does what a call does. `text`: as it is written.
    pub fn run(&mut self, call: &Call, text: &str, at: &Place, remarks: &mut Vec<Note>) -> Result<(), Refusal> {
        match call.command {
            'A' => {
                let named = service(call)?;
                if self.find(&named).is_some() {
                    return broken(
                        "the service is there already",
                        "ipvsadm refuses it, too: use -E, or remove the line",
                    );
                }
                let mut known = Known { table: Table::many("service", at, text.trim()), servers: Vec::new(), named };
                known.edit(call, at, remarks)?;
                self.known.push(known);
            }
            'E' => self.existing(call)?.edit(call, at, remarks)?,
            'D' => {
                let named = service(call)?;
                self.existing(call)?;
                self.known.retain(|known| known.named != named);
            }
            'C' => self.known.clear(),
            'a' | 'e' | 'd' => self.existing(call)?.server(call, text, at, remarks)?,
            // What reads the rules, or prints them, changes nothing.
            'R' | 'S' | 'L' | 'l' | 'Z' | 'h' | 'v' => {
                return Err(Refusal::LeftOut("it changes no service".to_owned()));
            }
            '!' => self.set(call, at)?,
            _ => return Err(Refusal::LeftOut("flows are not synchronized with the kernel's sync daemon".to_owned())),
        }
        Ok(())
    }

    fn find(&mut self, named: &Named) -> Option<&mut Known> {
        self.known.iter_mut().find(|known| known.named == *named)
    }

    fn existing(&mut self, call: &Call) -> Result<&mut Known, Refusal> {
        let named = service(call)?;
        match self.find(&named) {
            Some(known) => Ok(known),
            None => broken("there is no such service above", "add it first: `-A` with the same address and port"),
        }
    }

    /// `--set TCP TCPFIN UDP`: 0 keeps a value.
    fn set(&mut self, call: &Call, at: &Place) -> Result<(), Refusal> {
        let values: Vec<i64> =
            call.option("values").unwrap_or_default().split(' ').filter_map(|word| word.parse().ok()).collect();
        let [tcp, fin, udp] = values.as_slice() else {
            return broken("`--set` has three numbers of seconds", "write it as `--set 900 120 300`");
        };
        let table = self.timeouts.get_or_insert_with(|| Table::one("timeouts", at, "ipvsadm --set"));
        for (key, seconds) in [("tcp_established", tcp), ("tcp_fin_wait", fin), ("udp", udp)] {
            match seconds {
                0 => {}
                1..=2_000_000 => table.set(key, Value::Integer(*seconds), at),
                _ => return broken(format!("{seconds} is no number of seconds up to 2000000"), "correct it"),
            }
        }
        Ok(())
    }

    /// The tables of the configuration.
    pub fn finish(self) -> Vec<Table> {
        let service = |mut known: Known| {
            known.table.set("check", Value::text("none"), &known.table.at.clone());
            known.table.tables = known.servers.into_iter().map(|(_, _, table)| table).collect();
            known.table
        };
        self.timeouts.into_iter().chain(self.known.into_iter().map(service)).collect()
    }
}

fn service(call: &Call) -> Result<Named, Refusal> {
    match &call.service {
        Some(named) => Ok(named.clone()),
        None => broken("the line names no service", "write `-t`, `-u` or `--sctp-service` with its address and port"),
    }
}

/// The length of a netmask.
fn mask(text: &str, v6: bool) -> Option<i64> {
    if v6 {
        return text.parse().ok().filter(|length| (1..=128).contains(length));
    }
    let bits = u32::from(text.parse::<std::net::Ipv4Addr>().ok()?);
    (bits.leading_ones() + bits.trailing_zeros() >= 32).then(|| i64::from(bits.leading_ones()))
}

impl Known {
    /// `-A` and `-E`: what is not given is ipvsadm's default, in both.
    fn edit(&mut self, call: &Call, at: &Place, remarks: &mut Vec<Note>) -> Result<(), Refusal> {
        let v6 = self.named.address.is_ipv6();
        let table = &mut self.table;
        table.keys.clear();
        table.set("address", Value::text(self.named.address.to_string()), at);
        table.set("protocol", Value::text(self.named.protocol), at);
        let port = if self.named.port == 0 { Value::text("any") } else { Value::Integer(self.named.port.into()) };
        table.set("port", port, at);
        let scheduler = call.option("scheduler").unwrap_or("wlc");
        if !SCHEDULERS.contains(&scheduler) {
            return broken(
                format!("IPVS has no scheduler `{scheduler}`"),
                "correct it: `evenkeel check --reference` names all",
            );
        }
        table.set("scheduler", Value::text(scheduler), at);
        for flag in call.option("sched-flags").unwrap_or_default().split(',').filter(|flag| !flag.is_empty()) {
            let flag = match (flag, scheduler) {
                ("flag-1", "sh" | "mh") => format!("{scheduler}-fallback"),
                ("flag-2", "sh" | "mh") => format!("{scheduler}-port"),
                _ => flag.to_owned(),
            };
            table.push("scheduler_flags", Value::Text(flag), at);
        }
        if let Some(seconds) = call.option("persistent") {
            let seconds = if seconds.is_empty() {
                PERSISTENCE
            } else {
                number(call, "persistent", 1_000_000)?.unwrap_or(PERSISTENCE)
            };
            table.set("persistence", Value::Integer(seconds), at);
        }
        if let Some(text) = call.option("netmask") {
            let Some(length) = mask(text, v6) else {
                return broken(format!("`{text}` is no mask"), "write one such as 255.255.255.0, or a length for IPv6");
            };
            let key = if v6 { "persistence_prefix_v6" } else { "persistence_prefix_v4" };
            table.set(key, Value::Integer(length), at);
        }
        match call.option("pe") {
            None => {}
            Some("sip") => table.set("persistence_by", Value::text("sip-call-id"), at),
            Some(other) => return broken(format!("there is no persistence engine `{other}`"), "there is `sip`"),
        }
        if call.option("ops").is_some() {
            table.set("one_packet", Value::Boolean(true), at);
        }
        if self.named.port == 0 && table.get("persistence").is_none() {
            let reason = "ipvsadm wants `-p` with the port 0: 300 s are taken".to_owned();
            let note = Note { weight: Weight::Remark, at: at.clone(), what: table.title.clone(), reason };
            remarks.push(note.clone());
            table.notes.push(note);
            table.set("persistence", Value::Integer(PERSISTENCE), at);
        }
        Ok(())
    }

    /// `-a`, `-e` and `-d`.
    fn server(&mut self, call: &Call, text: &str, at: &Place, remarks: &mut Vec<Note>) -> Result<(), Refusal> {
        let Some((address, port)) = call.server else {
            return broken("the line names no server", "write `-r` with its address");
        };
        let port = port.unwrap_or(self.named.port);
        let index = self.servers.iter().position(|(known, at, _)| (*known, *at) == (address, port));
        match (call.command, index) {
            ('a', Some(_)) => {
                return broken("the server is there already", "ipvsadm refuses it, too: use -e, or remove the line");
            }
            ('e' | 'd', None) => {
                return broken("there is no such server above", "add it first: `-a` with the same `-r`");
            }
            ('d', Some(index)) => {
                self.servers.remove(index);
                return Ok(());
            }
            _ => {}
        }
        let method = match (call.option("masquerading"), call.option("ipip"), call.option("tun-type")) {
            (Some(_), ..) => "nat",
            (_, Some(_), None | Some("ipip")) => "ipip",
            (_, Some(_), Some("gue")) => "gue",
            (_, Some(_), Some("gre")) => "gre",
            (_, Some(_), Some(other)) => {
                return broken(format!("there is no tunnel `{other}`"), "there are ipip, gue and gre");
            }
            _ => "dr",
        };
        let mut table = Table::many("server", at, text.trim());
        table.set("address", Value::text(address.to_string()), at);
        let mut note = |what: String, reason: &str, weight: Weight| {
            let note = Note { weight, at: at.clone(), what, reason: reason.to_owned() };
            remarks.push(note.clone());
            note
        };
        if port != self.named.port {
            if method == "nat" && self.named.port != 0 {
                table.set("port", Value::Integer(port.into()), at);
            } else {
                let reason = "direct routing and tunnels do not change ports, in IPVS neither";
                table.notes.push(note(format!(":{port}"), reason, Weight::LeftOut));
            }
        }
        let weight = number(call, "weight", i64::from(i32::MAX))?.unwrap_or(1);
        table.set("weight", Value::Integer(weight), at);
        table.set("method", Value::text(method), at);
        for (option, key) in [("u-threshold", "upper_threshold"), ("l-threshold", "lower_threshold")] {
            if let Some(threshold) = number(call, option, i64::from(i32::MAX))?.filter(|threshold| *threshold > 0) {
                table.set(key, Value::Integer(threshold), at);
            }
        }
        for option in ["tun-csum", "tun-remcsum"].into_iter().filter(|option| call.option(option).is_some()) {
            let reason = "the outer header has no checksum: servers take it without, as RFC 6935 has it";
            table.notes.push(note(format!("--{option}"), reason, Weight::LeftOut));
        }
        if method == "gue"
            && let Some(port) = number(call, "tun-port", 65_535)?
        {
            let known = self.table.get("gue_port").cloned();
            if known.as_ref().is_some_and(|known| *known != Value::Integer(port)) {
                let reason = "the port of GUE is that of the service: `gue_port`";
                table.notes.push(note(format!("--tun-port {port}"), reason, Weight::LeftOut));
            } else {
                self.table.set("gue_port", Value::Integer(port), at);
            }
        }
        match index {
            Some(index) => self.servers[index] = (address, port, table),
            None => self.servers.push((address, port, table)),
        }
        Ok(())
    }
}
