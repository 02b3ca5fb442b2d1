//! `ipvsadm -R`: rules from standard input, many to a request.
//!
//! Owns the order: what a line says is in force before the next line that needs an answer, and a line that is refused costs
//! those around it nothing. Never understands a line.

use std::io::BufRead as _;

use super::names::{self, Names};
use super::options::{Asked, Command, Stop};
use super::session::{self, Session};
use super::values::Lookup;
use super::{run as run_line, say};
use crate::control::edit::{Edit, MOST_EDITS};
use crate::control::socket::MAX_ADMIN_LINE;

/// The words of a line; `ipvsadm` in front of them is no argument.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    if words.first().is_some_and(|word| word == "ipvsadm") {
        words.remove(0);
    }
    words
}

/// Most bytes of edits in one request, so that it stays shorter than the engine reads.
const MOST_BYTES: usize = MAX_ADMIN_LINE - 4096;

/// Lines whose edits wait.
#[derive(Debug, Default)]
struct Batch {
    lines: Vec<(Asked, Vec<Edit>)>,
    edits: usize,
    bytes: usize,
}

impl Batch {
    /// Whether these edits and what waits are too much for one request.
    fn overflows(&self, edits: usize, bytes: usize) -> bool {
        self.edits + edits > MOST_EDITS || self.bytes + bytes > MOST_BYTES
    }

    /// Sends all of it. What became of the last line.
    fn send(&mut self, session: &mut Session) -> Result<(), Stop> {
        (self.edits, self.bytes) = (0, 0);
        let lines = std::mem::take(&mut self.lines);
        send(&lines, session)
    }
}

/// Sends lines in one request; where that is refused, each half by itself, so that only what is wrong is left out.
fn send(lines: &[(Asked, Vec<Edit>)], session: &mut Session) -> Result<(), Stop> {
    match lines {
        [] => Ok(()),
        [(asked, edits)] => session.edit(asked, edits),
        [(last, _), ..] => {
            let all: Vec<Edit> = lines.iter().flat_map(|(_, edits)| edits).cloned().collect();
            match session.edit(last, &all) {
                Err(stop) if stop.ends => Err(stop),
                Err(_) => {
                    let (first, second) = lines.split_at(lines.len() / 2);
                    match send(first, session) {
                        Err(stop) if stop.ends => return Err(stop),
                        Err(stop) => say(&stop),
                        Ok(()) => {}
                    }
                    send(second, session)
                }
                done => done,
            }
        }
    }
}

/// Reads rules to the end. The outcome is that of the last line, as ipvsadm has it.
pub fn run_lines(
    lines: impl Iterator<Item = std::io::Result<String>>,
    names: &Names,
    session: &mut Session,
) -> Result<(), Stop> {
    let lookup = Lookup { host: &names::host, port: &|name, protocol| names.port(name, protocol) };
    let mut batch = Batch::default();
    // What is not said yet: that of the last line is for who called.
    let mut outcome = Ok(());
    for line in lines {
        let line = line.map_err(|error| Stop::usage(format!("cannot read the rules: {error}")))?;
        let args = words(&line);
        if args.is_empty() {
            continue;
        }
        if let Err(stop) = std::mem::replace(&mut outcome, Ok(())) {
            say(&stop);
        }
        let read = Asked::read(&args, &lookup);
        if read.as_ref().is_ok_and(session::asks_first)
            && let Err(stop) = batch.send(session)
        {
            if stop.ends {
                return Err(stop);
            }
            say(&stop);
        }
        let edits = match read {
            Ok(asked) if !matches!(asked.command, Command::List | Command::Save | Command::Zero) => {
                session.as_edits(&asked).map(|edits| edits.map(|edits| (asked, edits)))
            }
            Ok(_) => Ok(None),
            Err(stop) => Err(stop),
        };
        match edits {
            Ok(Some((asked, edits))) => {
                let bytes = edits.iter().map(|edit| serde_json::to_string(edit).map_or(0, |text| text.len() + 1)).sum();
                if batch.overflows(edits.len(), bytes)
                    && let Err(stop) = batch.send(session)
                {
                    if stop.ends {
                        return Err(stop);
                    }
                    say(&stop);
                }
                batch.bytes += bytes;
                batch.edits += edits.len();
                batch.lines.push((asked, edits));
            }
            other => {
                match batch.send(session) {
                    Err(stop) if stop.ends => return Err(stop),
                    Err(stop) => say(&stop),
                    Ok(()) => {}
                }
                outcome = match other {
                    Err(stop) => Err(stop),
                    Ok(_) => run_line(&args, names, session, true),
                };
                if outcome.as_ref().is_err_and(|stop| stop.ends) {
                    return outcome;
                }
            }
        }
    }
    if batch.lines.is_empty() { outcome } else { batch.send(session) }
}

/// Restores from standard input.
pub fn run(names: &Names, session: &mut Session) -> Result<(), Stop> {
    run_lines(std::io::stdin().lock().lines(), names, session)
}
