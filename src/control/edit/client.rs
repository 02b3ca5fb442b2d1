//! The commands `evenkeel service`, `evenkeel server` and `evenkeel save`.
//!
//! Owns their arguments and their text. Decides nothing: the engine does.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::{Edit, Question, save as saving};
use crate::control::config::problem::nearest;
use crate::control::config::schema::FILE;
use crate::control::health::admin::{self, Action};
use crate::control::health::client::ask_server;
use crate::control::naming;
use crate::control::socket::Command;
use crate::control::socket::client::{ClientError, DEFAULT_SOCKET, ask_with, failed};
use crate::model::Protocol;

/// Arguments of `evenkeel server`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evenkeel server drain 10.0.0.11:80
  evenkeel server weight 10.0.0.11:80 5 --service web
  evenkeel server add 10.0.0.14:80 weight=2 --service web
  evenkeel server edit 10.0.0.14:80 upper_threshold=500 --service web
  evenkeel server remove 10.0.0.14:80")]
pub struct ServerArgs {
    /// What to do.
    #[arg(value_enum, default_value = "list")]
    action: ServerVerb,
    /// The server's address, or its address and port, such as 10.0.0.11:80 or [fd00::11]:80; a listing goes without.
    #[arg(value_name = "ADDRESS[:PORT]")]
    server: Option<String>,
    /// For `weight` the weight, for `add` and `edit` keys of `[[service.server]]`; a key without a value goes away.
    #[arg(value_name = "KEY=VALUE")]
    values: Vec<String>,
    /// Only in this service: its name, or such as `tcp 192.0.2.10:80`; else in all that have the server.
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// The engine's control socket. Given more than once, each engine is told: the other appliance's may be one that `ssh -L`
    /// brings here.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: Vec<PathBuf>,
}

/// What can be done with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ServerVerb {
    /// Show servers and what was decided about them by hand.
    List,
    /// Give it no new flows; those that it has go on until the service's `drain_deadline`. Outlasts a reload and a restart.
    Drain,
    /// Take it out: no new flows, no persistent clients, and its flows meet the service's `flows_of_down`. Outlasts a reload and
    /// a restart.
    #[value(alias = "disable")]
    Maintenance,
    /// Let it serve again, as its checks say.
    #[value(alias = "enable")]
    Ready,
    /// Give it another weight, until the next reload or, after `evenkeel save`, for good.
    Weight,
    /// Add it to a service, as long.
    Add,
    /// Change keys of it, as long.
    #[value(alias = "change")]
    Edit,
    /// Remove it, as long.
    #[value(alias = "delete")]
    Remove,
}

/// Arguments of `evenkeel service`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  evenkeel service add 192.0.2.10:443 name=shop scheduler=wlc persistence=300
  evenkeel service add 192.0.2.53:53/udp one_packet=true
  evenkeel service edit shop scheduler=mh 'scheduler_flags=[\"mh-port\"]' persistence=
  evenkeel service remove shop
What `evenkeel service` changes lasts until the next reload; `evenkeel save` writes it to the configuration file.")]
pub struct ServiceArgs {
    /// What to do.
    #[arg(value_enum)]
    action: ServiceVerb,
    /// For `add` its address and port (`192.0.2.10:80`, `[2001:db8::10]:53/udp`); else its name, or such as `tcp 192.0.2.10:80`.
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Keys of `[[service]]`; a key without a value goes away.
    #[arg(value_name = "KEY=VALUE")]
    values: Vec<String>,
    /// Only say whether the engine would take it.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// The engine's control socket; given more than once, each engine is told.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: Vec<PathBuf>,
}

/// What can be done with a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ServiceVerb {
    /// Add it.
    Add,
    /// Change keys of it.
    #[value(alias = "change")]
    Edit,
    /// Remove it and its servers.
    #[value(alias = "delete")]
    Remove,
}

/// Arguments of `evenkeel save`.
#[derive(Debug, clap::Args)]
pub struct SaveArgs {
    /// Write also over a file that was changed since the engine read it.
    #[arg(long)]
    force: bool,
    /// Print the running configuration, and write nothing.
    #[arg(long, conflicts_with_all = ["force", "json"])]
    print: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// The engine's control socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// Runs `evenkeel server`.
pub fn server(args: ServerArgs) -> ExitCode {
    let decision = |action| Ok(Order::Decide(action));
    let order = match args.action {
        ServerVerb::List => decision(Action::List),
        ServerVerb::Drain => decision(Action::Drain),
        ServerVerb::Maintenance => decision(Action::Maintenance),
        ServerVerb::Ready => decision(Action::Ready),
        ServerVerb::Weight | ServerVerb::Add | ServerVerb::Edit | ServerVerb::Remove => {
            server_edit(&args).map(Order::Edit)
        }
    };
    let order = match order {
        Ok(Order::Decide(_)) if !args.values.is_empty() => {
            Err(format!("`{}` is one word too many", args.values.join(" ")))
        }
        order => order,
    };
    match order {
        Ok(Order::Decide(action)) => {
            let question = admin::Question { action, server: args.server, service: args.service };
            each(&args.socket, args.json, |socket| ask_server(socket, &question, args.json))
        }
        Ok(Order::Edit(edit)) => change(&args.socket, &edit, false, args.json),
        Err(why) => usage(&why),
    }
}

enum Order {
    Decide(Action),
    Edit(Edit),
}

fn server_edit(args: &ServerArgs) -> Result<Edit, String> {
    let Some(server) = args.server.clone() else {
        return Err("say which server: its address, or its address and port such as 10.0.0.11:80".to_owned());
    };
    let service = args.service.clone();
    let keys_of = FILE.table("service").and_then(|service| service.table("server"));
    let known = || keys_of.into_iter().flat_map(|table| table.names());
    match args.action {
        ServerVerb::Weight => {
            let [weight] = args.values.as_slice() else {
                return Err(format!("say the weight: `evenkeel server weight {server} 5`"));
            };
            let weight: u32 = weight.parse().map_err(|_| format!("{weight:?} is no weight; expected 0 or more"))?;
            let keys = Map::from_iter([("weight".to_owned(), json!(weight))]);
            Ok(Edit::EditServer { service, server, keys })
        }
        ServerVerb::Add => {
            let service = service.ok_or("say to which service: --service NAME")?;
            let (address, port) = end(&server)?;
            let mut keys = keys(&args.values, known)?;
            keys.insert("address".to_owned(), json!(address));
            if let Some(port) = port {
                keys.insert("port".to_owned(), json!(port));
            }
            Ok(Edit::AddServer { service, keys })
        }
        ServerVerb::Edit if args.values.is_empty() => Err("say what to change: KEY=VALUE".to_owned()),
        ServerVerb::Edit => Ok(Edit::EditServer { service, server, keys: keys(&args.values, known)? }),
        _ if args.values.is_empty() => Ok(Edit::RemoveServer { service, server }),
        _ => Err(format!("`{}` is one word too many", args.values.join(" "))),
    }
}

/// Runs `evenkeel service`.
pub fn service(args: ServiceArgs) -> ExitCode {
    match service_edit(&args) {
        Ok(edit) => change(&args.socket, &edit, args.dry_run, args.json),
        Err(why) => usage(&why),
    }
}

fn service_edit(args: &ServiceArgs) -> Result<Edit, String> {
    let table = FILE.table("service");
    let known = || table.into_iter().flat_map(|table| table.names());
    let service = args.service.clone();
    match args.action {
        ServiceVerb::Add => {
            let mut keys = keys(&args.values, known)?;
            let (end, protocol) = match service.rsplit_once('/') {
                Some((end, protocol)) => (end, Some(protocol)),
                None => (service.as_str(), None),
            };
            if let Some(protocol) = protocol {
                let all = Protocol::ALL.map(|protocol| protocol.name());
                if !all.contains(&protocol) {
                    return Err(format!("{protocol:?} is no protocol; expected one of {}", all.join(", ")));
                }
                keys.insert("protocol".to_owned(), json!(protocol));
            }
            let example = "expected an address and a port, such as 192.0.2.10:80 or [2001:db8::10]:any";
            let wrong = || format!("{end:?} is no service address; {example}");
            let (address, port) = end.rsplit_once(':').ok_or_else(wrong)?;
            let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
            let address: IpAddr = bare.parse().map_err(|_| wrong())?;
            keys.insert("address".to_owned(), json!(address));
            keys.insert("port".to_owned(), port.parse::<u16>().map_or_else(|_| json!(port), |port| json!(port)));
            Ok(Edit::AddService { keys })
        }
        ServiceVerb::Edit if args.values.is_empty() => Err("say what to change: KEY=VALUE".to_owned()),
        ServiceVerb::Edit => Ok(Edit::EditService { service, keys: keys(&args.values, known)? }),
        ServiceVerb::Remove if args.values.is_empty() => Ok(Edit::RemoveService { service }),
        ServiceVerb::Remove => Err(format!("`{}` is one word too many", args.values.join(" "))),
    }
}

fn end(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    naming::end(text).ok_or_else(|| {
        format!("{text:?} is no server; expected an address, or an address and a port such as 10.0.0.11:80")
    })
}

/// `KEY=VALUE` as the configuration file would have them: numbers, `true`, lists; everything else is text.
fn keys<I>(values: &[String], known: impl Fn() -> I) -> Result<Map<String, Value>, String>
where
    I: Iterator<Item = &'static str>,
{
    let mut keys = Map::new();
    for value in values {
        let (key, value) = value.split_once('=').ok_or_else(|| format!("{value:?} is no KEY=VALUE"))?;
        if !known().any(|name| name == key) {
            let near = nearest(key, known()).map(|word| format!("did you mean `{word}`? ")).unwrap_or_default();
            return Err(format!("there is no key {key:?}; {near}the configuration reference has them all"));
        }
        let read = match value {
            "" => Value::Null,
            text => toml_value(text).unwrap_or_else(|| json!(text)),
        };
        if keys.insert(key.to_owned(), read).is_some() {
            return Err(format!("{key} is there twice"));
        }
    }
    Ok(keys)
}

fn toml_value(text: &str) -> Option<Value> {
    let table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    match table.get("value")? {
        toml::Value::Datetime(_) => None,
        value if table.len() == 1 => serde_json::to_value(value).ok(),
        _ => None,
    }
}

/// Tells each engine; the others are told also where one refuses.
fn each(sockets: &[PathBuf], as_json: bool, ask: impl Fn(&Path) -> Result<(), ClientError>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for socket in sockets {
        if sockets.len() > 1 && !as_json {
            crate::control::print(&format!("{}:\n", socket.display()));
        }
        if let Err(error) = ask(socket) {
            code = failed(&error);
        }
    }
    code
}

fn change(sockets: &[PathBuf], edit: &Edit, dry_run: bool, as_json: bool) -> ExitCode {
    let question = json!(Question { edits: vec![edit.clone()], dry_run });
    each(sockets, as_json, |socket| {
        let answer = ask_with(socket, Command::Edit, &question)?;
        if as_json {
            crate::control::print(&format!("{answer}\n"));
            return Ok(());
        }
        let changed = answer.get("changed").and_then(Value::as_bool).unwrap_or_default();
        let words = match (changed, dry_run) {
            (true, false) => "changed; `evenkeel save` makes it last",
            (true, true) => "would be changed",
            (false, _) => "nothing to change",
        };
        crate::control::print(&format!("{words}\n"));
        for warning in answer.get("warnings").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
        {
            eprintln!("warning: {warning}");
        }
        Ok(())
    })
}

/// Runs `evenkeel save`.
pub fn save(args: SaveArgs) -> ExitCode {
    let question = json!(saving::Question { force: args.force, print: args.print });
    let answer = match ask_with(&args.socket, Command::Save, &question) {
        Ok(answer) => answer,
        Err(error) => return failed(&error),
    };
    let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default();
    let said = match args {
        SaveArgs { json: true, .. } => format!("{answer}\n"),
        SaveArgs { print: true, .. } => text("text").to_owned(),
        _ => match answer.get("saved").and_then(Value::as_u64) {
            Some(0) => format!("{}: has everything already\n", text("file")),
            _ => format!("{}: saved\n", text("file")),
        },
    };
    crate::control::print(&said);
    ExitCode::SUCCESS
}

/// A mistake on the command line, as clap's exit code has it.
fn usage(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> impl Iterator<Item = &'static str> {
        ["weight", "name", "scheduler_flags", "one_packet", "persistence"].into_iter()
    }

    fn read(values: &[&str]) -> Result<Value, String> {
        keys(&values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>(), known).map(Value::Object)
    }

    #[test]
    fn values_are_those_of_the_file() {
        let given = ["weight=5", "name=shop", "scheduler_flags=[\"mh-port\"]", "one_packet=true", "persistence="];
        let expected = json!({
            "weight": 5, "name": "shop", "scheduler_flags": ["mh-port"], "one_packet": true, "persistence": null,
        });
        assert_eq!(read(&given), Ok(expected));
        // Not TOML, or more than a value: text.
        assert_eq!(read(&["name=1979-05-27"]), Ok(json!({ "name": "1979-05-27" })));
        assert_eq!(read(&["name=1\nweight=2"]), Ok(json!({ "name": "1\nweight=2" })));
        for (values, part) in [
            (&["weight"][..], "no KEY=VALUE"),
            (&["wieght=5"], "did you mean `weight`?"),
            (&["weight=5", "weight=6"], "twice"),
        ] {
            assert!(read(values).is_err_and(|why| why.contains(part)));
        }
    }

    #[test]
    fn services_are_written_as_people_write_them() {
        let added = |service: &str| {
            let args = ServiceArgs {
                action: ServiceVerb::Add,
                service: service.to_owned(),
                values: Vec::new(),
                dry_run: false,
                json: false,
                socket: Vec::new(),
            };
            service_edit(&args).map(|edit| match edit {
                Edit::AddService { keys } => Value::Object(keys),
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(added("192.0.2.10:80"), Ok(json!({ "address": "192.0.2.10", "port": 80 })));
        let udp = json!({ "address": "2001:db8::10", "port": "any", "protocol": "udp" });
        assert_eq!(added("[2001:db8::10]:any/udp"), Ok(udp));
        for (text, part) in [
            ("192.0.2.10", "no service address"),
            ("web:80", "no service address"),
            ("192.0.2.10:80/ip", "no protocol"),
        ] {
            assert!(added(text).is_err_and(|why| why.contains(part)), "{text}");
        }
        assert_eq!(end("[fd00::1]:80"), Ok(("fd00::1".parse().expect("an address"), Some(80))));
        assert!(end("fd00::zz").is_err());
    }
}
