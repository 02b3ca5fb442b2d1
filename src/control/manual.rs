//! The command line as a whole: examples in every help, the socket's environment variable, completion scripts, manual pages.
//!
//! Owns the examples and what is the same for all commands. Never runs a command.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap_complete::Shell;

/// The environment variable that names the control socket where no option does.
pub const SOCKET_VARIABLE: &str = "EVENKEEL_SOCKET";

/// Each command with a way to use it, and what that does. A test asks for one for each command, and reads them as the shell would.
pub const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    (
        "capture",
        &[
            ("evenkeel capture --reason no-server -o drops.pcapng", "what is dropped for a reason, for Wireshark"),
            (
                "evenkeel capture --service web --client 198.51.100.7 --both | tcpdump -nr -",
                "a client's frames, as they come and leave",
            ),
        ],
    ),
    ("check", &[("evenkeel check /etc/evenkeel/lb.toml", "every mistake of a file, before it is in force")]),
    (
        "checks",
        &[
            ("evenkeel checks --failing", "what fails, since when, and why"),
            ("evenkeel checks --service web", "those of one service"),
        ],
    ),
    (
        "completion",
        &[("evenkeel completion bash > /etc/bash_completion.d/evenkeel", "the shell completes commands and options")],
    ),
    (
        "doctor",
        &[
            (
                "evenkeel doctor --config /etc/evenkeel/lb.toml",
                "before going live: what is wrong, and the command that mends it",
            ),
            ("evenkeel doctor --config /etc/evenkeel/lb.toml --listen 5", "also who else speaks VRRP on the segments"),
        ],
    ),
    (
        "drops",
        &[
            ("evenkeel drops", "all drops since start, and what each reason means"),
            ("evenkeel drops --watch 1", "every second what was dropped in it"),
        ],
    ),
    (
        "events",
        &[
            ("evenkeel events --follow", "what happens to servers and services, as it happens"),
            ("evenkeel events --since 120 --json", "what happened after event 120, for programs"),
        ],
    ),
    (
        "explain",
        &[
            ("evenkeel explain 198.51.100.7 192.0.2.10:80", "where a new flow of this client would go, and why"),
            ("evenkeel explain 198.51.100.7:4000 --service web", "the same for a flow that may be there"),
        ],
    ),
    (
        "flows",
        &[
            ("evenkeel flows --service web --client 198.51.100.0/24", "who of a network is connected where"),
            ("evenkeel flows --server 10.0.0.11 --count", "how many flows a server has"),
        ],
    ),
    (
        "import",
        &[("evenkeel import keepalived /etc/keepalived/keepalived.conf > lb.toml", "a file for `evenkeel run`")],
    ),
    ("ipvsadm", &[("evenkeel ipvsadm -Ln --stats", "services and servers as ipvsadm prints them")]),
    ("lab", &[("evenkeel lab run web-nat --keep", "a deployment in namespaces, to look around in")]),
    (
        "log",
        &[
            ("evenkeel log", "what is logged now"),
            ("evenkeel log vrrp=debug,info --for 10m", "more of VRRP for ten minutes, then as before"),
        ],
    ),
    (
        "man",
        &[
            ("evenkeel man | man -l -", "this program's manual page"),
            ("evenkeel man /usr/local/share/man/man1", "a page for each command, for `man evenkeel-status`"),
        ],
    ),
    (
        "neighbors",
        &[
            ("evenkeel neighbors", "by which interface and Ethernet address each server is reached"),
            ("evenkeel neighbors --server 10.0.0.11", "one server, and why it cannot be reached"),
        ],
    ),
    (
        "persistence",
        &[("evenkeel persistence list --service web", "which client stays with which server, and until when")],
    ),
    ("pktgen", &[("evenkeel pktgen --help", "what it sends is said by its options")]),
    (
        "realserver",
        &[
            (
                "evenkeel realserver prepare --vip 192.0.2.10",
                "on a real server by direct routing; `verify` looks, `undo` puts back",
            ),
            ("evenkeel realserver decap --help", "on a real server behind a tunnel"),
        ],
    ),
    (
        "reload",
        &[
            ("evenkeel reload --dry-run", "what the file as it is now would change, and how many flows it moves"),
            ("evenkeel reload", "the file as it is now; a bad one changes nothing"),
        ],
    ),
    ("replay", &[("evenkeel replay --help", "what the engine would do to each frame of a capture")]),
    ("run", &[("evenkeel run --config /etc/evenkeel/lb.toml", "until a signal ends it")]),
    (
        "save",
        &[(
            "evenkeel save",
            "what was changed by command stays after a restart; `evenkeel save --print` only shows it",
        )],
    ),
    (
        "servers",
        &[
            ("evenkeel servers --failing", "the servers that get no new flows, and why"),
            ("evenkeel servers --service web --json", "those of one service, for programs"),
        ],
    ),
    ("services", &[("evenkeel services", "one line a service: how many of its servers serve, and what they do")]),
    (
        "status",
        &[
            ("evenkeel status", "everything on a page"),
            ("EVENKEEL_SOCKET=/run/lb2.sock evenkeel status --json", "another engine, for programs"),
        ],
    ),
    (
        "top",
        &[
            ("evenkeel top", "rates, flows, drops and loads, every second; ? shows the keys"),
            ("evenkeel top --once --service web", "one frame as text"),
        ],
    ),
    ("vrrp", &[("evenkeel vrrp", "who is master of what, since when, why, and who else was heard")]),
    ("workers", &[("evenkeel workers", "loads, rings and flows of each core")]),
];

/// The whole command line with what all commands share: `--socket` has its environment variable, and each help its examples.
pub fn complete(command: clap::Command) -> clap::Command {
    let command = with_socket_variable(command);
    EXAMPLES.iter().fold(command, |command, (name, examples)| {
        // Where a command brings its own, those are better.
        if command.find_subcommand(name).is_none_or(|one| one.get_after_help().is_some()) {
            return command;
        }
        command.mut_subcommand(*name, |subcommand| subcommand.after_help(examples_text(examples)))
    })
}

fn with_socket_variable(command: clap::Command) -> clap::Command {
    let has = command.get_arguments().any(|argument| argument.get_id() == "socket");
    let command = if has { command.mut_arg("socket", |socket| socket.env(SOCKET_VARIABLE)) } else { command };
    command.mut_subcommands(with_socket_variable)
}

fn examples_text(examples: &[(&str, &str)]) -> String {
    let lines = examples.iter().map(|(line, does)| format!("  {line}\n      {does}"));
    format!("Examples:\n{}", lines.collect::<Vec<_>>().join("\n"))
}

/// Arguments of `evenkeel completion`.
#[derive(Debug, clap::Args)]
pub struct CompletionArgs {
    /// The shell that shall complete.
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `evenkeel man`.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Write a page for each command into this directory instead.
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Runs `evenkeel completion`.
pub fn completion(args: &CompletionArgs) -> ExitCode {
    // Made in memory: the generator panics where its reader went away (`| head`).
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::cli::command(), "evenkeel", &mut script);
    let mut out = io::stdout().lock();
    let _ = out.write_all(&script).and_then(|()| out.flush());
    ExitCode::SUCCESS
}

/// Runs `evenkeel man`.
pub fn man(args: &ManArgs) -> ExitCode {
    let done = match &args.directory {
        Some(directory) => write_pages(directory),
        None => page(&super::cli::command(), "evenkeel").map(|page| {
            let mut out = io::stdout().lock();
            let _ = out.write_all(&page).and_then(|()| out.flush());
        }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let place = args.directory.as_deref().unwrap_or(Path::new("the manual page")).display();
            eprintln!("{place}: {error}; name a directory in which you may write");
            ExitCode::FAILURE
        }
    }
}

/// Writes `evenkeel.1` and `evenkeel-COMMAND.1` for each command, and for each of its own commands.
fn write_pages(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for (name, page) in pages(&super::cli::command())? {
        fs::write(directory.join(format!("{name}.1")), page)?;
    }
    Ok(())
}

/// Every page with its name, the overview first.
fn pages(command: &clap::Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut all = Vec::new();
    let mut left = vec![("evenkeel".to_owned(), command.clone())];
    while let Some((name, command)) = left.pop() {
        let below = command.get_subcommands().filter(|one| one.get_name() != "help");
        left.extend(below.map(|one| (format!("{name}-{}", one.get_name()), one.clone())));
        all.push((name.clone(), page(&command, &name)?));
    }
    Ok(all)
}

fn page(command: &clap::Command, name: &str) -> io::Result<Vec<u8>> {
    // The name as it is typed stands in the synopsis, the one with hyphens is the page's.
    let typed = name.replace('-', " ");
    let command = command.clone().disable_help_subcommand(true).version(env!("CARGO_PKG_VERSION")).bin_name(typed);
    let mut page = Vec::new();
    clap_mangen::Man::new(command).title(name).manual("Evenkeel").date("").render(&mut page)?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::cli;

    fn each(command: &clap::Command, path: &str, visit: &mut impl FnMut(&str, &clap::Command)) {
        visit(path, command);
        for below in command.get_subcommands().filter(|one| one.get_name() != "help") {
            each(below, &format!("{path} {}", below.get_name()), visit);
        }
    }

    #[test]
    fn every_command_says_what_it_does_with_an_example_that_is_understood() {
        let command = cli::command();
        for below in command.get_subcommands().filter(|one| one.get_name() != "help") {
            let name = below.get_name();
            let said = below.get_after_help().map(ToString::to_string).unwrap_or_default();
            let is_example = |line: &&str| line.contains(&format!("evenkeel {name}"));
            let examples: Vec<&str> = said.lines().filter(is_example).collect();
            assert!(!examples.is_empty(), "`{name}` has no example: write one into EXAMPLES of {}", file!());
        }
        for (name, examples) in EXAMPLES {
            for (line, does) in *examples {
                assert!(!does.ends_with('.') && line.contains(&format!("evenkeel {name}")), "{line}");
                // What the shell takes for itself is not the program's.
                let words = line.split(['|', '>']).next().unwrap_or_default().split_whitespace();
                let words: Vec<&str> = words.skip_while(|word| word.contains('=')).collect();
                if words.contains(&"--help") {
                    continue;
                }
                let read = command.clone().try_get_matches_from(&words);
                assert!(read.is_ok(), "{line}: {}", read.unwrap_err());
            }
        }
        for (name, _) in EXAMPLES {
            assert!(command.find_subcommand(name).is_some(), "there is an example of {name}, which is no command");
        }
    }

    #[test]
    fn every_help_builds_and_every_socket_has_its_variable() {
        let mut command = cli::command();
        command.build();
        let mut sockets = 0;
        each(&command, "evenkeel", &mut |path, command| {
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("Usage:"), "{path}: {help}");
            if path != "evenkeel" {
                let about =
                    command.get_about().unwrap_or_else(|| panic!("{path} does not say what it does")).to_string();
                assert!(about.chars().next().is_some_and(char::is_uppercase), "{path}: {about}");
            }
            for argument in command.get_arguments().filter(|argument| argument.get_id() == "socket") {
                sockets += 1;
                assert_eq!(argument.get_env(), Some(SOCKET_VARIABLE.as_ref()), "{path}");
            }
        });
        assert!(sockets >= 14, "{sockets}");
        let status = command.find_subcommand("status").unwrap().clone().render_long_help().to_string();
        assert!(status.contains("Examples:\n  evenkeel status\n"), "{status}");
    }

    #[test]
    fn every_shell_gets_a_script_and_every_command_a_page() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut cli::command(), "evenkeel", &mut script);
            let script = String::from_utf8(script).expect("text");
            for word in ["status", "neighbors", "socket", "watch"] {
                assert!(script.contains(word), "{shell}: no {word}");
            }
        }
        let all = pages(&cli::command()).expect("they are made in memory");
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["evenkeel", "evenkeel-status", "evenkeel-drops", "evenkeel-realserver-decap"] {
            assert!(names.contains(&name), "{name} is not among {names:?}");
        }
        for (name, page) in &all {
            let page = String::from_utf8(page.clone()).expect("text");
            assert!(page.contains(&format!(".TH {name} 1")) && page.contains(".SH NAME"), "{name}: {page}");
            assert!(page.contains(".SH SYNOPSIS"), "{name}");
        }
        let (_, drops) = all.iter().find(|(name, _)| name == "evenkeel-drops").unwrap();
        let drops = String::from_utf8_lossy(drops);
        assert!(drops.contains("\\fBevenkeel drops\\fR") && drops.contains("evenkeel drops \\-\\-watch 1"), "{drops}");
    }

    #[test]
    fn pages_are_written_and_a_place_that_cannot_be_is_said() {
        let place = std::env::temp_dir().join(format!("evenkeel-man-{}", std::process::id()));
        write_pages(&place).unwrap();
        let page = fs::read_to_string(place.join("evenkeel-top.1")).unwrap();
        assert!(page.contains("evenkeel\\-top") || page.contains("evenkeel-top"), "{page}");
        let in_the_way = place.join("evenkeel.1");
        assert!(write_pages(&in_the_way).is_err());
        fs::remove_dir_all(&place).unwrap();
    }
}
