//! Tracked files: the number in each.
//!
//! Owns the watches on their folders. A file that is written, moved or removed is read at once; each is looked at every
//! second besides, for what no watch tells: a folder that comes later, a link that leads elsewhere, a network file system.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use super::{Observation, Value};
use crate::model::{TrackFile, Tracked};
use crate::vrrp::Level;
use crate::vrrp::notify::Report;

/// How often each file is looked at anyway.
const LOOK: Duration = Duration::from_secs(1);
/// How much of a file is read for its number, as keepalived does (`process_track_file`).
const READ: u64 = 127;

struct File {
    spec: TrackFile,
    value: Option<i64>,
    /// What the last look saw that no watch told of. It may have come upon a half-written file: it counts when the next one
    /// sees the same.
    doubted: Option<i64>,
}

/// All tracked files.
#[derive(Default)]
pub(super) struct Files {
    all: Vec<File>,
    inotify: Option<Inotify>,
    folders: HashMap<WatchDescriptor, PathBuf>,
    next: Duration,
}

impl Files {
    /// Takes a configuration; files whose path stays keep what was read.
    pub fn configure<'a>(
        &mut self,
        specs: impl Iterator<Item = &'a TrackFile>,
        now: Duration,
        out: &mut Vec<Observation>,
        reports: &mut Vec<Report>,
    ) {
        let mut before = std::mem::take(&mut self.all);
        for spec in specs {
            let known = before.iter().position(|file| file.spec == *spec).map(|at| before.swap_remove(at));
            self.all.push(known.unwrap_or_else(|| File { spec: spec.clone(), value: None, doubted: None }));
        }
        if self.inotify.is_none() && !self.all.is_empty() {
            match Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC) {
                Ok(inotify) => self.inotify = Some(inotify),
                Err(error) => reports.push(Report::Log {
                    level: Level::Warn,
                    text: format!("Unable to monitor track files ({error}): each is read every second"),
                }),
            }
        }
        self.forget_watches();
        self.watch();
        for file in self.all.iter_mut().filter(|file| file.value.is_none()) {
            file.read(out, reports);
        }
        self.next = now + LOOK;
    }

    /// What to poll, where there is something.
    pub fn descriptor(&self) -> Option<RawFd> {
        self.inotify.as_ref().map(|inotify| inotify.as_fd().as_raw_fd())
    }

    /// When to come back without an event.
    pub fn deadline(&self) -> Option<Duration> {
        (!self.all.is_empty()).then_some(self.next)
    }

    /// Reads what has changed.
    pub fn turn(&mut self, now: Duration, out: &mut Vec<Observation>, reports: &mut Vec<Report>) {
        self.take_events(out, reports);
        if self.all.is_empty() || now < self.next {
            return;
        }
        self.next = now + LOOK;
        self.watch();
        for file in &mut self.all {
            let seen = number_in(&file.spec.path);
            if file.value == Some(seen) {
                file.doubted = None;
            } else if file.doubted.replace(seen) == Some(seen) {
                file.take(seen, out, reports);
            }
        }
    }

    fn take_events(&mut self, out: &mut Vec<Observation>, reports: &mut Vec<Report>) {
        let Some(inotify) = &self.inotify else { return };
        let mut touched: Vec<PathBuf> = Vec::new();
        let mut all = false;
        // Bounded, so that a busy folder holds up nothing else.
        for _ in 0..16 {
            let Ok(events) = inotify.read_events() else { break };
            for event in events {
                all |= event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                    // The folder is gone.
                    all |= self.folders.remove(&event.wd).is_some();
                }
                if let (Some(folder), Some(name)) = (self.folders.get(&event.wd), event.name) {
                    touched.push(folder.join(name));
                }
            }
        }
        for file in &mut self.all {
            if all || names_of(&file.spec.path).iter().any(|(folder, name)| touched.contains(&folder.join(name))) {
                file.read(out, reports);
            }
        }
    }

    /// Watches the folder of each file, and the one that a link leads to. To watch one again does nothing.
    fn watch(&mut self) {
        let Some(inotify) = &self.inotify else { return };
        let what = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVE;
        for (folder, _) in self.all.iter().flat_map(|file| names_of(&file.spec.path)) {
            if let Ok(watch) = inotify.add_watch(&folder, what) {
                self.folders.insert(watch, folder);
            }
        }
    }

    fn forget_watches(&mut self) {
        let Some(inotify) = &self.inotify else { return };
        let wanted: Vec<PathBuf> =
            self.all.iter().flat_map(|file| names_of(&file.spec.path)).map(|(folder, _)| folder).collect();
        self.folders.retain(|watch, folder| {
            let keep = wanted.contains(folder);
            if !keep {
                let _ = inotify.rm_watch(*watch);
            }
            keep
        });
    }
}

impl File {
    fn read(&mut self, out: &mut Vec<Observation>, reports: &mut Vec<Report>) {
        let number = number_in(&self.spec.path);
        self.take(number, out, reports);
    }

    fn take(&mut self, number: i64, out: &mut Vec<Observation>, reports: &mut Vec<Report>) {
        self.doubted = None;
        let before = self.value.replace(number);
        if before == Some(number) {
            return;
        }
        if let Some(before) = before {
            let text = format!("tracked file {} holds {number}, before {before}", self.spec.name);
            reports.push(Report::Log { level: Level::Info, text });
        }
        out.push(Observation { what: Tracked::File(self.spec.name.clone()), value: Value::Number(number) });
    }
}

/// Folder and name of a path as it is written, and of the file that it leads to. Folders without links, so that two ways to
/// one are the same.
fn names_of(path: &Path) -> Vec<(PathBuf, OsString)> {
    let split = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some((folder.canonicalize().ok()?, path.file_name()?.to_owned()))
    };
    let mut names: Vec<(PathBuf, OsString)> = split(path).into_iter().collect();
    names.extend(path.canonicalize().ok().and_then(|real| split(&real)).filter(|real| !names.contains(real)));
    names
}

/// The number in a file; 0 where there is no file or no number. It never waits for a FIFO's writer.
fn number_in(path: &Path) -> i64 {
    let mut text = Vec::new();
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    match file.map(|file| file.take(READ).read_to_end(&mut text)) {
        Ok(_) => number(&text),
        Err(_) => 0,
    }
}

/// As `strtol(text, NULL, 0)` reads it: space, a sign, `0x` or `0` for another base; what follows is not looked at.
fn number(text: &[u8]) -> i64 {
    let text = text.trim_ascii_start();
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (base, digits) = match digits {
        [b'0', b'x' | b'X', rest @ ..] if rest.first().is_some_and(u8::is_ascii_hexdigit) => (16, rest),
        [b'0', ..] => (8, digits),
        _ => (10, digits),
    };
    let values = digits.iter().map_while(|digit| char::from(*digit).to_digit(base));
    let size = values.fold(0i64, |sum, digit| sum.saturating_mul(i64::from(base)).saturating_add(i64::from(digit)));
    if negative { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_strtol_does() {
        for (text, expected) in [
            ("", 0),
            ("\n", 0),
            ("12", 12),
            ("  -7\n", -7),
            ("+5 apples", 5),
            ("0x1f", 31),
            ("0x", 0),
            ("010", 8),
            ("089", 0),
            ("-0XfF", -255),
            ("seven", 0),
            ("- 3", 0),
            ("99999999999999999999", i64::MAX),
            ("-99999999999999999999", -i64::MAX),
        ] {
            assert_eq!(number(text.as_bytes()), expected, "{text:?}");
        }
        assert_eq!(number(&[0xff, 0xfe, b'1']), 0);
    }
}
