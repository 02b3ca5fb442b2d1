//! Whom a decision reaches, how it outlasts a restart, and what becomes of a file that cannot be used.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::model::{Method, PortRange, Protocol, Scheduler, Server, ServiceKey};

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("evenkeel-admin-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        Place(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("lib/state.json")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn service(name: &str, ports: PortRange, servers: &[(&str, Option<u16>)]) -> Service {
    let key = ServiceKey { address: IpAddr::from([192, 0, 2, 10]), protocol: Protocol::Tcp, ports };
    let server = |(address, port): &(&str, Option<u16>)| {
        Server::new(address.parse().expect("an address"), *port, 1, Method::Nat)
    };
    Service::dr(name, key, Scheduler::RR, servers.iter().map(server).collect())
}

fn desired() -> Desired {
    Desired::of(vec![
        service(
            "web",
            PortRange::single(80),
            &[("10.0.0.11", None), ("10.0.0.12", Some(8080)), ("10.0.0.12", Some(8081))],
        ),
        service("shop", PortRange::single(443), &[("10.0.0.11", None)]),
        service("all", PortRange::ANY, &[("fd00::11", None)]),
    ])
}

fn question(action: Action, server: &str, service: Option<&str>) -> Question {
    let server = (!server.is_empty()).then(|| server.to_owned());
    Question { action, server, service: service.map(str::to_owned) }
}

/// The answer in short, and what was applied.
fn ask(decisions: &mut Decisions, desired: &Desired, question: &Question) -> Result<(Vec<String>, usize), String> {
    let mut applied = 0;
    let listing = decisions.answer(question, desired, 77, |_, _| applied += 1)?;
    let listing = listing.with_states(|_| Some(ServerState::Up));
    assert_eq!(listing.warning, None);
    let short = |row: &Row| {
        let before = row.before.map(|before| format!(" {}>", before.name())).unwrap_or_default();
        assert_eq!(row.state.is_some(), row.configured);
        format!("{} {}{before} {}", row.service, row.server, row.admin.name())
    };
    Ok((listing.servers.iter().map(short).collect(), applied))
}

#[test]
fn decisions_reach_the_servers_that_are_meant() {
    let place = Place::new("meant");
    let mut decisions = Decisions::open(&place.file());
    let desired = desired();
    use Action::{Drain, List, Maintenance, Ready};
    for (action, server, service, expected, applied) in [
        (Drain, "10.0.0.11", None, vec!["web 10.0.0.11:80 ready> drain", "shop 10.0.0.11:443 ready> drain"], 2),
        // Once more changes nothing.
        (Drain, "10.0.0.11:80", None, vec!["web 10.0.0.11:80 drain> drain"], 0),
        (Maintenance, "10.0.0.11", Some("shop"), vec!["shop 10.0.0.11:443 drain> maintenance"], 1),
        (Drain, "10.0.0.12:8081", None, vec!["web 10.0.0.12:8081 ready> drain"], 1),
        (Ready, "10.0.0.12", None, vec!["web 10.0.0.12:8080 ready> ready", "web 10.0.0.12:8081 drain> ready"], 1),
        (Maintenance, "[fd00::11]", None, vec!["all fd00::11 ready> maintenance"], 1),
        (
            List,
            "",
            None,
            vec![
                "web 10.0.0.11:80 drain",
                "web 10.0.0.12:8080 ready",
                "web 10.0.0.12:8081 ready",
                "shop 10.0.0.11:443 maintenance",
                "all fd00::11 maintenance",
            ],
            0,
        ),
        (List, "fd00::11", None, vec!["all fd00::11 maintenance"], 0),
        (List, "", Some("shop"), vec!["shop 10.0.0.11:443 maintenance"], 0),
        // As the help of `evenkeel server` says.
        (List, "", Some("tcp 192.0.2.10:443"), vec!["shop 10.0.0.11:443 maintenance"], 0),
    ] {
        let answer = ask(&mut decisions, &desired, &question(action, server, service));
        assert_eq!(
            answer,
            Ok((expected.iter().map(|text| (*text).to_owned()).collect(), applied)),
            "{action:?} {server}"
        );
    }
    for (action, server, service, part) in [
        (Drain, "", None, "`server` is missing"),
        (Drain, "web1", None, "expected an address"),
        (Drain, "10.0.0.11:x", None, "expected an address"),
        (Drain, "10.0.0.99", None, "there is no server 10.0.0.99 in any service"),
        (Drain, "10.0.0.11:81", None, "there is no server 10.0.0.11:81"),
        (Drain, "10.0.0.12", Some("shop"), "in the service `shop`"),
        (Drain, "10.0.0.11", Some("shpo"), "did you mean `shop`?"),
        (List, "", Some("nothing"), "there is no service `nothing`"),
    ] {
        let error = ask(&mut decisions, &desired, &question(action, server, service)).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn decisions_outlast_a_restart_and_servers_that_go_and_come_back() {
    let place = Place::new("restart");
    let mut desired = desired();
    let mut decisions = Decisions::open(&place.file());
    for server in ["10.0.0.11", "10.0.0.12:8080", "fd00::11"] {
        ask(&mut decisions, &desired, &question(Action::Maintenance, server, None)).expect("an answer");
    }
    let mode = fs::metadata(place.file()).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let all: Vec<(ServerKey, Admin)> = decisions.each().map(|(key, admin)| (*key, admin)).collect();
    assert_eq!(all.len(), 4);
    let mut again = Decisions::open(&place.file());
    assert_eq!(again.each().map(|(key, admin)| (*key, admin)).collect::<Vec<_>>(), all);
    // Its service is not configured any more: remembered, listed last, and it can be forgotten.
    let shop = desired.services.remove(1);
    let (rows, applied) = ask(&mut again, &desired, &question(Action::List, "10.0.0.11", None)).expect("an answer");
    assert_eq!(
        (rows, applied),
        (vec!["web 10.0.0.11:80 maintenance".to_owned(), "shop 10.0.0.11:443 maintenance".to_owned()], 0)
    );
    let mut later = Decisions::open(&place.file());
    desired.services.push(shop);
    let (rows, _) = ask(&mut later, &desired, &question(Action::List, "", Some("shop"))).expect("an answer");
    assert_eq!(rows, ["shop 10.0.0.11:443 maintenance"]);
    desired.services.pop();
    let (rows, applied) =
        ask(&mut later, &desired, &question(Action::Ready, "10.0.0.11:443", None)).expect("an answer");
    assert_eq!((rows, applied), (vec!["shop 10.0.0.11:443 maintenance> ready".to_owned()], 0));
    assert_eq!(Decisions::open(&place.file()).each().count(), 3);
    // Nothing but the file is left in the folder.
    let folder = fs::read_dir(place.file().parent().expect("a folder")).expect("a folder");
    assert_eq!(folder.count(), 1);
}

#[test]
fn a_broken_file_is_set_aside() {
    let good = r#"{"version":1,"servers":[{"service":"web","protocol":"tcp","address":"192.0.2.10","port":"80","server":"10.0.0.11","admin":"drain","since":5}]}"#;
    let place = Place::new("broken");
    fs::create_dir_all(place.file().parent().expect("a folder")).expect("a folder");
    fs::write(place.file(), good).expect("a file");
    assert_eq!(Decisions::open(&place.file()).each().map(|(_, admin)| admin).collect::<Vec<_>>(), [Admin::Drain]);
    let aside = place.0.join("lib/state.json.broken");
    let mut broken = vec![
        String::new(),
        "{}".to_owned(),
        "[]".to_owned(),
        good.replace("\"version\":1", "\"version\":2"),
        good.replace("\"80\"", "\"99999\""),
        good.replace("\"80\"", "\"9-3\""),
        good.replace("drain", "drained"),
        good.replace("10.0.0.11", "10.0.0"),
        good.replace('}', ""),
    ];
    broken.extend((0..good.len()).step_by(7).map(|length| good[..length].to_owned()));
    for text in broken {
        fs::write(place.file(), &text).expect("a file");
        let mut decisions = Decisions::open(&place.file());
        assert_eq!(decisions.each().count(), 0, "{text}");
        assert_eq!(fs::read_to_string(&aside).expect("set aside"), text);
        assert!(!place.file().exists());
        // It goes on with a new one.
        ask(&mut decisions, &desired(), &question(Action::Drain, "10.0.0.11", None)).expect("an answer");
        assert_eq!(Decisions::open(&place.file()).each().count(), 2);
    }
    // A folder, or a FIFO that would hang, in its place.
    fs::remove_file(place.file()).expect("a file");
    nix::unistd::mkfifo(&place.file(), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    assert_eq!(Decisions::open(&place.file()).each().count(), 0);
    assert!(!place.file().exists());
}

#[test]
fn a_decision_that_cannot_be_kept_is_made_all_the_same() {
    let place = Place::new("refused");
    // The folder's name is a file's.
    fs::write(place.0.join("lib"), "").expect("a file");
    let mut decisions = Decisions { path: place.file(), book: Book::new() };
    let mut applied = Vec::new();
    let question = question(Action::Maintenance, "10.0.0.12:8080", None);
    let listing = decisions.answer(&question, &desired(), 5, |key, admin| applied.push((key.to_string(), admin)));
    let listing = listing.expect("an answer");
    assert!(listing.warning.as_ref().is_some_and(|text| text.contains("does not outlast a restart")), "{listing:?}");
    assert_eq!(applied, [("10.0.0.12:8080".to_owned(), Admin::Maintenance)]);
}

#[test]
fn questions_are_read_or_explained() {
    let read = |text: &str| match serde_json::from_str(text) {
        Ok(Value::Object(options)) => Question::read(&options),
        other => panic!("{other:?}"),
    };
    assert_eq!(read("{}"), Ok(Question::default()));
    let full = read(r#"{"action":"maintenance","server":"10.0.0.11","service":"web"}"#);
    assert_eq!(full, Ok(question(Action::Maintenance, "10.0.0.11", Some("web"))));
    for text in [r#"{"action":"drian"}"#, r#"{"server":7}"#, r#"{"who":"x"}"#] {
        assert!(read(text).unwrap_err().contains("of the command `server`"));
    }
}
