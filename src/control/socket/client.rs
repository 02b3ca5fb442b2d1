//! The commands' side of the control socket: `evenkeel status`, `evenkeel reload` and `evenkeel persistence`.
//!
//! Owns one question and its answer, and the words for when there is none. Never waits longer than a deadline.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Code, Command, VERSION};
use crate::control::config::{Problem, render_all};
use crate::control::persistence::{Action, Listing, Question, render as render_persistence};
use crate::control::plan::{self, Plan};
use crate::control::status::{Status, render, render_checks};
use crate::control::unix_time;

/// Where the engine's socket is unless the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/evenkeel.sock";

/// Longest wait for an answer; a reload of a large configuration is the slowest.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest answer.
const MAX_ANSWER: u64 = 256 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No socket there.
    #[error(
        "no engine is running: there is no {}; start one with `evenkeel run`, or name its socket with --socket",
        .0.display()
    )]
    Absent(PathBuf),
    /// Nobody listens.
    #[error("the engine that made {} is gone; start one with `evenkeel run`", .0.display())]
    Dead(PathBuf),
    /// The conversation failed.
    #[error("cannot speak with the engine on {}", path.display())]
    Talk {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The answer makes no sense.
    #[error("the engine on {} answers what this program does not understand; are both of one version?", .0.display())]
    Foreign(PathBuf),
    /// The engine refuses.
    #[error("{error}")]
    Refused {
        /// Why.
        error: String,
        /// What sort of refusal it is.
        code: Code,
        /// Mistakes in the configuration file.
        problems: Vec<Problem>,
    },
}

/// Asks the engine.
pub fn ask(path: &Path, command: Command) -> Result<Value, ClientError> {
    ask_with(path, command, &json!({}))
}

/// Asks the engine, with options.
pub fn ask_with(path: &Path, command: Command, options: &Value) -> Result<Value, ClientError> {
    let talk = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ClientError::Absent(path.to_owned()),
        io::ErrorKind::ConnectionRefused => ClientError::Dead(path.to_owned()),
        _ => ClientError::Talk { path: path.to_owned(), source },
    };
    let mut stream = UnixStream::connect(path).map_err(talk)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(talk)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(talk)?;
    let request = json!({ "version": VERSION, "command": command.name(), "options": options });
    stream.write_all(format!("{request}\n").as_bytes()).map_err(talk)?;
    let mut line = Vec::new();
    BufReader::new(stream.take(MAX_ANSWER)).read_until(b'\n', &mut line).map_err(talk)?;
    if line.last() != Some(&b'\n') {
        return Err(talk(io::ErrorKind::UnexpectedEof.into()));
    }
    let foreign = || ClientError::Foreign(path.to_owned());
    let mut answer: Value = serde_json::from_slice(&line).map_err(|_| foreign())?;
    match answer.get("ok").and_then(Value::as_bool) {
        Some(true) => Ok(answer.get_mut("answer").map(Value::take).unwrap_or_default()),
        Some(false) => Err(ClientError::Refused {
            error: answer.get("error").and_then(Value::as_str).unwrap_or("no reason given").to_owned(),
            code: answer
                .get_mut("code")
                .map(Value::take)
                .and_then(|code| serde_json::from_value(code).ok())
                .unwrap_or_default(),
            problems: answer
                .get_mut("problems")
                .map(Value::take)
                .and_then(|problems| serde_json::from_value(problems).ok())
                .unwrap_or_default(),
        }),
        None => Err(foreign()),
    }
}

/// Arguments of `evenkeel status`.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Print the health checks instead, the failing ones first.
    #[arg(long, conflicts_with = "json")]
    checks: bool,
    /// The engine's control socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// Arguments of `evenkeel reload`.
#[derive(Debug, clap::Args)]
pub struct ReloadArgs {
    /// Only say what would change, and how many flows would move or end.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// The engine's control socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// Arguments of `evenkeel persistence`.
#[derive(Debug, clap::Args)]
pub struct PersistenceArgs {
    /// What to do.
    #[arg(value_enum, default_value = "list")]
    action: Action,
    /// Only clients of this service, and of its group.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only clients of this group.
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Only clients whose network touches this address or network.
    #[arg(long, value_name = "ADDRESS[/BITS]")]
    client: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// The engine's control socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// Runs `evenkeel persistence`.
pub fn persistence(args: PersistenceArgs) -> ExitCode {
    let PersistenceArgs { action, service, group, client, json, socket } = args;
    let question = json!(Question { action, service, group, client });
    let answer = match ask_with(&socket, Command::Persistence, &question) {
        Ok(answer) => answer,
        Err(error) => return failed(&error),
    };
    let text = match action {
        _ if json => format!("{answer}\n"),
        Action::Clear => match answer.get("cleared").and_then(Value::as_u64) {
            Some(count) => format!("{count} cleared\n"),
            None => return failed(&ClientError::Foreign(socket)),
        },
        Action::List => match serde_json::from_value::<Listing>(answer) {
            Ok(listing) => render_persistence(&listing),
            Err(_) => return failed(&ClientError::Foreign(socket)),
        },
    };
    crate::control::print(&text);
    ExitCode::SUCCESS
}

/// Runs `evenkeel status`.
pub fn status(args: StatusArgs) -> ExitCode {
    let answer = match ask(&args.socket, Command::Status) {
        Ok(answer) => answer,
        Err(error) => return failed(&error),
    };
    if args.json {
        crate::control::print(&format!("{answer}\n"));
        return ExitCode::SUCCESS;
    }
    match serde_json::from_value::<Status>(answer) {
        Ok(status) => {
            let now = unix_time();
            let text = if args.checks { render_checks(&status, now) } else { render(&status, now) };
            crate::control::print(&text);
            ExitCode::SUCCESS
        }
        Err(_) => failed(&ClientError::Foreign(args.socket)),
    }
}

/// Runs `evenkeel reload`.
pub fn reload(args: ReloadArgs) -> ExitCode {
    match ask_with(&args.socket, Command::Reload, &json!({ "dry_run": args.dry_run })) {
        Ok(mut answer) if args.dry_run && !args.json => {
            let warnings = answer.get("warnings").and_then(Value::as_array).cloned().unwrap_or_default();
            warnings.iter().filter_map(Value::as_str).for_each(|warning| eprintln!("{warning}"));
            match answer.get_mut("plan").map(Value::take).and_then(|plan| serde_json::from_value::<Plan>(plan).ok()) {
                Some(plan) => {
                    crate::control::print(&plan::render(&plan));
                    ExitCode::SUCCESS
                }
                None => failed(&ClientError::Foreign(args.socket)),
            }
        }
        Ok(answer) => {
            let said = answer.get("summary").and_then(Value::as_str).unwrap_or("reloaded").to_owned();
            crate::control::print(&if args.json { format!("{answer}\n") } else { format!("{said}\n") });
            ExitCode::SUCCESS
        }
        Err(ClientError::Refused { error, problems, .. }) if args.json => {
            crate::control::print(&format!("{}\n", json!({ "ok": false, "error": error, "problems": problems })));
            ExitCode::FAILURE
        }
        Err(error) => failed(&error),
    }
}

/// Says why a command failed.
pub fn failed(error: &ClientError) -> ExitCode {
    if let ClientError::Refused { error, problems, .. } = error {
        // The error begins with the file's name where there are problems: `file: refused: ...`.
        let file = error.split(": ").next().unwrap_or_default();
        eprint!("{}", render_all(file, problems));
    }
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    eprintln!("{error}{cause}");
    ExitCode::FAILURE
}
