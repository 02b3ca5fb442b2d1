//! The commands that show a part of the running engine: `services`, `servers`, `checks`, `vrrp`, `neighbors`, `drops`, `workers`.
//!
//! Owns their arguments, and which parts of the status each asks for. Changes nothing.

pub(in crate::control) mod drops;
mod neighbors;
mod routers;
pub mod services;
mod workers;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::health::client::utc;
use super::socket::Command;
use super::socket::client::{ClientError, DEFAULT_SOCKET, ask_with, failed};
use super::status::parts::{Part, Question};
use super::status::{Status, render_checks};

/// What all of them take.
#[derive(Debug, clap::Args)]
struct Common {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// The engine's control socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// Which servers.
#[derive(Debug, clap::Args)]
struct Which {
    /// Only of this service: its name, or its protocol, address and port, such as `tcp 192.0.2.10:80`.
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Only this server: its address, or its address and port.
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    server: Option<String>,
}

/// Arguments of `evenkeel services`.
#[derive(Debug, clap::Args)]
pub struct ServicesArgs {
    /// Only this service: its name, or its protocol, address and port, such as `tcp 192.0.2.10:80`.
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `evenkeel servers`.
#[derive(Debug, clap::Args)]
pub struct ServersArgs {
    #[command(flatten)]
    which: Which,
    /// Only servers that get no new flows now.
    #[arg(long)]
    failing: bool,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `evenkeel checks`.
#[derive(Debug, clap::Args)]
pub struct ChecksArgs {
    #[command(flatten)]
    which: Which,
    /// Only checks that are not good, or have something to warn of.
    #[arg(long)]
    failing: bool,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `evenkeel vrrp`.
#[derive(Debug, clap::Args)]
pub struct VrrpArgs {
    #[command(flatten)]
    common: Common,
}

/// Arguments of `evenkeel neighbors`.
#[derive(Debug, clap::Args)]
pub struct NeighborsArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `evenkeel drops`.
#[derive(Debug, clap::Args)]
pub struct DropsArgs {
    /// Go on: every so many seconds what was dropped in them, a line for each reason.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    watch: Option<f64>,
    /// With --watch: end after so many times.
    #[arg(long, value_name = "N", requires = "watch")]
    count: Option<u64>,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `evenkeel workers`.
#[derive(Debug, clap::Args)]
pub struct WorkersArgs {
    #[command(flatten)]
    common: Common,
}

/// A time between two looks, in seconds.
///
/// # Errors
/// What is wrong with it.
pub fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds, from 0.1 to 3600".to_owned()),
    }
}

impl Which {
    fn question(self, parts: &[Part]) -> Question {
        Question { parts: Some(parts.to_vec()), service: self.service, server: self.server }
    }
}

/// Asks the engine for parts of its status.
///
/// # Errors
/// Why there is no answer.
pub fn ask(socket: &Path, question: &Question) -> Result<Value, ClientError> {
    ask_with(socket, Command::Status, &json!(question))
}

/// The same, read.
///
/// # Errors
/// Why there is no answer, or that it makes no sense.
pub fn ask_status(socket: &Path, question: &Question) -> Result<Status, ClientError> {
    serde_json::from_value(ask(socket, question)?).map_err(|_| ClientError::Foreign(socket.to_owned()))
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Asks, and prints the answer as it is, or what `text` makes of it.
fn show(common: &Common, question: &Question, text: impl FnOnce(&Status) -> String) -> ExitCode {
    let said = if common.json {
        ask(&common.socket, question).map(|answer| format!("{answer}\n"))
    } else {
        ask_status(&common.socket, question).map(|status| text(&status))
    };
    match said {
        Ok(said) => {
            super::print(&said);
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

/// The same where some of the answer is left out: `keep` leaves it out, and `member` is what remains of it.
fn show_some(
    common: &Common,
    question: &Question,
    keep: impl FnOnce(&mut Status),
    member: Part,
    text: impl FnOnce(&Status) -> String,
) -> ExitCode {
    let mut status = match ask_status(&common.socket, question) {
        Ok(status) => status,
        Err(error) => return failed(&error),
    };
    keep(&mut status);
    let said = match common.json {
        true => format!("{}\n", json!({ member.name(): json!(status)[member.name()] })),
        false => text(&status),
    };
    super::print(&said);
    ExitCode::SUCCESS
}

/// Runs `evenkeel services`.
pub fn services(args: ServicesArgs) -> ExitCode {
    let question = Question { service: args.service, ..Question::parts(&[Part::Services]) };
    show(&args.common, &question, |status| services::render(&status.services))
}

/// Runs `evenkeel servers`.
pub fn servers(args: ServersArgs) -> ExitCode {
    let question = args.which.question(&[Part::Services]);
    let text = |status: &Status| services::render_servers(&status.services);
    if args.failing {
        return show_some(&args.common, &question, services::keep_failing, Part::Services, text);
    }
    show(&args.common, &question, text)
}

/// Runs `evenkeel checks`.
pub fn checks(args: ChecksArgs) -> ExitCode {
    let question = args.which.question(&[Part::Checks]);
    let text = |status: &Status| match status.checks.as_slice() {
        [] => "no checks\n".to_owned(),
        _ => render_checks(status, unix_time().as_secs()),
    };
    if args.failing {
        let keep = |status: &mut Status| {
            status.checks.retain(|check| {
                check.state != "up" || check.warning.is_some() || check.last.as_deref() != Some("good")
            });
        };
        return show_some(&args.common, &question, keep, Part::Checks, text);
    }
    show(&args.common, &question, text)
}

/// Runs `evenkeel vrrp`.
pub fn vrrp(args: VrrpArgs) -> ExitCode {
    show(&args.common, &Question::parts(&[Part::Vrrp]), |status| routers::render(status.vrrp.as_ref()))
}

/// Runs `evenkeel neighbors`.
pub fn neighbors(args: NeighborsArgs) -> ExitCode {
    let question = args.which.question(&[Part::Neighbors]);
    show(&args.common, &question, |status| neighbors::render(status.neighbors.as_deref().unwrap_or_default()))
}

/// Runs `evenkeel workers`.
pub fn workers(args: WorkersArgs) -> ExitCode {
    show(&args.common, &Question::parts(&[Part::Workers, Part::Interfaces]), workers::render)
}

/// Runs `evenkeel drops`.
pub fn drops(args: DropsArgs) -> ExitCode {
    let Some(seconds) = args.watch else {
        let question = Question::parts(&[Part::Drops, Part::DropsByWorker]);
        return show(&args.common, &question, drops::render);
    };
    match watch_drops(&args.common, Duration::from_secs_f64(seconds), args.count) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// Prints what was dropped in each interval, until there were `count` or nobody reads any more.
fn watch_drops(common: &Common, every: Duration, count: Option<u64>) -> Result<(), ClientError> {
    use std::io::Write as _;

    let question = Question::parts(&[Part::Drops]);
    let mut out = std::io::stdout().lock();
    let mut before = ask_status(&common.socket, &question)?.drops;
    let (start, mut times) = (Instant::now(), 0u64);
    while count.is_none_or(|count| times < count) {
        times += 1;
        // From the start, so that what asking takes does not add up.
        let due = start + every.mul_f64(times as f64);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let now = ask_status(&common.socket, &question)?.drops;
        let at = u64::try_from(unix_time().as_millis()).unwrap_or(u64::MAX);
        let grown = drops::grown(&before, &now);
        let said = match common.json {
            true => format!("{}\n", json!({ "at_ms": at, "dropped": grown })),
            false => drops::lines(&utc(at), &grown, &now),
        };
        if out.write_all(said.as_bytes()).and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
        before = now;
    }
    Ok(())
}
