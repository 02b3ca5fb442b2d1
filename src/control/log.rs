//! The log: where it goes, and which events are in it, changeable while the engine runs.
//!
//! Owns the subscriber, the words for levels (`debug`, `vrrp=debug,info`) and the socket's command `log`. Never logs on the path of
//! a packet, and decides for nobody what is worth a line.

pub mod client;

use std::io::IsTerminal as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tracing::info;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use super::config::problem::nearest;
use super::naming::cut;
use super::socket::{Answer, Code};

/// Options of the command `log`.
pub const OPTIONS: &[&str] = &["level", "for_s"];

/// The levels, from few lines to many.
pub const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Parts of the program that can have a level of their own.
pub const PARTS: [&str; 6] = ["control", "dataplane", "health", "programs", "vrrp", "web"];

/// Longest time after which a change reverts by itself: a day.
const LONGEST_S: u64 = 86_400;

/// Where the levels of the running program are changed; once for a process.
static LEVEL: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Why words are no levels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotALevel(String);

/// The words of people as the directives of `tracing`: a level alone is this program's, and of its libraries only warnings are
/// shown then; `vrrp=debug` is that part's.
///
/// # Errors
/// [`NotALevel`]: which word is none, and what was expected.
pub fn directives(words: &str) -> Result<String, NotALevel> {
    let mut all = Vec::new();
    let mut general = None;
    for word in words.split(',').map(str::trim) {
        let (part, level) = match word.split_once('=') {
            Some((part, level)) => (Some(part.trim()), level.trim()),
            None => (None, word),
        };
        let level = level.to_ascii_lowercase();
        if !LEVELS.contains(&level.as_str()) {
            let near = nearest(&level, LEVELS.iter().copied()).map(|near| format!("; did you mean `{near}`?"));
            let (level, near) = (cut(&level), near.unwrap_or_default());
            return Err(NotALevel(format!("{level:?} is no level{near} expected one of {}", LEVELS.join(", "))));
        }
        match part {
            None if general.replace(level.clone()).is_some() => {
                return Err(NotALevel(format!(
                    "{:?} has two levels for everything; expected one, such as `vrrp=debug,info`",
                    cut(words)
                )));
            }
            None => {}
            Some(part) if PARTS.contains(&part) => {
                // A part's logic, and how it is wired to the engine.
                if !matches!(part, "control" | "web") {
                    all.push(format!("evenkeel::{part}={level}"));
                }
                let within = match part {
                    "control" => Some("control".to_owned()),
                    "health" | "web" => Some(format!("control::{part}")),
                    "vrrp" => Some("control::routers".to_owned()),
                    _ => None,
                };
                all.extend(within.map(|within| format!("evenkeel::{within}={level}")));
            }
            Some(part) => {
                let near = nearest(part, PARTS.iter().copied()).map(|near| format!("; did you mean `{near}`?"));
                let (part, near) = (cut(part), near.unwrap_or_default());
                return Err(NotALevel(format!("{part:?} is no part{near} expected one of {}", PARTS.join(", "))));
            }
        }
    }
    let general = general.unwrap_or_else(|| "info".to_owned());
    let libraries = if LEVELS[..3].contains(&general.as_str()) { &general } else { "warn" };
    let mut first = vec![libraries.to_owned(), format!("evenkeel={general}")];
    first.append(&mut all);
    Ok(first.join(","))
}

/// For [`clap`]: words that are levels.
///
/// # Errors
/// [`NotALevel`].
pub fn level(words: &str) -> Result<String, NotALevel> {
    directives(words).map(|_| words.to_owned())
}

/// Whether stderr is a stream that systemd has connected with its journal (systemd.exec(5), `JOURNAL_STREAM`).
fn is_journals(stream: Option<&str>, device: u64, inode: u64) -> bool {
    let parsed = stream.and_then(|stream| stream.split_once(':'));
    parsed.is_some_and(|(d, i)| d.parse() == Ok(device) && i.parse() == Ok(inode))
}

/// Whether the log goes to the journal, with priorities, and not to stderr as lines.
pub fn goes_to_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").ok();
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|it| is_journals(stream.as_deref(), it.dev(), it.ino()))
}

/// Begins to log: to the journal where systemd has given stderr to it, else to stderr, one plain line an event. `words` as for
/// [`directives`]; what is none logs at `info`.
pub fn begin(words: &str) {
    let filter = EnvFilter::new(directives(words).unwrap_or_else(|_| "warn,evenkeel=info".to_owned()));
    let (filter, handle) = reload::Layer::new(filter);
    let journal = if goes_to_journal() { tracing_journald::layer().ok() } else { None };
    let journal = journal.map(|journal| {
        journal.with_syslog_identifier("evenkeel".to_owned()).with_field_prefix(None).with_priority_mappings(
            PriorityMappings { info: Priority::Informational, debug: Priority::Debug, ..PriorityMappings::new() },
        )
    });
    let lines = journal.is_none().then(|| {
        let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
        lines.with_ansi(std::io::stderr().is_terminal())
    });
    // A second subscriber (in tests) is no error; its levels are not changed then.
    if tracing_subscriber::registry().with(filter).with(lines).with(journal).try_init().is_ok() {
        let _ = LEVEL.set(handle);
    }
}

/// The levels of a running engine: what they are, what they were at start, and until when.
#[derive(Debug)]
pub struct Levels {
    /// Those of the command line.
    first: String,
    now: String,
    /// When the first ones come back.
    until: Option<Instant>,
}

/// What the command `log` asks.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    level: Option<String>,
    lasts: Option<Duration>,
}

impl Question {
    fn read(options: &Map<String, Value>) -> Result<Question, String> {
        let level = match options.get("level") {
            None | Some(Value::Null) => None,
            Some(Value::String(words)) => Some(level(words).map_err(|wrong| format!("`level`: {wrong}"))?),
            Some(_) => {
                return Err("`level` is no text; expected levels, such as \"debug\" or \"vrrp=debug,info\"".to_owned());
            }
        };
        let lasts = match options.get("for_s") {
            None | Some(Value::Null) => None,
            Some(seconds) => match seconds.as_u64().filter(|seconds| (1..=LONGEST_S).contains(seconds)) {
                Some(seconds) => Some(Duration::from_secs(seconds)),
                None => {
                    return Err(format!(
                        "`for_s` is {}; expected seconds, 1 to {LONGEST_S}",
                        cut(&seconds.to_string())
                    ));
                }
            },
        };
        if lasts.is_some() && level.is_none() {
            return Err("`for_s` without `level`: nothing changes, so nothing comes back".to_owned());
        }
        Ok(Question { level, lasts })
    }
}

impl Levels {
    /// As the command line says.
    pub fn new(first: &str) -> Levels {
        Levels { first: first.to_owned(), now: first.to_owned(), until: None }
    }

    /// Answers the command `log`: what is logged, or what is logged from now on.
    pub fn answer(&mut self, options: &Map<String, Value>, now: Instant) -> Answer {
        let question = match Question::read(options) {
            Ok(question) => question,
            Err(why) => return Answer::refused(why),
        };
        if let Some(words) = question.level {
            if let Err(why) = set(&words) {
                return Answer::refused_as(Code::Failed, why);
            }
            self.until = question.lasts.map(|lasts| now + lasts);
            let lasts = question.lasts.map(|lasts| format!(" for {} s", lasts.as_secs())).unwrap_or_default();
            info!("log: {words} by command{lasts}");
            self.now = words;
        }
        let left = self.until.map(|until| until.saturating_duration_since(now).as_secs());
        Answer::Done(json!({ "level": self.now, "first": self.first, "left_s": left }))
    }

    /// When [`Levels::turn`] has something to do.
    pub const fn next_deadline(&self) -> Option<Instant> {
        self.until
    }

    /// Brings the first levels back when it is time.
    pub fn turn(&mut self, now: Instant) {
        if self.until.is_some_and(|until| now >= until) {
            self.until = None;
            self.now.clone_from(&self.first);
            // What was set at start can be set again.
            let _ = set(&self.first);
            info!("log: {} again, the time of the command is over", self.first);
        }
    }
}

fn set(words: &str) -> Result<(), String> {
    let directives = directives(words).map_err(|wrong| wrong.to_string())?;
    let handle = LEVEL.get().ok_or("this process logs by another program's means")?;
    handle.reload(EnvFilter::new(directives)).map_err(|error| format!("the log refuses: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_directives() {
        for (words, expected) in [
            ("info", "warn,evenkeel=info"),
            ("DEBUG", "warn,evenkeel=debug"),
            ("error", "error,evenkeel=error"),
            ("off", "off,evenkeel=off"),
            ("vrrp=debug,info", "warn,evenkeel=info,evenkeel::vrrp=debug,evenkeel::control::routers=debug"),
            ("warn, web=trace", "warn,evenkeel=warn,evenkeel::control::web=trace"),
            ("health=off", "warn,evenkeel=info,evenkeel::health=off,evenkeel::control::health=off"),
        ] {
            let made = directives(words).expect("levels");
            assert_eq!(made, expected, "{words}");
            EnvFilter::try_new(&made).expect("tracing takes it");
        }
    }

    #[test]
    fn what_is_no_level_is_explained() {
        for (words, part) in [
            ("", "\"\" is no level"),
            ("debgu", "did you mean `debug`?"),
            ("vrpp=debug", "did you mean `vrrp`?"),
            ("vrrp=loud", "\"loud\" is no level"),
            ("info,debug", "two levels"),
            ("h2=debug", "expected one of control"),
            ("info;", "is no level"),
        ] {
            let wrong = directives(words).unwrap_err().to_string();
            assert!(wrong.contains(part) && wrong.contains("expected"), "{words}: {wrong}");
        }
        assert!(directives(&"x".repeat(9000)).unwrap_err().to_string().len() < 500);
    }

    #[test]
    fn every_part_is_a_module() {
        for part in PARTS.into_iter().filter(|part| *part != "web") {
            let root = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
            let there = |path: String| std::path::Path::new(&path).exists();
            assert!(there(format!("{root}/{part}")) || there(format!("{root}/{part}.rs")), "{part}");
        }
    }

    #[test]
    fn the_journals_stream_is_known_by_its_inode() {
        assert!(is_journals(Some("9:1234"), 9, 1234));
        for stream in [None, Some(""), Some("9"), Some("9:1235"), Some("8:1234"), Some("9:1234:5")] {
            assert!(!is_journals(stream, 9, 1234), "{stream:?}");
        }
    }

    #[test]
    fn questions_are_read_or_refused() {
        let read = |value: Value| match value {
            Value::Object(options) => Question::read(&options),
            _ => panic!("an object"),
        };
        assert_eq!(read(json!({})), Ok(Question { level: None, lasts: None }));
        let lasts = Some(Duration::from_secs(600));
        assert_eq!(read(json!({"level": "debug", "for_s": 600})), Ok(Question { level: Some("debug".into()), lasts }));
        for wrong in [
            json!({"level": 7}),
            json!({"level": "loud"}),
            json!({"level": "debug", "for_s": 0}),
            json!({"level": "debug", "for_s": "10m"}),
            json!({"level": "debug", "for_s": 86_401}),
            json!({"for_s": 10}),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
