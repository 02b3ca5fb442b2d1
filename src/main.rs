//! The `evenkeel` command: arguments to one call.

use std::process::ExitCode;

fn main() -> ExitCode {
    evenkeel::control::cli::main()
}
