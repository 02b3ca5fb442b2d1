//! What a question about the status asks for: parts of it, of some services or servers.
//!
//! Owns the words and their reading. A part is named as the member of the answer that it brings. Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Status;
use crate::control::config::problem::nearest;
use crate::control::naming::{cut, end, is_key};
use crate::control::socket::Code;
use crate::model::{Desired, Server, ServerKey, Service};

/// The names of a [`Question`]'s members.
pub const OPTIONS: &[&str] = &["parts", "service", "server"];

macro_rules! parts {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// A member of the status.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(into = "&'static str", try_from = "String")]
        pub enum Part {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Part {
            /// Every part, in the order of the answer.
            pub const ALL: &'static [Part] = &[$(Part::$variant,)+];

            /// Its name, and that of the answer's member.
            pub const fn name(self) -> &'static str {
                match self { $(Part::$variant => $name,)+ }
            }
        }
    };
}

parts! {
    /// The process.
    Engine = "engine",
    /// The configuration in force.
    Config = "config",
    /// Interfaces and their queues.
    Interfaces = "interfaces",
    /// Workers.
    Workers = "workers",
    /// Services and their servers.
    Services = "services",
    /// The timeouts that `ipvsadm` knows.
    Timeouts = "timeouts",
    /// Health checks.
    Checks = "checks",
    /// Local addresses of full NAT.
    LocalPorts = "local_ports",
    /// Client networks that are counted for limits.
    LimitedClients = "limited_clients",
    /// Persistent clients.
    Persistence = "persistence",
    /// Virtual routers.
    Vrrp = "vrrp",
    /// Next hops of all servers.
    Neighbors = "neighbors",
    /// Dropped packets by reason.
    Drops = "drops",
    /// The same, for each worker.
    DropsByWorker = "drops_by_worker",
    /// The web listener.
    Web = "web",
    /// What someone should look at.
    Warnings = "warnings",
}

impl Part {
    /// Whether it comes without being named: what only looks closer does not.
    const fn is_usual(self) -> bool {
        !matches!(self, Part::Neighbors | Part::DropsByWorker)
    }
}

impl Status {
    /// The parts that are wanted, as one JSON object. It is written piece by piece, for with many servers it is large.
    ///
    /// # Errors
    /// What JSON cannot say; there is no such thing in a status.
    pub fn written(&self, wants: impl Fn(Part) -> bool) -> serde_json::Result<String> {
        object(|part| wants(part) && self.has(part), |part, out| self.write_part(part, out))
    }

    /// Whether there is something to say: some parts can be absent.
    pub const fn has(&self, part: Part) -> bool {
        match part {
            Part::Vrrp => self.vrrp.is_some(),
            Part::Neighbors => self.neighbors.is_some(),
            Part::DropsByWorker => self.drops_by_worker.is_some(),
            Part::Web => self.web.is_some(),
            _ => true,
        }
    }

    /// Appends a part as JSON.
    ///
    /// # Errors
    /// As [`Status::written`].
    pub fn write_part(&self, part: Part, out: &mut Vec<u8>) -> serde_json::Result<()> {
        match part {
            Part::Engine => serde_json::to_writer(out, &self.engine),
            Part::Config => serde_json::to_writer(out, &self.config),
            Part::Interfaces => serde_json::to_writer(out, &self.interfaces),
            Part::Workers => serde_json::to_writer(out, &self.workers),
            Part::Services => serde_json::to_writer(out, &self.services),
            Part::Timeouts => serde_json::to_writer(out, &self.timeouts),
            Part::Checks => serde_json::to_writer(out, &self.checks),
            Part::LocalPorts => serde_json::to_writer(out, &self.local_ports),
            Part::LimitedClients => serde_json::to_writer(out, &self.limited_clients),
            Part::Persistence => serde_json::to_writer(out, &self.persistence),
            Part::Vrrp => serde_json::to_writer(out, &self.vrrp),
            Part::Neighbors => serde_json::to_writer(out, &self.neighbors),
            Part::Drops => serde_json::to_writer(out, &self.drops),
            Part::DropsByWorker => serde_json::to_writer(out, &self.drops_by_worker),
            Part::Web => serde_json::to_writer(out, &self.web),
            Part::Warnings => serde_json::to_writer(out, &self.warnings),
        }
    }
}

impl From<Part> for &'static str {
    fn from(part: Part) -> &'static str {
        part.name()
    }
}

impl TryFrom<String> for Part {
    type Error = String;

    fn try_from(name: String) -> Result<Part, String> {
        let names = || Part::ALL.iter().map(|part| part.name());
        Part::ALL.iter().find(|part| part.name() == name).copied().ok_or_else(|| {
            let near = nearest(&name, names()).map(|word| format!("did you mean `{word}`? ")).unwrap_or_default();
            let all = names().collect::<Vec<_>>().join(", ");
            format!("there is no part {:?}; {near}it is one of {all}", cut(&name))
        })
    }
}

/// One JSON object of some parts, in the order of [`Part::ALL`]; `write` appends a part's value.
///
/// # Errors
/// What `write` fails with.
pub fn object(
    wants: impl Fn(Part) -> bool,
    mut write: impl FnMut(Part, &mut Vec<u8>) -> serde_json::Result<()>,
) -> serde_json::Result<String> {
    let mut out = vec![b'{'];
    for part in Part::ALL.iter().copied().filter(|part| wants(*part)) {
        if out.len() > 1 {
            out.push(b',');
        }
        serde_json::to_writer(&mut out, part.name())?;
        out.push(b':');
        write(part, &mut out)?;
    }
    out.push(b'}');
    // It is UTF-8: that is what JSON is written in.
    Ok(String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Question {
    /// The parts that are wanted; absent: all that are usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parts: Option<Vec<Part>>,
    /// Only services of this name, or this protocol, address and port, such as `tcp 192.0.2.10:80`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Only servers with this address, or this address and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
}

impl Question {
    /// A question for some parts of everything.
    pub fn parts(parts: &[Part]) -> Question {
        Question { parts: Some(parts.to_vec()), ..Question::default() }
    }

    /// A question as it came over the control socket.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(options: &Map<String, Value>) -> Result<Question, String> {
        let question: Question = serde_json::from_value(Value::Object(options.clone())).map_err(|error| {
            let why: String = error.to_string().chars().take(400).collect();
            format!("`options` of the command `status`: {why}")
        })?;
        if let Some(text) = question.server.as_deref().filter(|text| end(text).is_none()) {
            let shown = cut(text);
            return Err(format!(
                "`server` is {shown:?}; expected an address, or an address and a port such as 10.0.0.11:80 or [fd00::11]:80"
            ));
        }
        Ok(question)
    }

    /// Whether a part is to be in the answer.
    pub fn wants(&self, part: Part) -> bool {
        self.parts.as_ref().map_or(part.is_usual(), |parts| parts.contains(&part))
    }

    /// Whether some services or servers are named.
    pub const fn is_narrow(&self) -> bool {
        self.service.is_some() || self.server.is_some()
    }

    /// Whether a service is meant, as far as services are named.
    pub fn names(&self, service: &Service) -> bool {
        self.service.as_ref().is_none_or(|wanted| *wanted == service.name || is_key(&service.key, wanted))
    }

    /// Whether a server is meant, as far as servers are named.
    pub fn names_server(&self, service: &Service, server: &Server) -> bool {
        let Some((address, port)) = self.server.as_deref().and_then(end) else { return self.server.is_none() };
        let key = ServerKey::of(service, server);
        address == key.address && (port.is_none() || port == key.port.or(key.service.ports.as_single()))
    }

    /// Whether anything of a service is in the answer.
    pub fn concerns(&self, service: &Service) -> bool {
        let has = || service.all_servers().any(|server| self.names_server(service, server));
        self.names(service) && (self.server.is_none() || has())
    }

    /// Refuses a question about what is not there.
    ///
    /// # Errors
    /// What sort of refusal it is, and what is not there.
    pub fn find(&self, desired: &Desired) -> Result<(), (Code, String)> {
        if let Some(wanted) = self.service.as_deref().filter(|_| !desired.services.iter().any(|s| self.names(s))) {
            let near = nearest(wanted, desired.services.iter().map(|service| service.name.as_str()));
            let near = near.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
            return Err((Code::NoService, format!("there is no service `{}`{near}", cut(wanted))));
        }
        if let Some(wanted) = self.server.as_deref().filter(|_| !desired.services.iter().any(|s| self.concerns(s))) {
            let place = self.service.as_ref().map_or("any service".to_owned(), |name| format!("the service `{name}`"));
            return Err((
                Code::NoServer,
                format!("there is no server {wanted} in {place}; `evenkeel servers` shows all"),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::control::config;

    fn read(options: Value) -> Result<Question, String> {
        Question::read(options.as_object().expect("an object"))
    }

    #[test]
    fn parts_are_those_of_the_answer() {
        let usual = read(json!({})).unwrap();
        assert_eq!(usual, Question::default());
        let left_out: Vec<&Part> = Part::ALL.iter().filter(|part| !usual.wants(**part)).collect();
        assert_eq!(left_out, [&Part::Neighbors, &Part::DropsByWorker]);
        let two = read(json!({"parts": ["drops", "neighbors"]})).unwrap();
        assert_eq!(two, Question::parts(&[Part::Drops, Part::Neighbors]));
        assert_eq!(json!(two), json!({"parts": ["drops", "neighbors"]}));
        assert!(two.wants(Part::Neighbors) && !two.wants(Part::Services));
        assert!(!read(json!({"parts": []})).unwrap().wants(Part::Engine));
        let members = serde_json::to_value(crate::control::status::Status {
            vrrp: Some(Default::default()),
            neighbors: Some(Vec::new()),
            drops_by_worker: Some(Vec::new()),
            web: Some(Default::default()),
            ..Default::default()
        });
        let members = members.unwrap();
        let mut members: Vec<&str> = members.as_object().unwrap().keys().map(String::as_str).collect();
        let mut names: Vec<&str> = Part::ALL.iter().map(|part| part.name()).collect();
        members.sort_unstable();
        names.sort_unstable();
        assert_eq!(members, names);
    }

    #[test]
    fn a_status_is_written_as_it_is_read() {
        let full = Status {
            vrrp: Some(Default::default()),
            neighbors: Some(Vec::new()),
            drops: [("no-server".to_owned(), 7)].into(),
            drops_by_worker: Some(vec![[("no-server".to_owned(), 7)].into()]),
            web: Some(Default::default()),
            warnings: vec!["\"é\"\n".to_owned()],
            ..Status::default()
        };
        for status in [full, Status::default()] {
            let whole: Value = serde_json::from_str(&status.written(|_| true).unwrap()).unwrap();
            assert_eq!(whole, serde_json::to_value(&status).unwrap());
            let two = status.written(|part| matches!(part, Part::Drops | Part::Vrrp)).unwrap();
            let two: Value = serde_json::from_str(&two).unwrap();
            let mut wanted = serde_json::to_value(&status).unwrap();
            wanted.as_object_mut().unwrap().retain(|name, _| name == "drops" || name == "vrrp");
            assert_eq!(two, wanted);
            assert_eq!(status.written(|_| false).unwrap(), "{}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (options, part) in [
            (json!({"parts": ["service"]}), "did you mean `services`?"),
            (json!({"parts": ["x".repeat(9000)]}), "there is no part \"xxx"),
            (json!({"parts": "services"}), "invalid type"),
            (json!({"parts": [1]}), "invalid type"),
            (json!({"service": 1}), "invalid type"),
            (json!({"server": "web1"}), "expected an address"),
            (json!({"server": "10.0.0.11:http"}), "expected an address"),
        ] {
            let error = read(options).unwrap_err();
            assert!(error.contains(part) && error.len() < 600, "{error}");
        }
    }

    #[test]
    fn services_and_servers_are_found_or_missed() {
        let text = "[[interface]]\nname = \"eth0\"\n\
            [[service]]\nname = \"web\"\naddress = \"192.0.2.10\"\nport = 80\nmethod = \"nat\"\n\
            server = [{ address = \"10.0.0.11\", port = 8080 }, { address = \"10.0.0.12\" }]\n\
            [[service]]\nname = \"dns\"\naddress = \"2001:db8::10\"\nprotocol = \"udp\"\nport = 53\n\
            server = [{ address = \"fd00::11\" }]\n";
        let desired = config::parse(text, 1).desired.expect("it is sound");
        let ask = |service: Option<&str>, server: Option<&str>| Question {
            service: service.map(str::to_owned),
            server: server.map(str::to_owned),
            parts: None,
        };
        let found = |question: &Question| {
            question.find(&desired).map(|()| {
                let of = |service: &Service| {
                    let servers = service.servers.iter().filter(|server| question.names_server(service, server));
                    servers.map(|server| ServerKey::of(service, server).to_string()).collect::<Vec<_>>()
                };
                desired.services.iter().filter(|s| question.concerns(s)).flat_map(of).collect::<Vec<_>>().join(" ")
            })
        };
        for (service, server, expected) in [
            (None, None, "10.0.0.11:8080 10.0.0.12:80 [fd00::11]:53"),
            (Some("web"), None, "10.0.0.11:8080 10.0.0.12:80"),
            (Some("TCP 192.0.2.10:80"), None, "10.0.0.11:8080 10.0.0.12:80"),
            (Some("udp [2001:db8::10]:53"), None, "[fd00::11]:53"),
            (None, Some("10.0.0.12"), "10.0.0.12:80"),
            (Some("web"), Some("10.0.0.11:8080"), "10.0.0.11:8080"),
            (None, Some("[fd00::11]"), "[fd00::11]:53"),
        ] {
            assert_eq!(found(&ask(service, server)), Ok(expected.to_owned()));
        }
        for (service, server, code, part) in [
            (Some("wbe"), None, Code::NoService, "did you mean `web`?"),
            (Some("tcp 192.0.2.10:81"), None, Code::NoService, "there is no service `tcp 192.0.2.10:81`"),
            (None, Some("10.0.0.11:80"), Code::NoServer, "there is no server 10.0.0.11:80 in any service"),
            (Some("dns"), Some("10.0.0.11"), Code::NoServer, "in the service `dns`"),
        ] {
            let (kind, error) = ask(service, server).find(&desired).unwrap_err();
            assert!(kind == code && error.contains(part), "{kind:?} {error}");
        }
    }
}
