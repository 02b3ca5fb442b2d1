//! What this machine says of the files that `[web]` names: who may read them, and whether the certificate's time is over.
//!
//! Owns the warnings. Never refuses anything, and never shows what is in a file.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::tls;
use crate::control::config::{Problem, Severity};
use crate::control::unix_time;
use crate::model::Web;

/// What is probably not meant.
pub fn doubts(web: &Web) -> Vec<Problem> {
    let mut found = Vec::new();
    if let Some(files) = &web.tls {
        let now = unix_time();
        let doubt = tls::doubt(&files.chain, i64::try_from(now).unwrap_or(i64::MAX));
        let place = files.certificate.display();
        found.extend(doubt.map(|doubt| warning("web.certificate", format!("{doubt}: {place}"), "renew it and reload")));
        found.extend(open_to_all("web.key", &files.key));
    }
    if let Some(users) = &web.users {
        found.extend(open_to_all("web.users", &users.file));
    }
    found
}

fn open_to_all(key: &str, path: &Path) -> Option<Problem> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    let place = path.display();
    let help = format!("`chmod o-rwx {place}`: the engine reads it as root");
    (mode & 0o007 != 0).then(|| warning(key, format!("everybody on this machine may read {place}, or write it"), help))
}

fn warning(key: &str, message: String, help: impl Into<String>) -> Problem {
    let problem = Problem::file(message, help);
    Problem { severity: Severity::Warning, key: key.to_owned(), ..problem }
}
