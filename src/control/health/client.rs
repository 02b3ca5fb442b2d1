//! The command `evenkeel events`, and what `evenkeel server` says about decisions by hand.
//!
//! Owns their arguments and their text. Decides nothing: the engine does.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::admin::{self, Action, Listing};
use super::events::{self, Event, Page};
use super::{Admin, ServerState};
use crate::control::socket::Command;
use crate::control::socket::client::{ClientError, DEFAULT_SOCKET, ask_with, failed};
use crate::control::status::span;
use crate::control::status::table::Table;
use crate::control::unix_time;

/// Asks an engine what became of servers, or to decide about them, and prints the answer.
///
/// # Errors
/// [`ClientError`].
pub fn ask_server(socket: &Path, question: &admin::Question, as_json: bool) -> Result<(), ClientError> {
    let answer = ask_with(socket, Command::Server, &json!(question))?;
    let warning = answer.get("warning").and_then(Value::as_str).map(str::to_owned);
    let text = if as_json {
        format!("{answer}\n")
    } else {
        let listing = serde_json::from_value::<Listing>(answer);
        let listing = listing.map_err(|_| ClientError::Foreign(socket.to_owned()))?;
        let now = unix_time();
        if question.action == Action::List { list(&listing, now) } else { decided(&listing) }
    };
    crate::control::print(&text);
    if let Some(warning) = warning {
        eprintln!("warning: {warning}");
    }
    Ok(())
}

fn list(listing: &Listing, now: u64) -> String {
    let mut table = Table::new(&["Service", "Server", "State", "By hand"]);
    for row in &listing.servers {
        let lasts = row.since.map_or_else(String::new, |since| format!(" for {}", span(now.saturating_sub(since))));
        let by_hand = if row.admin == Admin::Ready { "-".to_owned() } else { format!("{}{lasts}", row.admin.name()) };
        let state = match (row.configured, row.state) {
            (false, _) => "not configured",
            (true, state) => state.map_or("-", ServerState::word),
        };
        table.row([row.service.clone(), row.server.clone(), state.to_owned(), by_hand]);
    }
    table.render()
}

fn decided(listing: &Listing) -> String {
    let mut text = String::new();
    for row in &listing.servers {
        let before = row.before.unwrap_or_default();
        let was = if before == row.admin { "as before".to_owned() } else { format!("was {}", before.name()) };
        text.push_str(&format!("{} of {}: {}, {was}\n", row.server, row.service, row.admin.name()));
    }
    text
}

/// Arguments of `evenkeel events`.
#[derive(Debug, clap::Args)]
pub struct EventsArgs {
    /// Only events with a higher number than this.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    since: u64,
    /// Wait for more, and print them as they come.
    #[arg(long)]
    follow: bool,
    /// Print one JSON object for each event, a line each.
    #[arg(long)]
    json: bool,
    /// The engine's control socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// Runs `evenkeel events`.
pub fn events(args: EventsArgs) -> ExitCode {
    match read(&args, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// Page after page; a reader that went away (`evenkeel events | head`) ends it quietly.
fn read(args: &EventsArgs, out: &mut impl Write) -> Result<(), ClientError> {
    let mut question = events::Question { since: args.since, follow: false };
    loop {
        let answer = ask_with(&args.socket, Command::Events, &json!(question))?;
        let page: Page = serde_json::from_value(answer).map_err(|_| ClientError::Foreign(args.socket.clone()))?;
        if page.lost > 0 && question.since > 0 {
            eprintln!("{} events in between are not remembered any more", page.lost);
        }
        let mut lines = page.events.iter().map(|event| if args.json { json!(event).to_string() } else { line(event) });
        if lines.try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
        question.since = page.next;
        question.follow = !page.more;
        if !page.more && !args.follow {
            return Ok(());
        }
    }
}

fn line(event: &Event) -> String {
    format!("{:>6}  {}  {}", event.number, utc(event.at_ms), event.text)
}

/// A moment as RFC 3339 writes it.
pub(in crate::control) fn utc(ms: u64) -> String {
    let (seconds, ms) = (ms / 1000, ms % 1000);
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // From 1 March of the year 0, so that a leap day is a year's last; 146097 days are 400 years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 { (month + 3, year) } else { (month - 9, year + 1) };
    let year = year + era * 400;
    format!("{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}.{ms:03}Z", time / 3600, time / 60 % 60, time % 60)
}

#[cfg(test)]
mod tests {
    use super::super::admin::Row;
    use super::*;

    #[test]
    fn moments() {
        // As `date -u -d @SECONDS` has them.
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_709_251_199, "2024-02-29T23:59:59"),
            (1_763_784_936, "2025-11-22T04:15:36"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(utc(seconds * 1000 + 7), format!("{expected}.007Z"));
        }
    }

    #[test]
    fn servers_are_listed() {
        let row = |service: &str, server: &str, admin, since, state, configured| Row {
            service: service.to_owned(),
            server: server.to_owned(),
            admin,
            since,
            before: Some(Admin::Ready),
            state,
            configured,
        };
        let listing = Listing {
            servers: vec![
                row("web", "10.0.0.11:80", Admin::Maintenance, Some(40), Some(ServerState::Maintenance), true),
                row("web", "10.0.0.12:80", Admin::Ready, None, Some(ServerState::Up), true),
                row("old", "10.0.0.13:80", Admin::Drain, Some(10), None, false),
            ],
            ..Listing::default()
        };
        let expected = "\
Service  Server        State           By hand
web      10.0.0.11:80  MAINT           maintenance for 1 min 0 s
web      10.0.0.12:80  UP              -
old      10.0.0.13:80  not configured  drain for 1 min 30 s
";
        assert_eq!(list(&listing, 100), expected);
        let expected = "10.0.0.11:80 of web: maintenance, was ready\n10.0.0.12:80 of web: ready, as before\n";
        assert!(decided(&listing).starts_with(expected), "{}", decided(&listing));
    }
}
