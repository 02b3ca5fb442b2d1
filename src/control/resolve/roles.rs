//! `[control]` -> [`Roles`]: users and groups by their numbers.
//!
//! Owns the form of `/etc/passwd` and `/etc/group`. Pure: what they hold comes from whoever may read files. Never asks a
//! directory service, which could take its time.

use std::path::Path;

use crate::control::config::ReadFile;
use crate::control::config::problem::Collector;
use crate::control::config::raw::Entry;
use crate::control::config::value::quote;
use crate::model::{Roles, Who};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// A file of users or groups: `name:password:number:rest`, a line each (passwd(5), group(5)).
struct Book {
    file: &'static str,
    text: Result<String, String>,
}

impl Book {
    fn open(file: &'static str, read: ReadFile<'_>) -> Book {
        Book { file, text: read(Path::new(file)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()) }
    }

    /// Name, number and the fields behind of each entry.
    fn entries(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.text.as_deref().unwrap_or_default().lines().filter_map(|line| {
            let mut fields = line.splitn(4, ':');
            let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
            Some((name, number.parse().ok()?, fields.next().unwrap_or_default()))
        })
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.entries().find(|(known, ..)| *known == name).map(|(_, number, _)| number)
    }
}

/// Who may speak with the engine. `None` when somebody is not known.
pub(super) fn roles(entry: &Entry, read: ReadFile<'_>, out: &mut Collector<'_>) -> Option<Roles> {
    let (admins, readers) = (entry.paths("admins")?, entry.paths("readers")?);
    if admins.value.is_empty() && readers.value.is_empty() {
        return Some(Roles::default());
    }
    let (users, groups) = (Book::open(PASSWD, read), Book::open(GROUP, read));
    let mut list = |key: &str, words: Vec<(String, usize)>| -> Option<Vec<Who>> {
        let mut all = Vec::new();
        let written = words.len();
        for (word, at) in words {
            match who(&word, &users, &groups) {
                Ok(who) => all.push(who),
                Err(book) => unknown(&word, book, at, entry.key(key), out),
            }
        }
        (all.len() == written).then_some(all)
    };
    let (admins, readers) = (list("admins", admins.value), list("readers", readers.value));
    Some(Roles { admins: admins?, readers: readers? })
}

/// The one that a word means, or the book that it is not in.
fn who<'b>(word: &str, users: &'b Book, groups: &'b Book) -> Result<Who, &'b Book> {
    if word == "*" {
        return Ok(Who::Anyone);
    }
    let number = |name: &str, book: &'b Book| name.parse().ok().or_else(|| book.number(name)).ok_or(book);
    match word.strip_prefix('@') {
        None => {
            let id = if word == "root" { 0 } else { number(word, users)? };
            Ok(Who::User { word: word.to_owned(), id })
        }
        Some(name) => {
            let id = number(name, groups)?;
            let names = groups.entries().filter(|(_, number, _)| *number == id).flat_map(|(.., rest)| rest.split(','));
            let mut members: Vec<u32> = names.filter_map(|name| users.number(name.trim())).collect();
            members.sort_unstable();
            members.dedup();
            Ok(Who::Group { word: word.to_owned(), id, members })
        }
    }
}

fn unknown(word: &str, book: &Book, at: usize, key: String, out: &mut Collector<'_>) {
    let what = if word.starts_with('@') { "group" } else { "user" };
    let file = book.file;
    let said = match &book.text {
        Ok(_) => format!("there is no {what} {} in {file}", quote(word.trim_start_matches('@'))),
        Err(why) => format!("the {what} {} cannot be looked up: {file}: {why}", quote(word)),
    };
    let mark = if what == "group" { "@" } else { "" };
    let names: Vec<String> = book.entries().map(|(name, ..)| format!("{mark}{name}")).collect();
    out.error(at, key, said)
        .expected(format!("a {what} of {file}, or a number"))
        .help(format!("make the {what}, or write its number: those of a directory service are not looked up"))
        .suggest(word, names.iter().map(String::as_str));
}
