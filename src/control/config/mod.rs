//! The configuration file: text -> sound TOML -> checked values -> [`Desired`], with every mistake on the way.
//!
//! Owns reading the file and the order of the steps. Each step reports all it finds, and later steps look at what the
//! earlier ones left, so that one run shows every mistake. Nothing here changes anything on the machine.

pub mod problem;
pub mod raw;
pub mod reference;
pub mod render;
pub mod schema;
pub mod syntax;
pub mod value;

use std::path::Path;

use toml::de::DeTable;

pub use problem::{Problem, Severity, render_all};

use crate::control::{resolve, web};
use crate::model::Desired;

/// Longest file that is read.
const MAX_FILE: u64 = 64 << 20;

/// How files that a configuration names are read: their bytes, or why not.
pub type ReadFile<'r> = &'r dyn Fn(&Path) -> Result<Vec<u8>, String>;

/// What became of a configuration text.
#[derive(Debug)]
pub struct Outcome {
    /// The configuration, when there was no error.
    pub desired: Option<Desired>,
    /// All errors and warnings, in the order of the file.
    pub problems: Vec<Problem>,
}

/// A configuration that was taken.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the operator wants to be true.
    pub desired: Desired,
    /// What is probably not meant.
    pub warnings: Vec<Problem>,
    /// The text that it was read from.
    pub text: String,
}

/// A configuration that was refused: every error of it, and the warnings.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", render_all(file, problems).trim_end())]
pub struct Refused {
    /// The file.
    pub file: String,
    /// What is wrong with it, in its order.
    pub problems: Vec<Problem>,
}

impl Outcome {
    /// The errors.
    pub fn errors(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| problem.severity == Severity::Error)
    }

    /// The warnings.
    pub fn warnings(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| problem.severity == Severity::Warning)
    }

    /// The configuration, or why not; `text` is what it was read from.
    pub fn into_result(self, file: &str, text: String) -> Result<Loaded, Refused> {
        match self.desired {
            Some(desired) => Ok(Loaded { desired, warnings: self.problems, text }),
            None => Err(Refused { file: file.to_owned(), problems: self.problems }),
        }
    }
}

/// The core that a worker takes when the file names none: the last that this process may run on.
pub fn last_core() -> usize {
    std::thread::available_parallelism().map_or(0, |cores| cores.get() - 1)
}

/// Reads a configuration text. Pure: `last_core` is the core to take when the text names none, and lists in files are
/// empty.
pub fn parse(text: &str, last_core: usize) -> Outcome {
    parse_with(text, last_core, &|_| Ok(Vec::new()))
}

/// Reads a configuration text, and the files that it names by way of `read`.
pub fn parse_with(text: &str, last_core: usize, read: ReadFile<'_>) -> Outcome {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let repaired = syntax::repair(text);
    let (root, errors) = DeTable::parse_recoverable(&repaired.text);
    let mut out = problem::Collector::new(&repaired.text);
    syntax::report_duplicates(&repaired.text, &errors, &mut out);
    let file = raw::walk(root.get_ref(), &mut out);
    let desired = resolve::resolve(&file, last_core, read, &mut out);

    let mut problems = out.problems;
    if !repaired.problems.is_empty() {
        // What stood on a broken line is not missing, and what depends on it cannot be judged.
        let explained: Vec<usize> = out
            .absences
            .iter()
            .filter(|(index, name)| syntax::explains_absence(text, &repaired, problems[*index].line, name))
            .map(|(index, _)| *index)
            .collect();
        let mut index = 0..;
        problems.retain(|problem| {
            let explained = index.next().is_some_and(|index| explained.contains(&index));
            problem.severity == Severity::Error && !explained
        });
    }
    problems.extend(repaired.problems);
    problems.sort_by(|a, b| (&a.file, a.line, a.column, &a.key).cmp(&(&b.file, b.line, b.column, &b.key)));
    let refused = problems.iter().any(|problem| problem.severity == Severity::Error);
    Outcome { desired: desired.filter(|_| !refused), problems }
}

/// Reads a configuration file.
pub fn check_file(path: &Path) -> Outcome {
    match read(path) {
        Ok(text) => with_doubts(parse_with(&text, last_core(), &read_list)),
        Err(problem) => Outcome { desired: None, problems: vec![*problem] },
    }
}

/// Reads a configuration file: the configuration, or every error of it.
pub fn load(path: &Path) -> Result<Loaded, Refused> {
    let file = path.display().to_string();
    match read(path) {
        Ok(text) => with_doubts(parse_with(&text, last_core(), &read_list)).into_result(&file, text),
        Err(problem) => Err(Refused { file, problems: vec![*problem] }),
    }
}

/// With what this machine says of the files that are named.
fn with_doubts(mut outcome: Outcome) -> Outcome {
    let web = outcome.desired.as_ref().and_then(|desired| desired.web.as_deref());
    outcome.problems.extend(web.map(web::disk::doubts).unwrap_or_default());
    outcome
}

/// Reads a configuration that is not in its file: every error of it.
pub fn load_text(text: &str) -> Outcome {
    parse_with(text, last_core(), &read_list)
}

/// A file that a configuration names.
fn read_list(path: &Path) -> Result<Vec<u8>, String> {
    match bytes(path) {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(size)) => Err(format!("it has {size} bytes, and the most is {MAX_FILE}")),
        Err(error) => Err(error.to_string()),
    }
}

/// What is in a file, or its size when that is too much.
fn bytes(path: &Path) -> std::io::Result<Result<Vec<u8>, u64>> {
    let size = std::fs::metadata(path)?.len();
    if size > MAX_FILE { Ok(Err(size)) } else { std::fs::read(path).map(Ok) }
}

fn read(path: &Path) -> Result<String, Box<Problem>> {
    let bytes = match bytes(path).map_err(|error| unreadable(&error))? {
        Ok(bytes) => bytes,
        Err(size) => {
            let problem = Problem::file(format!("the file has {size} bytes"), format!("the most is {MAX_FILE}"));
            return Err(Box::new(problem));
        }
    };
    String::from_utf8(bytes).map_err(|error| {
        let sound = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(&error.as_bytes()[..sound]).into_owned();
        let (line, column) = problem::Places::new(&text).of(sound);
        let mut problem = Problem::file("this byte is not UTF-8", "TOML files are UTF-8: convert the file");
        (problem.line, problem.column) = (line, column);
        Box::new(problem)
    })
}

fn unreadable(error: &std::io::Error) -> Box<Problem> {
    Box::new(Problem::file(format!("cannot be read: {error}"), "check the path and the permissions of the file"))
}
