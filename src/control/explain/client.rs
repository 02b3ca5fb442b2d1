//! The command `evenkeel explain`: asks the engine, and prints what it says.
//!
//! Owns the arguments.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::{Explanation, render};
use crate::control::socket::Command;
use crate::control::socket::client::{ClientError, DEFAULT_SOCKET, ask_with, failed};

/// Arguments of `evenkeel explain`.
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// The client: its address, or its address and port such as 198.51.100.7:4000 or [2001:db8::7]:4000.
    #[arg(value_name = "CLIENT[:PORT]")]
    client: String,
    /// Where its packet goes, such as 192.0.2.10:80.
    #[arg(value_name = "ADDRESS:PORT", required_unless_present = "service", conflicts_with = "service")]
    to: Option<String>,
    /// By which protocol: tcp, udp or sctp; tcp without.
    #[arg(long)]
    protocol: Option<String>,
    /// To the service with this name instead, or such as "tcp 192.0.2.10:80".
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// The engine's control socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// Runs `evenkeel explain`.
pub fn main(args: ExplainArgs) -> ExitCode {
    let mut options = Map::new();
    options.insert("client".to_owned(), json!(args.client));
    for (name, text) in [("to", args.to), ("protocol", args.protocol), ("service", args.service)] {
        if let Some(text) = text {
            options.insert(name.to_owned(), json!(text));
        }
    }
    let answer = match ask_with(&args.socket, Command::Explain, &Value::Object(options)) {
        Ok(answer) => answer,
        Err(error) => return failed(&error),
    };
    if args.json {
        crate::control::print(&format!("{answer}\n"));
        return ExitCode::SUCCESS;
    }
    match serde_json::from_value::<Explanation>(answer) {
        Ok(told) => {
            crate::control::print(&render(&told));
            ExitCode::SUCCESS
        }
        Err(_) => failed(&ClientError::Foreign(args.socket)),
    }
}
