//! What people decided about servers: drained, in maintenance, ready again. It outlasts a reload and a restart.
//!
//! Owns the words of `evenkeel server` on the control socket, and the decisions by server. Never changes the data plane, and
//! leaves the file to [`file`].

mod file;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tracing::{error, warn};

use super::{Admin, ServerState};
use crate::control::config::problem::nearest;
use crate::control::naming::{self, cut, misread};
use crate::model::{Desired, ServerKey, Service, ServiceKey};

/// What to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Show all servers.
    #[default]
    List,
    /// No new flows.
    Drain,
    /// Out.
    Maintenance,
    /// As its checks say.
    Ready,
}

impl Action {
    const fn admin(self) -> Option<Admin> {
        match self {
            Action::List => None,
            Action::Drain => Some(Admin::Drain),
            Action::Maintenance => Some(Admin::Maintenance),
            Action::Ready => Some(Admin::Ready),
        }
    }
}

/// The names of a [`Question`]'s members.
pub const OPTIONS: &[&str] = &["action", "server", "service"];

/// Which servers are meant, and what is to become of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Question {
    /// What to do.
    pub action: Action,
    /// `ADDRESS` or `ADDRESS:PORT`; only a listing goes without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Only the one of the service of this name, or such as `tcp 192.0.2.10:80`; else in all services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

impl Question {
    /// A question as it came over the control socket.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(options: &Map<String, Value>) -> Result<Question, String> {
        serde_json::from_value(Value::Object(options.clone())).map_err(|error| misread("server", &error))
    }
}

/// A server in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its service's name.
    pub service: String,
    /// Its address, and its port or the service's.
    pub server: String,
    /// What people want of it.
    pub admin: Admin,
    /// Since when, seconds since 1970; absent where nobody decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// What people wanted of it before; absent in a listing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Admin>,
    /// How it is; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ServerState>,
    /// Whether the configuration has it; what was decided of others is remembered for when they come back.
    pub configured: bool,
}

/// What the engine answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The servers that were meant, in the order of the configuration.
    pub servers: Vec<Row>,
    /// What somebody should know besides: that the decision will not outlast a restart, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// Of `servers`; not for the wire.
    #[serde(skip)]
    pub(super) keys: Vec<ServerKey>,
}

impl Listing {
    /// The same with how each of its configured servers is.
    pub fn with_states(mut self, state: impl Fn(&ServerKey) -> Option<ServerState>) -> Listing {
        for (row, key) in self.servers.iter_mut().zip(&self.keys).filter(|(row, _)| row.configured) {
            row.state = state(key);
        }
        self
    }
}

/// A decision about one server.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Decision {
    admin: Admin,
    /// Seconds since 1970.
    since: u64,
    /// The service's name at that time.
    name: String,
}

type Book = BTreeMap<ServerKey, Decision>;

/// All decisions that are in force.
#[derive(Debug)]
pub struct Decisions {
    path: PathBuf,
    book: Book,
}

/// A server that is asked for.
#[derive(Clone, Copy)]
struct Asked {
    address: IpAddr,
    port: Option<u16>,
}

impl Asked {
    fn parse(text: &str) -> Option<Asked> {
        naming::end(text).map(|(address, port)| Asked { address, port })
    }

    fn is(self, key: &ServerKey) -> bool {
        let port = key.port.or(key.service.ports.as_single());
        key.address == self.address && (self.port.is_none() || self.port == port)
    }
}

impl Decisions {
    /// Reads what was decided before. A file that cannot be used is reported, set aside, and stops nothing.
    pub fn open(path: &Path) -> Decisions {
        let book = match file::read(path) {
            Ok(book) => book,
            Err(why) => {
                match file::set_aside(path) {
                    Ok(aside) => {
                        error!("{why}: it is now {}, and no server is drained or in maintenance", aside.display())
                    }
                    Err(stays) => error!("{why}: no server is drained or in maintenance; nor can it be moved: {stays}"),
                }
                Book::new()
            }
        };
        Decisions { path: path.to_owned(), book }
    }

    /// The servers of which something was decided; some may not be configured.
    pub fn each(&self) -> impl Iterator<Item = (&ServerKey, Admin)> {
        self.book.iter().map(|(key, decision)| (key, decision.admin))
    }

    /// Answers a question. `now`: seconds since 1970; `apply` is called for each configured server about which something else was
    /// decided than before.
    ///
    /// # Errors
    /// What is wrong with the question.
    pub fn answer(
        &mut self,
        question: &Question,
        desired: &Desired,
        now: u64,
        apply: impl FnMut(&ServerKey, Admin),
    ) -> Result<Listing, String> {
        let meant = self.meant(question, desired)?;
        let mut listing = match question.action.admin() {
            Some(admin) => self.decide(&meant, admin, now, apply),
            None => {
                let servers = meant.iter().map(|(key, name, configured)| self.row(key, name, *configured));
                Listing { servers: servers.collect(), ..Listing::default() }
            }
        };
        listing.keys = meant.into_iter().map(|(key, ..)| key).collect();
        Ok(listing)
    }

    /// The servers that a question means, with their services' names and whether they are configured.
    fn meant(&self, question: &Question, desired: &Desired) -> Result<Vec<(ServerKey, String, bool)>, String> {
        let asked = match (&question.server, question.action) {
            (None, Action::List) => None,
            (None, _) => return Err("`server` is missing: say which, by its address or address and port".to_owned()),
            (Some(text), _) => Some(Asked::parse(text).ok_or_else(|| {
                let shown = cut(text);
                format!("`server` is {shown:?}; expected an address, or an address and a port such as 10.0.0.11:80 or [fd00::11]:80")
            })?),
        };
        let named = |name: &str, key: &ServiceKey| {
            question.service.as_ref().is_none_or(|wanted| wanted == name || naming::is_key(key, wanted))
        };
        let is_asked = |key: &ServerKey| asked.is_none_or(|asked| asked.is(key));
        let of = |service: &Service| -> Vec<(ServerKey, String, bool)> {
            let keys = service.servers.iter().map(|server| ServerKey::of(service, server));
            keys.filter(is_asked).map(|key| (key, service.name.clone(), true)).collect()
        };
        let mut meant: Vec<_> =
            desired.services.iter().filter(|service| named(&service.name, &service.key)).flat_map(of).collect();
        let old = self.book.iter().filter(|(key, decision)| named(&decision.name, &key.service) && is_asked(key));
        let old = old.filter(|(key, _)| !is_configured(desired, key));
        meant.extend(old.map(|(key, decision)| (*key, decision.name.clone(), false)));
        if let Some(wanted) = question.service.as_deref().filter(|_| meant.is_empty())
            && !desired.services.iter().any(|service| named(&service.name, &service.key))
        {
            let names = desired.services.iter().map(|service| service.name.as_str());
            let near = nearest(wanted, names).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
            let shown = cut(wanted);
            return Err(format!("there is no service `{shown}`{near}"));
        }
        match &question.server {
            Some(server) if meant.is_empty() => {
                let place =
                    question.service.as_ref().map_or("any service".to_owned(), |name| format!("the service `{name}`"));
                Err(format!("there is no server {server} in {place}; `evenkeel server list` shows all"))
            }
            _ => Ok(meant),
        }
    }

    fn row(&self, key: &ServerKey, name: &str, configured: bool) -> Row {
        let known = self.book.get(key);
        Row {
            service: name.to_owned(),
            server: key.to_string(),
            admin: known.map_or(Admin::Ready, |known| known.admin),
            since: known.map(|known| known.since),
            before: None,
            state: None,
            configured,
        }
    }

    fn decide(
        &mut self,
        meant: &[(ServerKey, String, bool)],
        admin: Admin,
        now: u64,
        mut apply: impl FnMut(&ServerKey, Admin),
    ) -> Listing {
        let (mut listing, mut changed) = (Listing::default(), false);
        for (key, name, configured) in meant {
            let before = self.book.get(key).map_or(Admin::Ready, |known| known.admin);
            if before != admin {
                changed = true;
                if admin == Admin::Ready {
                    self.book.remove(key);
                } else {
                    self.book.insert(*key, Decision { admin, since: now, name: name.clone() });
                }
                if *configured {
                    apply(key, admin);
                }
            }
            listing.servers.push(Row { before: Some(before), ..self.row(key, name, *configured) });
        }
        if changed && let Err(why) = file::write(&self.path, &self.book) {
            let text = format!("this does not outlast a restart: {why}");
            warn!("{text}");
            listing.warning = Some(text);
        }
        listing
    }
}

fn is_configured(desired: &Desired, key: &ServerKey) -> bool {
    let mut services = desired.services.iter().filter(|service| service.key == key.service);
    services.any(|service| service.servers.iter().any(|server| ServerKey::of(service, server) == *key))
}

#[cfg(test)]
mod tests;
