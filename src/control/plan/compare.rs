//! Two configurations side by side: what of one list is in the other, and which keys have other values.
//!
//! Owns who is the same as whom. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Affected, Change, How, KeyChange, Loads, What};
use crate::control::compile::identity;
use crate::control::config::render;
use crate::model::{Access, CheckKind, Desired, Judgement, Prefix, Server, ServerKey, Service, Web, Who};

/// Keys whose values are secret, or may be.
const SECRET: [&str; 4] = ["password", "headers", "environment", "contents"];

/// Most names and prefixes that are named one by one.
const MOST_NAMED: usize = 5;

/// Two lists side by side.
pub(super) struct Matched<'l, T> {
    pub removed: Vec<&'l T>,
    pub added: Vec<&'l T>,
    pub both: Vec<(&'l T, &'l T)>,
    /// Those in both are in another order.
    pub reordered: bool,
}

/// Puts lists side by side, by what makes their items the same ones. Of several that are the same, the first are.
pub(super) fn matched<'l, T, K: Eq + Hash>(old: &'l [T], new: &'l [T], key: impl Fn(&T) -> K) -> Matched<'l, T> {
    let mut waiting: HashMap<K, Vec<usize>> = HashMap::with_capacity(old.len());
    for (at, one) in old.iter().enumerate().rev() {
        waiting.entry(key(one)).or_default().push(at);
    }
    let (mut added, mut both, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for one in new {
        match waiting.get_mut(&key(one)).and_then(Vec::pop) {
            Some(at) => {
                both.push((&old[at], one));
                places.push(at);
            }
            None => added.push(one),
        }
    }
    let known: HashSet<usize> = places.iter().copied().collect();
    let removed = old.iter().enumerate().filter(|(at, _)| !known.contains(at)).map(|(_, one)| one).collect();
    Matched { removed, added, both, reordered: !places.is_sorted() }
}

/// Keys of a table in their order, with those of inner tables.
pub(super) type Keys = Vec<(String, String)>;

/// The keys of a table without inner ones.
pub(super) fn plain(keys: render::Keys) -> Keys {
    keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Keys with other values, in the order of the new ones, those that are gone last.
pub(super) fn changed(old: Keys, new: Keys) -> Vec<KeyChange> {
    let secret = |key: &str| key.rsplit('.').next().is_some_and(|last| SECRET.contains(&last));
    let shown = |key: &str, value: String| if secret(key) { "(not shown)".to_owned() } else { value };
    let mut before: BTreeMap<String, String> = BTreeMap::new();
    let mut order = Vec::with_capacity(old.len());
    for (key, value) in old {
        order.push(key.clone());
        before.insert(key, value);
    }
    let mut all = Vec::new();
    for (key, value) in new {
        let old = before.remove(&key);
        if old.as_ref() != Some(&value) {
            let (old, new) = (old.map(|value| shown(&key, value)), Some(shown(&key, value)));
            all.push(KeyChange { key, old, new });
        }
    }
    for key in order {
        if let Some(value) = before.remove(&key) {
            let old = Some(shown(&key, value));
            all.push(KeyChange { key, old, new: None });
        }
    }
    all
}

/// Several names in a few words.
fn named<T: ToString>(all: impl ExactSizeIterator<Item = T>) -> String {
    let count = all.len();
    let mut names: Vec<String> = all.take(MOST_NAMED).map(|one| one.to_string()).collect();
    if count > MOST_NAMED {
        names.push(format!("and {} more", count - MOST_NAMED));
    }
    names.join(", ")
}

/// What the lists deny and allow otherwise.
pub(super) fn access(old: &Arc<Access>, new: &Arc<Access>) -> Option<Change> {
    if old == new {
        return None;
    }
    let mut keys = Vec::new();
    if old.default != new.default {
        let word = |access: &Access| Some(format!("\"{}\"", access.default.name()));
        keys.push(KeyChange { key: "default".to_owned(), old: word(old), new: word(new) });
    }
    let set = |access: &Access| -> HashSet<(Prefix, Judgement)> { access.lists().iter().copied().collect() };
    let (before, after) = (set(old), set(new));
    for (key, judgement) in [("deny", Judgement::Deny), ("allow", Judgement::Allow)] {
        let only = |these: &Access, others: &HashSet<(Prefix, Judgement)>| {
            let mine = these.lists().iter().filter(|one| one.1 == judgement && !others.contains(*one));
            let mine: Vec<Prefix> = mine.map(|(prefix, _)| *prefix).collect();
            (!mine.is_empty()).then(|| named(mine.iter()))
        };
        let (gone, come) = (only(old, &after), only(new, &before));
        if gone.is_some() || come.is_some() {
            keys.push(KeyChange { key: key.to_owned(), old: gone, new: come });
        }
    }
    Some(Change { keys, ..Change::new(What::Access, How::Changed, "") })
}

/// `[control]`, with the numbers that names stand for. Who may do what is taken at once, the paths are not.
pub(super) fn control(old: &Desired, new: &Desired) -> Vec<Change> {
    let keys = |desired: &Desired| {
        let mut keys = plain(render::control(desired));
        let people = desired.roles.admins.iter().chain(&desired.roles.readers);
        keys.extend(people.filter_map(|who| match who {
            Who::Anyone => None,
            Who::User { word, id } => Some((format!("user {word}"), format!("uid {id}"))),
            Who::Group { word, id, members } => {
                let members: Vec<String> = members.iter().map(ToString::to_string).collect();
                let members = if members.is_empty() { String::new() } else { format!(", uids {}", members.join(", ")) };
                Some((format!("group {word}"), format!("gid {id}{members}")))
            }
        }));
        keys
    };
    let (paths, roles): (Vec<KeyChange>, Vec<KeyChange>) =
        changed(keys(old), keys(new)).into_iter().partition(|one| matches!(one.key.as_str(), "socket" | "state"));
    let change = |keys: Vec<KeyChange>, restart| {
        (!keys.is_empty()).then(|| Change { keys, restart, ..Change::new(What::Control, How::Changed, "") })
    };
    change(roles, false).into_iter().chain(change(paths, true)).collect()
}

/// The web listener; a file with other contents is a change, too.
pub(super) fn web(old: Option<&Web>, new: Option<&Web>) -> Option<Change> {
    let keys = |web: &Web| {
        let mut keys = plain(render::web(web));
        if let Some(tls) = &web.tls {
            let chain = String::from_utf8_lossy(&tls.chain).into_owned();
            keys.push(("certificate.contents".to_owned(), chain));
            keys.push(("key.contents".to_owned(), String::from_utf8_lossy(&tls.secret).into_owned()));
        }
        if let Some(users) = &web.users {
            let lines = users.list.iter().map(|user| format!("{}:{}\n", user.name, user.hash));
            keys.push(("users.contents".to_owned(), lines.collect()));
        }
        keys
    };
    match (old, new) {
        (None, None) => None,
        (None, Some(_)) => Some(Change::new(What::Web, How::Added, "")),
        (Some(_), None) => Some(Change::new(What::Web, How::Removed, "")),
        (Some(old), Some(new)) => {
            let keys = changed(keys(old), keys(new));
            (!keys.is_empty()).then(|| Change { keys, ..Change::new(What::Web, How::Changed, "") })
        }
    }
}

/// A service in a few words.
pub(super) fn service_words(service: &Service) -> String {
    let servers = service.servers.iter().map(|server| ServerKey::of(service, server));
    let count = service.servers.len();
    let servers = match count {
        0 => "no servers".to_owned(),
        1 => format!("server {}", named(servers)),
        _ => format!("{count} servers: {}", named(servers)),
    };
    format!("{}, {}, {}, {servers}", service.key, service.scheduler.name, service.method.name())
}

fn server_words(server: &Server) -> String {
    format!("weight {}, {}", server.weight, server.method.name())
}

/// The keys of a server, and those of its checks.
fn server_keys(server: &Server) -> Keys {
    let mut keys = plain(render::server(server));
    if server.health.default_check {
        let usual: Vec<String> = server.health.checks.iter().map(ToString::to_string).collect();
        keys.push(("check".to_owned(), format!("the usual one: {}", usual.join(", "))));
        return keys;
    }
    for (at, check) in server.health.checks.iter().enumerate() {
        keys.extend(render::check(check).into_iter().map(|(key, value)| (format!("check.{at}.{key}"), value)));
        let CheckKind::Http(http) = &check.kind else { continue };
        for (number, request) in http.requests.iter().enumerate() {
            let inner = render::check_request(request).into_iter();
            keys.extend(inner.map(|(key, value)| (format!("check.{at}.request.{number}.{key}"), value)));
        }
    }
    keys
}

/// The servers of a service that stays.
pub(super) fn servers(changes: &mut Vec<Change>, old: &Service, new: &Service, loads: &Loads) {
    if old.servers == new.servers {
        return;
    }
    let Matched { removed, added, both, reordered } = matched(&old.servers, &new.servers, identity);
    let of = |change: Change| Change { service: Some(new.name.clone()), ..change };
    // The sorry server may have become one of the others, or the other way round: its flows stay.
    let stays = |server: &Server| new.all_servers().any(|known| identity(known) == identity(server));
    let affected = |server: &Server| {
        let flows = loads.of_server(old, server);
        (flows > 0 && !stays(server)).then_some(Affected { flows, fate: new.fates.removed })
    };
    // One with another method or port is another one for flows, and the same one for people.
    let (gone, come) = (removed, added);
    let mut replaced: HashMap<IpAddr, Vec<&Server>> = HashMap::new();
    for server in gone.iter().rev() {
        replaced.entry(server.address).or_default().push(server);
    }
    let (mut added, mut pairs) = (Vec::new(), Vec::new());
    for server in come {
        match replaced.get_mut(&server.address).and_then(Vec::pop) {
            Some(before) => pairs.push((before, server)),
            None => added.push(server),
        }
    }
    // The first of an address were paired: what is left of it are its last.
    let left: HashMap<IpAddr, usize> = replaced.iter().map(|(address, left)| (*address, left.len())).collect();
    let mut seen: HashMap<IpAddr, usize> = HashMap::new();
    let removed = gone.iter().rev().filter(|server| {
        let seen = seen.entry(server.address).or_default();
        *seen += 1;
        *seen <= left.get(&server.address).copied().unwrap_or(0)
    });
    let mut removed: Vec<&Server> = removed.copied().collect();
    removed.reverse();
    for server in removed {
        let (words, affected) = (server_words(server), affected(server));
        let name = ServerKey::of(old, server).to_string();
        changes.push(of(Change { words, affected, ..Change::new(What::Server, How::Removed, name) }));
    }
    for server in added {
        let name = ServerKey::of(new, server).to_string();
        changes.push(of(Change { words: server_words(server), ..Change::new(What::Server, How::Added, name) }));
    }
    let same = both.into_iter().filter(|(before, after)| before != after);
    for (before, after) in pairs.into_iter().chain(same) {
        let keys = changed(server_keys(before), server_keys(after));
        let (affected, name) = (affected(before), ServerKey::of(old, before).to_string());
        changes.push(of(Change { keys, affected, ..Change::new(What::Server, How::Changed, name) }));
    }
    if reordered {
        changes.push(of(Change::new(What::Server, How::Reordered, "")));
    }
}
