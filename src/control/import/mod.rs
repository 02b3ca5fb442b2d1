//! `evenkeel import`: a configuration file from the files of keepalived and ipvsadm.
//!
//! Owns the command's arguments, its output and its exit code: 0 where a file was made, 1 where the imported one is broken, or
//! where something has no counterpart and `--strict` is given. Reads files; never touches a running engine.

mod disk;
pub mod document;
pub mod fit;
pub mod ipvsadm;
pub mod keepalived;
pub mod report;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use self::document::{Document, Table, Value};
use self::keepalived::{Disk, Wishes};
use self::report::{Broken, Note, Place, Weight};

/// Arguments of `evenkeel import`.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// What wrote the file.
    #[arg(value_enum)]
    from: From,
    /// The file; `-` is the standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Write the configuration to a file that is not there yet, instead of the standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// An interface of the engine, besides those that the file names; may be given several times.
    #[arg(long, value_name = "NAME")]
    interface: Vec<String>,
    /// The name of this machine for lines such as `@NAME priority 150`; as `keepalived --config-id`, usually the host's name.
    #[arg(long, short = 'i', value_name = "NAME")]
    config_id: Option<String>,
    /// Fail where anything has no counterpart.
    #[arg(long)]
    strict: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum From {
    /// A configuration of keepalived.
    Keepalived,
    /// Rules of `ipvsadm -S -n`, or a script that calls ipvsadm.
    Ipvsadm,
}

/// What an import made.
#[derive(Debug)]
pub struct Made {
    /// The configuration, which `evenkeel check` takes.
    pub text: String,
    /// What was left out, and what is worth knowing.
    pub report: Vec<Note>,
}

impl Made {
    /// How many parts of the imported file have no counterpart.
    pub fn left_out(&self) -> usize {
        self.report.iter().filter(|note| note.weight == Weight::LeftOut).count()
    }
}

/// Imports a file of keepalived. Pure but for `disk`.
pub fn from_keepalived(path: &Path, wishes: &Wishes, disk: Disk<'_>) -> Result<Made, Broken> {
    let imported = keepalived::import(path, wishes, disk)?;
    let source = Place::new(&path.display().to_string(), 0);
    finish(imported.document, imported.report, &source)
}

/// Imports rules of ipvsadm. Pure.
pub fn from_ipvsadm(bytes: &[u8], name: &str, interfaces: &[String]) -> Result<Made, Broken> {
    let (document, report) = ipvsadm::import(bytes, name, interfaces)?;
    finish(document, report, &Place::new(name, 0))
}

fn finish(mut document: Document, mut report: Vec<Note>, source: &Place) -> Result<Made, Broken> {
    let fitted = fit::fit(&mut document, source, &mut report)?;
    report.sort_by(|a, b| (&a.at.file, a.at.line).cmp(&(&b.at.file, b.at.line)));
    Ok(Made { text: fitted.text, report })
}

/// `[[interface]]` where nothing says which one.
fn unknown_interface(at: &Place) -> Table {
    let mut table =
        Table::many("interface", at, "no interface is named: correct this, or import with `--interface NAME`");
    table.set("name", Value::text("eth0"), at);
    table
}

/// Runs `evenkeel import`.
pub fn main(args: ImportArgs) -> ExitCode {
    let name = args.file.display().to_string();
    let made = match args.from {
        From::Keepalived => {
            let config_id = args.config_id.clone().unwrap_or_else(disk::host_name);
            let wishes = Wishes { config_id, interfaces: args.interface.clone() };
            from_keepalived(&args.file, &wishes, Disk { read: &disk::read, list: &disk::list })
        }
        From::Ipvsadm => disk::read(&args.file)
            .map_err(|error| {
                let text = format!("it cannot be read: {error}");
                Broken::new(&Place::new(&name, 0), text, "check the path and the permissions")
            })
            .and_then(|bytes| from_ipvsadm(&bytes, &name, &args.interface)),
    };
    let made = match made {
        Ok(made) => made,
        Err(broken) => {
            eprintln!("{broken}");
            return ExitCode::FAILURE;
        }
    };
    for note in &made.report {
        eprintln!("{note}");
    }
    let left_out = made.left_out();
    if args.strict && left_out > 0 {
        eprintln!("{name}: refused: {left_out} parts have no counterpart, and `--strict` is given");
        return ExitCode::FAILURE;
    }
    match &args.output {
        None => super::print(&made.text),
        Some(path) => {
            if let Err(error) = write_new(path, &made.text) {
                eprintln!("{}: cannot be written: {error}", path.display());
                return ExitCode::FAILURE;
            }
        }
    }
    eprintln!("{name}: imported; {left_out} parts have no counterpart: next `evenkeel check`");
    ExitCode::SUCCESS
}

/// Writes a file that is not there yet: nothing that somebody wrote by hand is lost.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
