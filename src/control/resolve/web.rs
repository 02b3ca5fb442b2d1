//! `[web]` -> [`Web`].
//!
//! Owns the form of the users' file. Pure: what the files hold comes from whoever may read files.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::control::config::ReadFile;
use crate::control::config::problem::Collector;
use crate::control::config::raw::{At, Entry};
use crate::control::config::value::quote;
use crate::control::web::tls::{self as judge, Fault};
use crate::model::{Role, Web, WebTls, WebUser, WebUsers};

/// Dearest bcrypt hash that is taken: each more doubles the time, and this one takes about a second.
const MOST_COST: u32 = 14;

/// Most mistakes that are reported of a file: one of another form has one on every line.
const MOST_PROBLEMS: usize = 20;

/// The web listener. `None` when something was refused on the way.
pub(super) fn web(entry: &Entry, read: ReadFile<'_>, out: &mut Collector<'_>) -> Option<Web> {
    let listen = entry.addresses("address")?;
    let port = u16::try_from(entry.integer("port")?.value).ok()?;
    let admins = entry.paths("admins")?;
    let (certificate, key) = (entry.text("certificate"), entry.text("key"));
    let tls = match (certificate, key) {
        (None, None) => Some(None),
        (Some(certificate), Some(key)) => tls(entry, &certificate, &key, read, out).map(Some),
        (Some(at), None) => {
            out.error(at.at, entry.key("certificate"), "there is a certificate, and no key")
                .expected("`key`, the file with its private key");
            None
        }
        (None, Some(at)) => {
            out.error(at.at, entry.key("key"), "there is a key, and no certificate")
                .expected("`certificate`, the file with the chain");
            None
        }
    };
    let users = match entry.text("users") {
        None => {
            if let Some((_, at)) = admins.value.first() {
                out.error(*at, entry.key("admins"), "there are admins, and no users")
                    .expected("`users`, the file with their passwords: `htpasswd -B -c FILE NAME` makes one");
            }
            Some(None)
        }
        Some(file) => users(entry, &file, &admins.value, read, out).map(Some),
    };
    let same = |one: &IpAddr, other: &IpAddr| {
        one == other || one.is_ipv4() == other.is_ipv4() && (one.is_unspecified() || other.is_unspecified())
    };
    for (at, address) in listen.value.iter().enumerate() {
        if let Some(other) = listen.value.iter().take(at).find(|other| same(other, address)) {
            out.error(listen.at, entry.key("address"), format!("{other} and {address} are the same port twice"))
                .expected("each address once; 0.0.0.0 and :: are all addresses of their sort");
            return None;
        }
    }
    let web = Web { listen: listen.value, port, tls: tls?, users: users? };
    if web.tls.is_none() && web.users.is_some() && !web.is_local() {
        out.warning(listen.at, entry.key("address"), "passwords go over the network as they are: there is no TLS")
            .help(
                "give it `certificate` and `key`, or let it listen on 127.0.0.1 only, behind something that speaks TLS",
            );
    }
    Some(web)
}

/// Whether it has the form of a bcrypt hash with a cost that there is.
fn is_bcrypt(hash: &str) -> bool {
    let parts: Result<bcrypt::HashParts, _> = hash.parse();
    parts.is_ok_and(|parts| (4..=31).contains(&parts.get_cost()))
}

fn file(entry: &Entry, key: &str, at: &At<String>, read: ReadFile<'_>, out: &mut Collector<'_>) -> Option<Vec<u8>> {
    read(Path::new(&at.value))
        .map_err(|why| {
            out.error(at.at, entry.key(key), format!("cannot read {}: {why}", quote(&at.value)));
        })
        .ok()
}

fn tls(
    entry: &Entry,
    certificate: &At<String>,
    key: &At<String>,
    read: ReadFile<'_>,
    out: &mut Collector<'_>,
) -> Option<WebTls> {
    let (chain, secret) = (file(entry, "certificate", certificate, read, out), file(entry, "key", key, read, out));
    let (chain, secret) = (chain?, secret?);
    if let Err(fault) = judge::server(&chain, &secret) {
        let (at, name, why, expected) = match fault {
            Fault::Certificate(why) => (certificate, "certificate", why, "the chain as PEM, the own certificate first"),
            Fault::Key(why) => (key, "key", why, "the private key of the certificate, as PEM without a password"),
        };
        out.error(at.at, entry.key(name), format!("{}: {why}", quote(&at.value))).expected(expected);
        return None;
    }
    Some(WebTls { certificate: PathBuf::from(&certificate.value), key: PathBuf::from(&key.value), chain, secret })
}

fn users(
    entry: &Entry,
    at: &At<String>,
    admins: &[(String, usize)],
    read: ReadFile<'_>,
    out: &mut Collector<'_>,
) -> Option<WebUsers> {
    let bytes = file(entry, "users", at, read, out)?;
    let known = out.problems.len();
    let text = String::from_utf8_lossy(&bytes);
    let mut list: Vec<WebUser> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if out.problems.len() >= known + MOST_PROBLEMS {
            break;
        }
        // The hash is not shown, whatever is wrong with it.
        let mut wrong = |what: &str| {
            out.error(at.at, entry.key("users"), format!("line {} of {}: {what}", number + 1, quote(&at.value)))
                .expected(
                    "`NAME:HASH` with a hash of bcrypt, which begins with `$2`: `htpasswd -B FILE NAME` writes it",
                );
        };
        match line.split_once(':') {
            Some((name, hash)) if !name.is_empty() && is_bcrypt(hash) => {
                if hash.get(4..6).and_then(|cost| cost.parse().ok()).is_none_or(|cost: u32| cost > MOST_COST) {
                    wrong(&format!(
                        "the hash is too dear: a cost of more than {MOST_COST} takes seconds for each password"
                    ));
                    continue;
                }
                if list.iter().any(|user| user.name == name) {
                    wrong("the name is there already");
                    continue;
                }
                let role = if admins.iter().any(|(admin, _)| admin == name) { Role::Admin } else { Role::Reader };
                list.push(WebUser { name: name.to_owned(), hash: hash.to_owned(), role });
            }
            Some(("", _)) => wrong("there is no name"),
            Some(_) => wrong("the hash is none of bcrypt"),
            None => wrong("there is no `:`"),
        }
    }
    if out.problems.len() > known {
        // Who is missing may be on a line that was not understood.
        return None;
    }
    for (admin, at) in admins.iter().filter(|(admin, _)| !list.iter().any(|user| user.name == *admin)) {
        out.error(*at, entry.key("admins"), format!("{} is none of `users`", quote(admin)));
    }
    Some(WebUsers { file: PathBuf::from(&at.value), list })
}
