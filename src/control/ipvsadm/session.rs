//! One run of ipvsadm against the engine: what is asked of it, and what its refusals are called.
//!
//! Owns the questions, and ipvsadm's words for the engine's codes. Never draws a table.

use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::names::Names;
use super::options::{Asked, Command, Stop, Tag};
use super::{change, layout, view};
use crate::control::edit::Edit;
use crate::control::flows::FlowRow;
use crate::control::persistence::{Listing, Row};
use crate::control::socket::client::{ClientError, ask_with};
use crate::control::socket::{Code, Command as Question};
use crate::control::status::parts::Part;
use crate::control::status::{SettingsStatus, Status};
use crate::model::Protocol;
use layout::{Format, View};

/// Schedulers that the engine has, by IPVS's names and its own.
const SCHEDULERS: [&str; 16] =
    ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos", "p2c", "maglev"];

/// Flows in one answer.
const PAGE: usize = 2000;

/// A run.
#[derive(Debug)]
pub struct Session {
    socket: PathBuf,
}

/// Whether the engine has no such scheduler, or no such way to tell clients apart.
fn is_unknown(asked: &Asked) -> bool {
    !SCHEDULERS.contains(&asked.scheduler.as_str()) || asked.engine.as_deref().is_some_and(|engine| engine != "sip")
}

/// Whether what becomes of a command depends on what is in force, beyond what the engine looks at.
pub fn asks_first(asked: &Asked) -> bool {
    match asked.command {
        Command::Add | Command::Edit => is_unknown(asked),
        Command::AddServer | Command::EditServer => asked.lower > asked.upper || asked.tunnel_port.is_some(),
        _ => false,
    }
}

/// Reads an answer.
fn read<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, Stop> {
    serde_json::from_value(answer).map_err(|error| {
        Stop::usage(format!(
            "the engine answers what this program does not understand ({error}); are both of one version?"
        ))
    })
}

/// What ipvsadm calls a refusal.
fn words(command: Command, code: Code, error: &str) -> String {
    let known = match (code, command) {
        (Code::ServiceExists, _) => "Service already exists",
        (Code::NoService, Command::AddServer | Command::EditServer | Command::DeleteServer) => "Service not defined",
        (Code::NoService, _) => "No such service",
        (Code::ServerExists, _) => "Destination already exists",
        (Code::NoServer, _) => "No such destination",
        (Code::Denied, _) => "Permission denied (you must be root)",
        (Code::Failed | Code::Invalid, _) => error,
    };
    known.to_owned()
}

impl Session {
    /// A run against the engine with this socket.
    pub const fn new(socket: PathBuf) -> Session {
        Session { socket }
    }

    /// Asks the engine. `command`: for its words.
    fn ask(&self, command: Command, question: Question, options: &Value) -> Result<Value, Stop> {
        ask_with(&self.socket, question, options).map_err(|error| match error {
            ClientError::Refused { error, code, .. } => {
                // The sentence about a file that is refused says of which, and a line of ipvsadm has no file.
                Stop::failed(words(command, code, &error))
            }
            ClientError::Talk { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => Stop::usage(
                "Can't initialize ipvs: Permission denied (you must be root)\nAre you allowed to use Evenkeel's socket?",
            ),
            other => {
                let cause = std::error::Error::source(&other).map(|cause| format!(": {cause}")).unwrap_or_default();
                Stop::usage(format!("Can't initialize ipvs: {other}{cause}"))
            }
        })
    }

    fn status(&self, command: Command) -> Result<Status, Stop> {
        let parts = json!({ "parts": [Part::Services, Part::Workers, Part::Timeouts] });
        read(self.ask(command, Question::Status, &parts)?)
    }

    /// The edits of a command that edits; `None` for another one.
    ///
    /// # Errors
    /// What cannot be done, and what the kernel would say before it looks at anything else.
    pub fn as_edits(&self, asked: &Asked) -> Result<Option<Vec<Edit>>, Stop> {
        if let Some(stop) = self.kernel_refuses(asked)? {
            return Err(stop);
        }
        let edits = change::edits(asked)?;
        if edits.is_some() && asked.tunnel_port.is_some() {
            self.check_tunnel(asked)?;
        }
        Ok(edits)
    }

    /// What the kernel does not take though the program does; it says first whether the service is there.
    fn kernel_refuses(&self, asked: &Asked) -> Result<Option<Stop>, Stop> {
        let unknown = is_unknown(asked);
        let (text, exists) = match asked.command {
            Command::Add if unknown => ("Scheduler or persistence engine not found", Some("Service already exists")),
            Command::Edit if unknown => ("Scheduler or persistence engine not found", None),
            Command::AddServer | Command::EditServer if asked.lower > asked.upper => {
                ("Numerical result out of range", None)
            }
            _ => return Ok(None),
        };
        let (protocol, address, port) = change::target(asked)?;
        let status = self.status(asked.command)?;
        let there = status.services.iter().any(|service| {
            let known = (service.protocol, service.address.parse::<IpAddr>().ok(), view::port(&service.port));
            known == (protocol, Some(address), port)
        });
        Ok(Some(Stop::failed(match (there, exists, asked.command) {
            (true, Some(exists), _) => exists.to_owned(),
            (true, None, _) | (false, Some(_), _) => text.to_owned(),
            (false, None, command) => words(command, Code::NoService, ""),
        })))
    }

    /// The port of GUE is the service's: it can change while no other server has it.
    fn check_tunnel(&self, asked: &Asked) -> Result<(), Stop> {
        let (protocol, address, port) = change::target(asked)?;
        let (server, _) = asked.server.unwrap_or((address, 0));
        let status = self.status(asked.command)?;
        let service = status.services.iter().find(|service| {
            (service.protocol, service.address.parse().ok(), view::port(&service.port))
                == (protocol, Some(address), port)
        });
        let Some(service) = service else { return Ok(()) };
        let SettingsStatus { gue_port, .. } = service.settings;
        let others = service
            .servers
            .iter()
            .any(|known| known.configured_method == "gue" && known.address.parse::<IpAddr>() != Ok(server));
        if others && asked.tunnel_port != Some(gue_port) {
            let text = format!("illegal tunnel port specified: the servers of one service have one, here {gue_port}");
            return Err(Stop::failed(text));
        }
        Ok(())
    }

    /// Has edits made.
    pub fn edit(&self, asked: &Asked, edits: &[Edit]) -> Result<(), Stop> {
        if edits.is_empty() {
            return Ok(());
        }
        let made = self.ask(asked.command, Question::Edit, &json!({ "edits": edits }));
        made.map(drop).map_err(|stop| {
            // What the engine says to such an address is longer.
            let service = change::target(asked).ok().map(|(_, address, _)| address);
            let bad =
                [service, asked.server.map(|(address, _)| address)].into_iter().flatten().any(change::is_no_unicast);
            let is_plain = ["Service ", "No such ", "Destination ", "Permission ", "Can't "];
            if bad && !is_plain.iter().any(|known| stop.text.starts_with(known)) {
                Stop::failed("Invalid operation.  Possibly wrong module version, address not unicast, ...")
            } else {
                stop
            }
        })
    }

    /// Does a command that changes something.
    pub fn change(&self, asked: &Asked) -> Result<(), Stop> {
        match asked.command {
            Command::Zero => {
                let options = match asked.service {
                    Some(_) => {
                        let (protocol, address, port) = change::target(asked)?;
                        json!({ "service": change::service_name(protocol, address, port) })
                    }
                    None => json!({}),
                };
                self.ask(asked.command, Question::Zero, &options).map(drop)
            }
            Command::StartDaemon => Err(Stop::failed(
                "There is no sync daemon: Evenkeel's appliances do not share connections this way; see `vrrp` in its configuration",
            )),
            Command::StopDaemon => Err(Stop::failed("No daemon is running")),
            _ => match self.as_edits(asked)? {
                Some(edits) => self.edit(asked, &edits),
                None => Ok(()),
            },
        }
    }

    /// Prints rules. What they cannot say goes to standard error.
    pub fn save(&self, asked: &Asked, names: &Names) -> Result<(), Stop> {
        let mut status = self.status(asked.command)?;
        status.services.retain(|service| match view::unsaid(service) {
            Some(why) => {
                eprintln!(
                    "ipvsadm: the service `{}` has no rules: {why}; `evenkeel save` keeps all of it",
                    service.name
                );
                false
            }
            None => true,
        });
        let end = |address, port, protocol| names.end(address, port, protocol);
        let end: &dyn Fn(IpAddr, u16, Protocol) -> String =
            if asked.has(Tag::Numeric) { &layout::numeric } else { &end };
        let format = Format { view: View::Rules, exact: false, unsorted: false, end };
        crate::control::print(&layout::services(view::services(&status, true, &[]), format));
        Ok(())
    }

    /// Prints what `-L` asks for; `None`: the program was called without arguments.
    pub fn list(&self, asked: Option<&Asked>, names: &Names) -> Result<(), Stop> {
        let has = |tag| asked.is_some_and(|asked| asked.has(tag));
        let named = |address, port, protocol| names.end(address, port, protocol);
        let end: &dyn Fn(IpAddr, u16, Protocol) -> String = if has(Tag::Numeric) { &layout::numeric } else { &named };
        if has(Tag::Connection) {
            return self.connections(has(Tag::PersistentConn), end);
        }
        if has(Tag::Daemon) {
            return self.ask(Command::List, Question::Status, &json!({ "parts": [Part::Engine] })).map(drop);
        }
        let status = self.status(Command::List)?;
        if has(Tag::Timeout) {
            let known = status.timeouts;
            crate::control::print(&layout::timeouts([known.tcp, known.tcp_fin, known.udp]));
            return Ok(());
        }
        let views = [
            (Tag::Stats, View::Stats),
            (Tag::Rate, View::Rates),
            (Tag::Thresholds, View::Thresholds),
            (Tag::PersistentConn, View::PersistentConn),
            (Tag::TunnelInfo, View::TunnelInfo),
        ];
        let view = views.into_iter().find(|(tag, _)| has(*tag)).map_or(View::Plain, |(_, view)| view);
        let format = Format { view, exact: has(Tag::Exact), unsorted: has(Tag::NoSort), end };
        let clients = match view {
            View::PersistentConn => self.clients()?,
            _ => Vec::new(),
        };
        let mut services = view::services(&status, false, &clients);
        let mut out = String::new();
        if let Some(asked) = asked.filter(|asked| asked.has(Tag::Service)) {
            let missing = || Stop { text: "No such service".to_owned(), code: 1, ends: true };
            let (protocol, address, port) = change::target(asked).map_err(|_| missing())?;
            services.retain(|known| (known.protocol, known.address, known.port) == (protocol, address, port));
            if services.is_empty() {
                return Err(missing());
            }
        } else {
            let size = status.workers.iter().map(|worker| worker.flow_capacity).sum();
            out.push_str(&layout::version(size));
        }
        out.push_str(&layout::title(view));
        out.push_str(&layout::services(services, format));
        crate::control::print(&out);
        Ok(())
    }

    /// Persistent clients.
    fn clients(&self) -> Result<Vec<Row>, Stop> {
        let listing: Listing = read(self.ask(Command::List, Question::Persistence, &json!({}))?)?;
        Ok(listing.clients)
    }

    /// Prints all flows, a page at a time, and persistent clients as IPVS's templates.
    fn connections(&self, engines: bool, end: &dyn Fn(IpAddr, u16, Protocol) -> String) -> Result<(), Stop> {
        let status = self.status(Command::List)?;
        let mut out = layout::connections_title(engines);
        for row in self.clients()? {
            if let Some(template) = view::template(&row, &status) {
                layout::connection(&mut out, &template, engines, end);
            }
        }
        let mut from = Value::Null;
        loop {
            let mut options = json!({ "limit": PAGE });
            if !from.is_null() {
                options["from"] = from;
            }
            let mut page = self.ask(Command::List, Question::Flows, &options)?;
            let flows: Vec<FlowRow> = read(page["flows"].take())?;
            for row in &flows {
                layout::connection(&mut out, &view::flow(row), engines, end);
            }
            crate::control::print(&out);
            out.clear();
            from = page["next"].take();
            if from.is_null() {
                return Ok(());
            }
        }
    }
}
