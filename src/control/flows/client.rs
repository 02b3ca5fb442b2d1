//! The command `evenkeel flows`: asks page after page, and prints as they come.
//!
//! Owns the arguments and the layout. A listing needs no memory but for one page.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::FlowRow;
use super::options::MOST_A_PAGE;
use crate::control::progress;
use crate::control::socket::Command;
use crate::control::socket::client::{ClientError, DEFAULT_SOCKET, ask_with, failed};

/// Arguments of `evenkeel flows`.
#[derive(Debug, clap::Args)]
pub struct FlowsArgs {
    /// Only flows of the service with this name.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only flows to this server: its address, or its address and port.
    #[arg(long, value_name = "ADDRESS")]
    server: Option<String>,
    /// Only flows of clients of this network, such as 198.51.100.0/24.
    #[arg(long, value_name = "CIDR")]
    client: Option<String>,
    /// Only flows of this protocol: tcp, udp or sctp.
    #[arg(long)]
    protocol: Option<String>,
    /// Only flows in this state, such as ESTABLISHED.
    #[arg(long)]
    state: Option<String>,
    /// Only flows that their clients have not confirmed yet.
    #[arg(long, conflicts_with = "proven")]
    unproven: bool,
    /// Only flows that their clients have confirmed.
    #[arg(long)]
    proven: bool,
    /// Only count them.
    #[arg(long, conflicts_with_all = ["clear", "limit"])]
    count: bool,
    /// List at most so many.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// End them: their clients' next packets are those of new connections.
    #[arg(long, conflicts_with = "limit")]
    clear: bool,
    /// With --clear: every flow, where no other option names some.
    #[arg(long, requires = "clear")]
    all: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// The engine's control socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// One answer.
#[derive(Debug, Deserialize)]
struct Page {
    #[serde(default)]
    flows: Vec<FlowRow>,
    matched: u64,
    next: Value,
}

impl FlowsArgs {
    /// The options of the first request.
    fn options(&self) -> Map<String, Value> {
        let mut options = Map::new();
        let texts = [
            ("service", &self.service),
            ("server", &self.server),
            ("client", &self.client),
            ("protocol", &self.protocol),
            ("state", &self.state),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                options.insert(name.to_owned(), json!(text));
            }
        }
        for (name, flag) in [("count", self.count), ("clear", self.clear), ("all", self.all)] {
            if flag {
                options.insert(name.to_owned(), json!(true));
            }
        }
        if self.proven || self.unproven {
            options.insert("proven".to_owned(), json!(self.proven));
        }
        options
    }
}

/// Runs `evenkeel flows`.
pub fn main(args: FlowsArgs) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    match list(&args, &mut out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = out.flush();
            failed(&error)
        }
    }
}

/// The order of pages; a reader that went away (`evenkeel flows | head`) ends it quietly.
fn list(args: &FlowsArgs, out: &mut impl Write) -> Result<(), ClientError> {
    let lists = !args.count && !args.clear;
    let mut options = args.options();
    let mut left = args.limit.unwrap_or(usize::MAX);
    let mut printed = 0u64;
    let mut matched = 0;
    if left == 0 {
        return Ok(());
    }
    let progress = progress::counting("flows", !lists);
    loop {
        if lists {
            options.insert("limit".to_owned(), json!(left.min(MOST_A_PAGE)));
        }
        let answer = ask_with(&args.socket, Command::Flows, &Value::Object(options.clone()))?;
        let page: Page = serde_json::from_value(answer).map_err(|_| ClientError::Foreign(args.socket.clone()))?;
        matched += page.matched;
        progress.set_position(matched);
        left = left.saturating_sub(page.flows.len());
        let done = page.next.is_null() || left == 0;
        if lists {
            let written = if args.json {
                rows_as_json(out, &page.flows, &mut printed, done)
            } else {
                if printed == 0 {
                    let _ = out.write_all(HEADER.as_bytes());
                    printed = 1;
                }
                page.flows.iter().try_for_each(|row| out.write_all(line(row).as_bytes()))
            };
            if written.and_then(|()| out.flush()).is_err() {
                return Ok(());
            }
        }
        if done {
            progress.finish_and_clear();
            break;
        }
        options.insert("from".to_owned(), page.next);
    }
    let said = match (args.json, args.clear) {
        _ if lists => return Ok(()),
        (true, _) => format!("{}\n", json!({ "matched": matched })),
        (false, true) => format!("{matched} flow{} ended\n", if matched == 1 { "" } else { "s" }),
        (false, false) => format!("{matched}\n"),
    };
    let _ = out.write_all(said.as_bytes()).and_then(|()| out.flush());
    Ok(())
}

/// The head of the list, as `ipvsadm -Lnc` prints it.
const HEADER: &str =
    "IPVS connection entries\npro expire state       source             virtual            destination\n";

fn rows_as_json(out: &mut impl Write, rows: &[FlowRow], printed: &mut u64, done: bool) -> io::Result<()> {
    for row in rows {
        let lead = if *printed == 0 { "{\"flows\":[\n" } else { ",\n" };
        *printed += 1;
        write!(out, "{lead}{}", serde_json::to_string(row)?)?;
    }
    if done {
        let lead = if *printed == 0 { "{\"flows\":[" } else { "" };
        write!(out, "{lead}\n],\"matched\":{printed}}}\n")?;
    }
    Ok(())
}

/// A flow as `ipvsadm -Lnc` prints it.
pub fn line(row: &FlowRow) -> String {
    let (minutes, seconds) = (row.expires_s / 60, row.expires_s % 60);
    let server = row.server.map_or_else(|| "-".to_owned(), |end| end.to_string());
    format!(
        "{:<3} {minutes:02}:{seconds:02}  {:<11} {:<18} {:<18} {server}\n",
        row.protocol.to_uppercase(),
        row.state,
        row.client.to_string(),
        row.r#virtual.to_string(),
    )
}
