//! The program under test: its config file, its process, its commands.
//!
//! Owns one `evenkeel run` inside a node. Speaks to it only as an operator would: the file, SIGHUP, `evenkeel reload` and
//! `evenkeel status`.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value as Json;
use toml::{Table, Value};

use super::error::{Doing, LabError};
use super::process::Process;
use super::topology::Lab;
use crate::model::{MacAddr, Protocol};

/// A configuration, as the tables of its file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineConfig {
    root: Table,
}

impl EngineConfig {
    /// An empty configuration.
    pub fn new() -> Self {
        EngineConfig::default()
    }

    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self, LabError> {
        let root = text.parse().map_err(|error| LabError::Unexpected(format!("not TOML: {error}")))?;
        Ok(EngineConfig { root })
    }

    /// Sets a key of a table, such as `engine` or `control`.
    pub fn set(&mut self, table: &str, key: &str, value: impl Into<Value>) -> &mut Self {
        let entry = self.root.entry(table).or_insert_with(|| Table::new().into());
        if let Value::Table(table) = entry {
            table.insert(key.into(), value.into());
        }
        self
    }

    /// Adds an interface.
    pub fn interface(&mut self, name: &str) -> &mut Self {
        let mut interface = Table::new();
        interface.insert("name".into(), name.into());
        self.push("interface", interface)
    }

    /// Adds a next hop with a fixed Ethernet address, and the tag to leave with.
    pub fn neighbor(&mut self, address: IpAddr, mac: MacAddr, interface: &str, vlan: Option<u16>) -> &mut Self {
        let mut neighbor = Table::new();
        neighbor.insert("address".into(), address.to_string().into());
        neighbor.insert("mac".into(), mac.to_string().into());
        neighbor.insert("interface".into(), interface.into());
        if let Some(vlan) = vlan {
            neighbor.insert("vlan".into(), i64::from(vlan).into());
        }
        self.push("neighbor", neighbor)
    }

    /// Adds a service; `port` is a number, a range such as `8000-8099`, or `any`.
    pub fn service(
        &mut self,
        name: &str,
        address: IpAddr,
        protocol: Protocol,
        port: &str,
        scheduler: &str,
        servers: &[(IpAddr, u16)],
    ) -> &mut Self {
        let mut service = Table::new();
        service.insert("name".into(), name.into());
        service.insert("address".into(), address.to_string().into());
        service.insert("protocol".into(), protocol.name().into());
        let port = port.parse::<u16>().map_or_else(|_| Value::from(port), |number| i64::from(number).into());
        service.insert("port".into(), port);
        service.insert("scheduler".into(), scheduler.into());
        service.insert("method".into(), "dr".into());
        // Who wants to see servers checked says how.
        service.insert("check".into(), "none".into());
        service.insert("server".into(), server_list(servers));
        self.push("service", service)
    }

    /// Replaces the servers of a service.
    pub fn servers(&mut self, service: &str, servers: &[(IpAddr, u16)]) -> &mut Self {
        self.change_service(service, "server", server_list(servers))
    }

    /// Sets a key of a service.
    pub fn change_service(&mut self, service: &str, key: &str, value: impl Into<Value>) -> &mut Self {
        if let Some(Value::Array(services)) = self.root.get_mut("service") {
            let mut tables = services.iter_mut().filter_map(Value::as_table_mut);
            let named = |table: &&mut Table| table.get("name").and_then(Value::as_str) == Some(service);
            if let Some(table) = tables.find(named) {
                table.insert(key.into(), value.into());
            }
        }
        self
    }

    /// Takes a key of a service out.
    pub fn unset_service(&mut self, service: &str, key: &str) -> &mut Self {
        if let Some(Value::Array(services)) = self.root.get_mut("service") {
            let mut tables = services.iter_mut().filter_map(Value::as_table_mut);
            let named = |table: &&mut Table| table.get("name").and_then(Value::as_str) == Some(service);
            if let Some(table) = tables.find(named) {
                table.remove(key);
            }
        }
        self
    }

    /// Sets a key of one server of a service.
    pub fn change_server(&mut self, service: &str, server: IpAddr, key: &str, value: impl Into<Value>) -> &mut Self {
        let value = value.into();
        let server = server.to_string();
        self.each_server(service, |table| {
            if table.get("address").and_then(Value::as_str) == Some(&server) {
                table.insert(key.into(), value.clone());
            }
        })
    }

    /// Sets a key of every server of a service.
    pub fn change_servers(&mut self, service: &str, key: &str, value: impl Into<Value>) -> &mut Self {
        let value = value.into();
        self.each_server(service, |table| drop(table.insert(key.into(), value.clone())))
    }

    /// Takes one server out of a service.
    pub fn remove_server(&mut self, service: &str, server: IpAddr) -> &mut Self {
        let server = server.to_string();
        if let Some(Value::Array(services)) = self.root.get_mut("service") {
            let mut tables = services.iter_mut().filter_map(Value::as_table_mut);
            let named = |table: &&mut Table| table.get("name").and_then(Value::as_str) == Some(service);
            if let Some(Value::Array(servers)) = tables.find(named).and_then(|table| table.get_mut("server")) {
                servers.retain(|entry| entry.get("address").and_then(Value::as_str) != Some(&server));
            }
        }
        self
    }

    fn each_server(&mut self, service: &str, change: impl Fn(&mut Table)) -> &mut Self {
        if let Some(Value::Array(services)) = self.root.get_mut("service") {
            let mut tables = services.iter_mut().filter_map(Value::as_table_mut);
            let named = |table: &&mut Table| table.get("name").and_then(Value::as_str) == Some(service);
            if let Some(Value::Array(servers)) = tables.find(named).and_then(|table| table.get_mut("server")) {
                servers.iter_mut().filter_map(Value::as_table_mut).for_each(change);
            }
        }
        self
    }

    /// Adds an address that the engine answers for and that is no service's, such as the servers' gateway.
    pub fn owned(&mut self, address: IpAddr) -> &mut Self {
        let mut owned = Table::new();
        owned.insert("address".into(), address.to_string().into());
        self.push("address", owned)
    }

    /// Takes out all tables of a list, such as `address`.
    pub fn remove_all(&mut self, list: &str) -> &mut Self {
        self.root.remove(list);
        self
    }

    /// The tables of a list, such as `service`.
    pub fn tables(&self, list: &str) -> impl Iterator<Item = &Table> {
        let entries = self.root.get(list).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        entries.iter().filter_map(Value::as_table)
    }

    /// Takes the tables of a list out and gives them.
    pub fn take(&mut self, list: &str) -> Vec<Table> {
        let Some(Value::Array(entries)) = self.root.remove(list) else { return Vec::new() };
        entries
            .into_iter()
            .filter_map(|entry| if let Value::Table(table) = entry { Some(table) } else { None })
            .collect()
    }

    /// Changes every table of a list.
    pub fn each(&mut self, list: &str, change: impl FnMut(&mut Table)) -> &mut Self {
        if let Some(Value::Array(entries)) = self.root.get_mut(list) {
            entries.iter_mut().filter_map(Value::as_table_mut).for_each(change);
        }
        self
    }

    /// The text of the file.
    pub fn to_toml(&self) -> String {
        self.root.to_string()
    }

    /// Adds a table to a list of them, such as `virtual_router`.
    pub fn push(&mut self, list: &str, table: Table) -> &mut Self {
        let entry = self.root.entry(list).or_insert_with(|| Vec::<Value>::new().into());
        if let Value::Array(entries) = entry {
            entries.push(table.into());
        }
        self
    }
}

fn server_list(servers: &[(IpAddr, u16)]) -> Value {
    let entry = |&(address, weight): &(IpAddr, u16)| {
        let mut server = Table::new();
        server.insert("address".into(), address.to_string().into());
        server.insert("weight".into(), i64::from(weight).into());
        Value::from(server)
    };
    servers.iter().map(entry).collect::<Vec<_>>().into()
}

/// A running engine; the lab ends it.
pub struct Engine {
    program: PathBuf,
    file: PathBuf,
    socket: PathBuf,
    process: Process,
}

impl Engine {
    /// Writes the config with a control socket of its own and starts `PROGRAM run --config FILE` inside `node`.
    pub fn start(lab: &Lab, node: &str, program: &Path, config: &EngineConfig) -> Result<Self, LabError> {
        let file = lab.path(&format!("{node}.toml"));
        let socket = lab.path(&format!("{node}.sock"));
        write(&file, config, &socket)?;
        let mut command = Command::new(program);
        command.arg("run").arg("--config").arg(&file).env("NO_COLOR", "1");
        let process = lab.start(node, &format!("{node}-evenkeel"), &command)?;
        Ok(Engine { program: program.to_owned(), file, socket, process })
    }

    /// Waits until the control socket answers and no server is unreachable any more; an error with its last words when
    /// it ends instead.
    pub fn await_ready(&self, within: Duration) -> Result<(), LabError> {
        self.await_status(within, "the engine's start, with every server reachable", all_reachable).map(drop)
    }

    /// Waits until `wanted` holds for the status.
    pub fn await_status(
        &self,
        within: Duration,
        what: &str,
        mut wanted: impl FnMut(&Json) -> bool,
    ) -> Result<Json, LabError> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.ended() {
                let words = self.process.last_words(20);
                return Err(LabError::Unexpected(format!("evenkeel ended ({status}); its last words:\n    {words}")));
            }
            let status = self.status();
            match status {
                Ok(status) if wanted(&status) => return Ok(status),
                _ if start.elapsed() < within => thread::sleep(Duration::from_millis(20)),
                status => {
                    let said = status.map_or_else(|error| error.to_string(), |json| json.to_string());
                    return Err(LabError::Timeout {
                        what: what.to_owned(),
                        after: within,
                        detail: format!("; status: {said}\n  its last words:\n    {}", self.process.last_words(20)),
                    });
                }
            }
        }
    }

    /// What `evenkeel status --json` says.
    pub fn status(&self) -> Result<Json, LabError> {
        let text = self.command(&["status", "--json"])?;
        serde_json::from_str(&text).map_err(|error| LabError::Unexpected(format!("status is not JSON: {error}")))
    }

    /// What `evenkeel status` prints for people.
    pub fn status_for_people(&self) -> Result<String, LabError> {
        self.command(&["status"])
    }

    /// One server of one service in the status, by its address.
    pub fn server_status(&self, service: &str, address: IpAddr) -> Result<Json, LabError> {
        let status = self.status()?;
        find_server(&status, service, address)
            .cloned()
            .ok_or_else(|| LabError::Unexpected(format!("status has no server {address} of {service}: {status}")))
    }

    /// What `evenkeel persistence` prints, with these arguments.
    pub fn persistence(&self, arguments: &[&str]) -> Result<String, LabError> {
        self.command(&[&["persistence"], arguments].concat())
    }

    /// Writes the config and runs `evenkeel reload`; what that says, or an error with what it says.
    pub fn reload(&self, config: &EngineConfig) -> Result<String, LabError> {
        write(&self.file, config, &self.socket)?;
        self.command(&["reload"])
    }

    /// Writes a text as the config, however wrong, and runs `evenkeel reload`.
    pub fn reload_text(&self, text: &str) -> Result<String, LabError> {
        fs::write(&self.file, text).doing(|| format!("writing {}", self.file.display()))?;
        self.command(&["reload"])
    }

    /// Writes the config and sends SIGHUP; the engine reloads some time later.
    pub fn hang_up(&self, config: &EngineConfig) -> Result<(), LabError> {
        write(&self.file, config, &self.socket)?;
        self.process.signal(Signal::SIGHUP)
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Its control socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its config file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    fn command(&self, arguments: &[&str]) -> Result<String, LabError> {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--socket").arg(&self.socket).stdin(Stdio::null());
        let output = command.output().doing(|| format!("running {}", self.program.display()))?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() {
            Ok(out.into_owned())
        } else {
            let said = format!("{}{}", out, err);
            Err(LabError::Unexpected(format!("evenkeel {}: {}", arguments.join(" "), said.trim())))
        }
    }
}

/// Whether a status has no server without a next hop.
pub fn all_reachable(status: &Json) -> bool {
    let services = status["services"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut servers = services.iter().filter_map(|service| service["servers"].as_array()).flatten();
    servers.all(|server| server["unreachable"].is_null())
}

/// Looks a server up in a status.
pub fn find_server<'a>(status: &'a Json, service: &str, address: IpAddr) -> Option<&'a Json> {
    let address = address.to_string();
    let services = status.get("services")?.as_array()?;
    let service = services.iter().find(|candidate| candidate["name"] == service)?;
    service.get("servers")?.as_array()?.iter().find(|server| server["address"] == address.as_str())
}

/// Replaces the file whole: a reload never sees half of it.
fn write(file: &Path, config: &EngineConfig, socket: &Path) -> Result<(), LabError> {
    let mut config = config.clone();
    config.set("control", "socket", socket.display().to_string());
    config.set("control", "state", socket.with_extension("state.json").display().to_string());
    let fresh = file.with_extension("new");
    fs::write(&fresh, config.to_toml()).doing(|| format!("writing {}", fresh.display()))?;
    fs::rename(&fresh, file).doing(|| format!("replacing {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_is_written_as_the_program_reads_it() {
        let mut config = EngineConfig::new();
        let server: IpAddr = "192.0.2.11".parse().unwrap();
        config
            .set("engine", "cores", vec![0, 1])
            .interface("eth0")
            .service("web", "192.0.2.10".parse().unwrap(), Protocol::Tcp, "80", "wlc", &[(server, 1)])
            .service("all", "192.0.2.10".parse().unwrap(), Protocol::Udp, "any", "rr", &[])
            .servers("web", &[(server, 5)])
            .change_service("web", "scheduler", "wrr")
            .change_servers("web", "port", 8080)
            .change_server("web", server, "method", "nat")
            .change_server("web", "192.0.2.12".parse().unwrap(), "method", "dr")
            .owned("10.0.0.9".parse().unwrap());
        let read = EngineConfig::parse(&config.to_toml()).unwrap();
        assert_eq!(read, config);
        let web = &read.root["service"][0];
        assert_eq!(web["port"].as_integer(), Some(80));
        assert_eq!(web["scheduler"].as_str(), Some("wrr"));
        assert_eq!(web["server"][0]["weight"].as_integer(), Some(5));
        assert_eq!(web["server"][0]["port"].as_integer(), Some(8080));
        assert_eq!(web["server"][0]["method"].as_str(), Some("nat"));
        assert_eq!(read.root["address"][0]["address"].as_str(), Some("10.0.0.9"));
        assert_eq!(read.root["service"][1]["port"].as_str(), Some("any"));
    }

    #[test]
    fn a_server_is_found_in_a_status() {
        let status: Json =
            serde_json::from_str(r#"{"services":[{"name":"web","servers":[{"address":"10.0.0.1","active":3}]}]}"#)
                .unwrap();
        let found = find_server(&status, "web", "10.0.0.1".parse().unwrap()).unwrap();
        assert_eq!(found["active"], 3);
        assert!(find_server(&status, "web", "10.0.0.2".parse().unwrap()).is_none());
        assert!(all_reachable(&status));
        let text = r#"{"services":[{"servers":[{"unreachable":null},{"unreachable":{"reason":"x"}}]}]}"#;
        assert!(!all_reachable(&serde_json::from_str(text).unwrap()));
        assert!(find_server(&status, "dns", "10.0.0.1".parse().unwrap()).is_none());
    }
}
