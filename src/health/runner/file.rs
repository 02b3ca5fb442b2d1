//! A file that holds a number, as keepalived's `FILE_CHECK` judges it (keepalived/check/check_file.c, core/track_file.c).
//!
//! Owns reading it: a regular file, and no more than keepalived reads. It never waits for a FIFO's writer.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::health::{Outcome, Reason};
use crate::model::{FileCheck, Weigh};

/// How much of a file is read for its number (`process_track_file`).
const READ: u64 = 127;
/// At this product of number and weight, and below, the check fails (`IPVS_WEIGHT_FAULT`).
const FAULT: i64 = -65_536;

/// Reads and judges it. A missing file holds 0, as for keepalived, and the outcome warns of it.
pub fn read(check: &FileCheck) -> Outcome {
    let path = check.path.display();
    let bad = |words: String| Outcome::bad(Reason::File, words);
    let text = match contents(&check.path) {
        Ok(Some(text)) => text,
        Ok(None) => return bad(format!("{path} is no regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let warning = Some(format!("{path} does not exist: it is taken for 0"));
            return match judge(0, check.weight) {
                Outcome::Good { said, weigh, .. } => Outcome::Good { said, weigh, warning },
                other => other,
            };
        }
        Err(error) => return bad(format!("{path} cannot be read: {error}")),
    };
    judge(number(&text), check.weight)
}

fn judge(number: i64, weight: i16) -> Outcome {
    let change = number.saturating_mul(weight.into());
    let says = format!("the file says {number}");
    match weight {
        0 if number != 0 => Outcome::bad(Reason::File, format!("{says}, wanted 0")),
        0 => Outcome::good(says),
        _ if change <= FAULT => Outcome::bad(Reason::File, format!("{says}, which is {change} for the weight")),
        _ => {
            let change = change.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
            Outcome::Good { said: says, weigh: (change != 0).then_some(Weigh::Add(change)), warning: None }
        }
    }
}

fn contents(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file: File = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut text = Vec::new();
    file.take(READ).read_to_end(&mut text)?;
    Ok(Some(text))
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
    fn numbers_and_weights() {
        for (text, weight, expected) in [
            ("0", 0, Ok(None)),
            ("", 0, Ok(None)),
            ("nothing", 0, Ok(None)),
            ("1", 0, Err("the file says 1, wanted 0")),
            ("-1\n", 0, Err("the file says -1, wanted 0")),
            ("0x10", 0, Err("the file says 16, wanted 0")),
            ("0", 5, Ok(None)),
            ("3", 5, Ok(Some(Weigh::Add(15)))),
            (" -010", 5, Ok(Some(Weigh::Add(-40)))),
            ("7", -1, Ok(Some(Weigh::Add(-7)))),
            ("65535", -1, Ok(Some(Weigh::Add(-65535)))),
            ("65536", -1, Err("the file says 65536, which is -65536 for the weight")),
            ("-65536 x", 1, Err("the file says -65536, which is -65536 for the weight")),
            ("99999999999999999999", 1, Ok(Some(Weigh::Add(i32::MAX)))),
        ] {
            let seen = match judge(number(text.as_bytes()), weight) {
                Outcome::Good { weigh, .. } => Ok(weigh),
                Outcome::Bad(failure) => Err(failure.words),
                Outcome::Unable(words) => panic!("{words}"),
            };
            assert_eq!(seen, expected.map_err(str::to_owned), "{text:?} x {weight}");
        }
    }

    #[test]
    fn what_is_no_file() {
        let read = |path: &Path| read(&FileCheck { path: path.into(), weight: 0 });
        let folder = std::env::temp_dir().join(format!("evenkeel-file-check-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let Outcome::Good { warning: Some(warning), .. } = read(&folder.join("missing")) else { panic!("good") };
        assert!(warning.ends_with("missing does not exist: it is taken for 0"), "{warning}");
        let fifo = folder.join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        for path in [&folder, &fifo] {
            let expected = format!("{} is no regular file", path.display());
            assert_eq!(read(path), Outcome::bad(Reason::File, expected));
        }
        std::fs::remove_dir_all(&folder).expect("it was ours");
    }
}
