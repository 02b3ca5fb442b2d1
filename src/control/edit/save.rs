//! The running configuration's text goes to the file.
//!
//! Owns the words of the command `save`, and that a file which somebody else changed meanwhile is not written over.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::control::naming::misread;
use crate::control::whole_file;

/// The names of a [`Question`]'s members.
pub const OPTIONS: &[&str] = &["force", "print"];

/// What is to be done with the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Question {
    /// Also over a file that was changed since it was read.
    pub force: bool,
    /// Give the text, and write nothing.
    pub print: bool,
}

impl Question {
    /// A question as it came over the control socket.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(options: &Map<String, Value>) -> Result<Question, String> {
        serde_json::from_value(Value::Object(options.clone())).map_err(|error| misread("save", &error))
    }
}

/// Why the file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// Somebody changed it.
    #[error(
        "{} was changed since it was read: `evenkeel reload --dry-run` shows what it says now; `evenkeel save --force` writes \
         over it",
        .0.display()
    )]
    Changed(PathBuf),
    /// The system refuses.
    #[error("cannot write {}: {source}; it is as it was", path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes a text to the file, in which `known` should be. Waits for the disk. A link stays one: what it leads to is written.
///
/// # Errors
/// [`SaveError`].
pub fn save(path: &Path, known: &str, text: &str, force: bool) -> Result<(), SaveError> {
    let failed = |source| SaveError::System { path: path.to_owned(), source };
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if force && error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(failed(error)),
    };
    if !force && fs::read(&target).map_err(failed)? != known.as_bytes() {
        return Err(SaveError::Changed(path.to_owned()));
    }
    let like = fs::metadata(&target).ok();
    whole_file::replace(&target, text.as_bytes(), like.as_ref()).map_err(failed)
}
