//! `evenkeel log`: asks the running engine what it logs, or tells it.
//!
//! Owns the arguments and the words for people. Never touches the log of this process.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::level;
use crate::control::socket::Command;
use crate::control::socket::client::{DEFAULT_SOCKET, ask_with, failed};

/// Arguments of `evenkeel log`.
#[derive(Debug, clap::Args)]
pub struct LogArgs {
    /// What is logged from now on: off, error, warn, info, debug or trace; or such for a part (control, dataplane, health,
    /// programs, vrrp, web), as in `vrrp=debug,info`. Without it, what is logged now is shown.
    #[arg(value_name = "LEVEL|DIRECTIVES", value_parser = level)]
    level: Option<String>,
    /// The levels of the engine's start come back after this time, such as 30s, 10m or 2h.
    #[arg(long = "for", value_name = "TIME", requires = "level", value_parser = seconds)]
    lasts: Option<u64>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// The engine's control socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// Seconds of a time as people write it.
fn seconds(text: &str) -> Result<u64, String> {
    let expected = || format!("{text:?} is no time; expected such as 30s, 10m or 2h, a day at most");
    let digits = text.trim_end_matches(|last: char| last.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        _ => return Err(expected()),
    };
    let number: u64 = digits.parse().map_err(|_| expected())?;
    number.checked_mul(unit).filter(|seconds| (1..=super::LONGEST_S).contains(seconds)).ok_or_else(expected)
}

/// Runs `evenkeel log`.
pub fn main(args: LogArgs) -> ExitCode {
    let answer = match ask_with(&args.socket, Command::Log, &json!({ "level": args.level, "for_s": args.lasts })) {
        Ok(answer) => answer,
        Err(error) => return failed(&error),
    };
    let word = |key: &str| answer.get(key).and_then(|value| value.as_str()).unwrap_or("unknown");
    let text = if args.json {
        format!("{answer}\n")
    } else {
        match answer.get("left_s").and_then(serde_json::Value::as_u64) {
            Some(left) => format!("log: {}, for {left} more seconds, then {} again\n", word("level"), word("first")),
            None if word("level") == word("first") => format!("log: {}, as at start\n", word("level")),
            None => format!("log: {}, until the engine is restarted (at start: {})\n", word("level"), word("first")),
        }
    };
    crate::control::print(&text);
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, expected) in [("30", 30), ("30s", 30), ("10m", 600), ("2h", 7200), ("24h", 86_400)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in ["", "0", "m", "-1s", "1d", "25h", "1.5h", "99999999999999999999", "18446744073709551615h"] {
            assert!(seconds(text).is_err_and(|why| why.contains("expected")), "{text}");
        }
    }
}
