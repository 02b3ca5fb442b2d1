//! `evenkeel import`: a configuration file from the files of keepalived and ipvsadm.
//!
//! Owns the command's arguments and output. Never touches a running engine.

use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `evenkeel import`.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// What wrote the file.
    #[arg(value_enum)]
    from: From,
    /// The file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum From {
    /// A configuration of keepalived.
    Keepalived,
    /// Rules of `ipvsadm -S`.
    Ipvsadm,
}

/// Runs `evenkeel import`.
pub fn main(args: ImportArgs) -> ExitCode {
    let ImportArgs { from, file } = args;
    eprintln!("{from:?} {}", file.display());
    ExitCode::FAILURE
}
