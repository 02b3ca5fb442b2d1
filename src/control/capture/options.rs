//! The options of a request for a capture: what was sent, checked, and what it means. Pure.
//!
//! Owns the names, the bounds and the sentences about what is wrong with them.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::control::config::problem::nearest;
use crate::control::flows::options::{flag, prefix, shown, text};
use crate::control::naming::{cut, end, is_key};
use crate::dataplane::capture::{Decision, MOST_SNAPLEN, Wanted};
use crate::dataplane::verdict::DropReason;
use crate::model::{Desired, Service};

/// The options of the command on the control socket.
pub const OPTIONS: &[&str] = &[
    "action", "capture", "verdict", "reason", "service", "client", "server", "count", "seconds", "bytes", "snaplen",
    "both",
];

/// Frames of a capture: as many as without a wish, and most.
pub const COUNT: (u64, u64) = (10_000, 10_000_000);

/// Seconds of a capture: as many as without a wish, and most.
pub const SECONDS: (u64, u64) = (60, 86_400);

/// Bytes that a capture hands over, stubs included: as many as without a wish, and most.
pub const BYTES: (u64, u64) = (64 << 20, 16 << 30);

/// Bytes that are kept of a frame: as many as without a wish, and fewest.
pub const SNAPLEN: (u64, u64) = (MOST_SNAPLEN as u64, 14);

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Asked {
    /// Begin one.
    Start(Wish),
    /// What there is of this one.
    Next(u64),
    /// End this one.
    Stop(u64),
}

/// What shall be captured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Wish {
    pub wanted: Wanted,
    pub both: bool,
    pub snaplen: usize,
    pub count: u64,
    pub bytes: u64,
    pub lasts: Duration,
}

impl Asked {
    /// Understands a request, or says what is wrong with it.
    pub fn parse(given: &Map<String, Value>, desired: &Desired) -> Result<Asked, String> {
        let action = text(given, "action")?.unwrap_or("start");
        let number = || {
            let number = given.get("capture").and_then(Value::as_u64);
            number.ok_or_else(|| format!("`{action}` wants `capture`, the number that `start` answered"))
        };
        match action {
            "start" if given.contains_key("capture") => {
                Err("`capture` is for `next` and `stop`; `start` answers with a number of its own".to_owned())
            }
            "start" => Wish::parse(given, desired).map(Asked::Start),
            "next" | "stop" => {
                let only = |key: &&String| !matches!(key.as_str(), "action" | "capture");
                match given.keys().find(only) {
                    Some(key) => Err(format!("`{key}` is for `start`; `{action}` takes `capture` and no more")),
                    None if action == "next" => number().map(Asked::Next),
                    None => number().map(Asked::Stop),
                }
            }
            other => Err(format!("`action` is {:?}; expected start, next or stop", cut(other))),
        }
    }
}

impl Wish {
    fn parse(given: &Map<String, Value>, desired: &Desired) -> Result<Wish, String> {
        let mut wanted = Wanted::default();
        if let Some(word) = text(given, "verdict")? {
            let found = Decision::ALL.into_iter().find(|decision| decision.name() == word);
            wanted.decision = Some(found.ok_or_else(|| {
                let all = Decision::ALL.map(Decision::name);
                format!("`verdict` is {:?}; {}expected one of {}", cut(word), near(word, &all), all.join(", "))
            })?);
        }
        if let Some(word) = text(given, "reason")? {
            let found = DropReason::ALL.iter().find(|reason| reason.name() == word);
            wanted.reason = Some(*found.ok_or_else(|| {
                let all: Vec<&str> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
                format!(
                    "`reason` is {:?}; {}expected a drop reason of `evenkeel status`, such as bad-tcp-flags",
                    cut(word),
                    near(word, &all)
                )
            })?);
        }
        if wanted.reason.is_some() && wanted.decision.is_some_and(|decision| decision != Decision::Drop) {
            return Err("`reason` tells drops apart: leave `verdict` out, or say drop".to_owned());
        }
        if let Some(word) = text(given, "service")? {
            wanted.service = Some(service(word, desired)?.key);
        }
        if let Some(word) = text(given, "client")? {
            wanted.client = Some(prefix(word).ok_or_else(|| {
                format!("`client` is {:?}; expected an address or a network such as 198.51.100.0/24", cut(word))
            })?);
        }
        if let Some(word) = text(given, "server")? {
            wanted.server = Some(end(word).ok_or_else(|| {
                format!(
                    "`server` is {:?}; expected an address, or one with a port such as 10.0.0.11:80 or [fd00::1]:80",
                    cut(word)
                )
            })?);
        }
        let within = |name: &str, (usual, most): (u64, u64)| number(given, name, usual, 1, most);
        let snaplen = number(given, "snaplen", SNAPLEN.0, SNAPLEN.1, SNAPLEN.0)?;
        Ok(Wish {
            wanted,
            both: flag(given, "both")?.unwrap_or(false),
            snaplen: usize::try_from(snaplen).unwrap_or(MOST_SNAPLEN),
            count: within("count", COUNT)?,
            bytes: within("bytes", BYTES)?,
            lasts: Duration::from_secs(within("seconds", SECONDS)?),
        })
    }
}

fn number(given: &Map<String, Value>, name: &str, usual: u64, least: u64, most: u64) -> Result<u64, String> {
    let Some(value) = given.get(name) else { return Ok(usual) };
    value
        .as_u64()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("`{name}` is {}; expected a number from {least} to {most}", shown(value)))
}

fn near(word: &str, all: &[&str]) -> String {
    nearest(word, all.iter().copied()).map(|word| format!("did you mean {word}? ")).unwrap_or_default()
}

/// A service by its name, or as `PROTOCOL ADDRESS:PORT` with the port as in the file.
///
/// # Errors
/// There is none such, and which one comes next.
pub fn service<'d>(wanted: &str, desired: &'d Desired) -> Result<&'d Service, String> {
    let found = desired.services.iter().find(|service| service.name == wanted);
    found.or_else(|| desired.services.iter().find(|service| is_key(&service.key, wanted))).ok_or_else(|| {
        let names: Vec<&str> = desired.services.iter().map(|service| service.name.as_str()).collect();
        let near = nearest(wanted, names.iter().copied()).map(|near| format!("; did you mean `{near}`?"));
        format!(
            "there is no service {:?}{}; expected a name, or such as tcp 192.0.2.10:80",
            cut(wanted),
            near.unwrap_or_default()
        )
    })
}
