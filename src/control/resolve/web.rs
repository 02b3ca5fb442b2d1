//! `[web]` -> [`Web`].
//!
//! Owns the form of the users' file. Pure: what the files hold comes from whoever may read files.

use std::path::{Path, PathBuf};

use crate::control::config::ReadFile;
use crate::control::config::problem::Collector;
use crate::control::config::raw::{At, Entry};
use crate::control::config::value::quote;
use crate::model::{Role, Web, WebTls, WebUser, WebUsers};

/// The web listener. `Err` when something was refused on the way.
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
    Some(Web { listen: listen.value, port, tls: tls?, users: users? })
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
    Some(WebTls {
        certificate: PathBuf::from(&certificate.value),
        key: PathBuf::from(&key.value),
        chain: chain?,
        secret: secret?,
    })
}

fn users(
    entry: &Entry,
    at: &At<String>,
    admins: &[(String, usize)],
    read: ReadFile<'_>,
    out: &mut Collector<'_>,
) -> Option<WebUsers> {
    let bytes = file(entry, "users", at, read, out)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut list: Vec<WebUser> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // The hash is not shown, whatever is wrong with it.
        let mut wrong = |what: &str| {
            out.error(at.at, entry.key("users"), format!("line {} of {}: {what}", number + 1, quote(&at.value)))
                .expected(
                    "`NAME:HASH` with a hash of bcrypt, which begins with `$2`: `htpasswd -B FILE NAME` writes it",
                );
        };
        match line.split_once(':') {
            Some((name, hash)) if !name.is_empty() && hash.starts_with("$2") && hash.len() == 60 => {
                if list.iter().any(|user| user.name == name) {
                    wrong("the name is there already");
                    continue;
                }
                let role = if admins.iter().any(|(admin, _)| admin == name) { Role::Admin } else { Role::Reader };
                list.push(WebUser { name: name.to_owned(), hash: hash.to_owned(), role });
            }
            Some(_) => wrong("the hash is none of bcrypt"),
            None => wrong("there is no `:`"),
        }
    }
    for (admin, at) in admins.iter().filter(|(admin, _)| !list.iter().any(|user| user.name == *admin)) {
        out.error(*at, entry.key("admins"), format!("{} is none of `users`", quote(admin)));
    }
    Some(WebUsers { file: PathBuf::from(&at.value), list })
}
