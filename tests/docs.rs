//! The documentation says what the program does: every drop reason, command and limit, every link and example.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use evenkeel::control::nexthop::Reason;
use evenkeel::control::status::parts::Part;
use evenkeel::control::{self, config};
use evenkeel::dataplane::flow::state::{self, STATES, State};
use evenkeel::dataplane::flow::{FlowV4, FlowV6};
use evenkeel::dataplane::stats::MAX_SERVERS;
use evenkeel::dataplane::verdict::DropReason;
use evenkeel::dataplane::xdp::{MAX_ADDRESSES, MAX_PORTS, MAX_RANGES};
use evenkeel::model::{IoMode, Timeouts};
use evenkeel::vrrp::packet::Refusal;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// All documents, below the root.
fn documents() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(PathBuf::from).to_vec();
    let mut folders = vec![PathBuf::from("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("folder").flatten() {
            let path = folder.join(entry.file_name());
            if root().join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                all.push(path);
            }
        }
    }
    assert!(all.len() > 12, "{all:?}");
    all
}

/// Rows of the table whose head begins with `head`, as trimmed cells.
fn table(text: &str, head: &str) -> Vec<Vec<String>> {
    let lines = text.lines().skip_while(|line| !line.starts_with(head)).skip(2);
    let rows: Vec<Vec<String>> = lines
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect())
        .collect();
    assert!(!rows.is_empty(), "no table with the head {head}");
    rows
}

fn unquoted(cell: &str) -> &str {
    cell.trim_matches('`')
}

#[test]
fn operations_explains_every_drop_reason_in_the_programs_own_words() {
    let rows = table(&read("docs/operations.md"), "| reason | means |");
    let found: Vec<(&str, &str)> = rows.iter().map(|row| (unquoted(&row[0]), row[1].as_str())).collect();
    let expected: Vec<(&str, &str)> = DropReason::ALL.iter().map(|reason| (reason.name(), reason.describe())).collect();
    assert_eq!(found, expected, "docs/operations.md, in the order of src/dataplane/verdict.rs");
    for row in &rows {
        assert!(row.len() == 3 && row[2].ends_with('.'), "what to do about {}?", row[0]);
    }
}

#[test]
fn the_packet_path_names_only_reasons_that_there_are_and_all_that_new_flows_meet() {
    let text = read("docs/packet-path.md");
    let names: BTreeSet<&str> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    let quoted: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    for word in
        quoted.iter().filter(|word| word.contains('-') && word.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
    {
        assert!(names.contains(word), "`{word}` is no drop reason");
    }
    for reason in ["loop", "wrong-mac", "martian-source", "own-source", "ttl-expired", "no-server", "flow-table-full"] {
        assert!(quoted.contains(&reason), "{reason}");
    }
}

/// Words of each warning, and the file that says it.
const WARNINGS: [(&str, &str); 27] = [
    ("is down: ", "dataplane/io/facts.rs"),
    ("has no carrier", "dataplane/io/facts.rs"),
    ("(LRO)", "dataplane/io/facts.rs"),
    ("(GRO)", "dataplane/io/facts.rs"),
    ("takes VLAN tags off", "dataplane/io/facts.rs"),
    ("is a veth", "dataplane/io/facts.rs"),
    ("are used; packets for services on the others", "dataplane/io/open.rs"),
    ("busy polling was refused", "dataplane/io/open.rs"),
    ("frames cannot be given back to the kernel", "dataplane/io/open.rs"),
    ("AF_PACKET: the kernel sees every packet too", "dataplane/io/open.rs"),
    ("is UNREACHABLE", "control/run/report.rs"),
    ("the kernel has the address", "control/startup.rs"),
    ("is this machine: its packets are left to the kernel", "control/startup.rs"),
    ("could not be run", "control/collect/health.rs"),
    ("certificate ends", "health/probe/tls.rs"),
    ("full NAT had no local port", "control/alarms.rs"),
    ("could not be handed to the worker", "control/alarms.rs"),
    ("found no room in the directory", "control/alarms.rs"),
    ("a flood: in the last minute", "control/alarms.rs"),
    ("brought back a good SYN cookie were refused", "control/alarms.rs"),
    ("packets with incomplete checksums are dropped", "control/alarms.rs"),
    ("answers ARP for", "control/claims/mod.rs"),
    ("restart the engine to have it so", "control/startup.rs"),
    ("cannot listen on", "control/web/thread.rs"),
    ("the certificate expires in", "control/web/tls.rs"),
    ("the certificate expired", "control/web/tls.rs"),
    ("the certificate is not valid yet", "control/web/tls.rs"),
];

#[test]
fn operations_explains_every_warning() {
    let rows = table(&read("docs/operations.md"), "| words | mean |");
    let explained: Vec<&str> =
        rows.iter().flat_map(|row| row[0].split("`, `")).map(|word| word.trim_matches('`')).collect();
    assert_eq!(explained, WARNINGS.map(|(words, _)| words));
    for (words, file) in WARNINGS {
        let source = read(&format!("src/{file}")).replace("\\\n", "");
        let source: String = source.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(source.contains(words.trim_end()), "{file} does not say `{words}`");
    }
    // A new one needs a row here: this many are made by these files.
    let made = |file: &str, by: &str| read(&format!("src/{file}")).matches(by).count();
    let of = |file: &str| WARNINGS.iter().filter(|(_, said_by)| *said_by == file).count();
    assert_eq!(made("dataplane/io/facts.rs", "warnings.push("), of("dataplane/io/facts.rs"));
    assert_eq!(
        made("control/alarms.rs", "\n        alarm(\n") + made("control/alarms.rs", "all.push(Alarm {\n"),
        of("control/alarms.rs")
    );
}

#[test]
fn operations_explains_every_reason_for_which_a_server_cannot_be_reached() {
    let name = String::new;
    let gateway = std::net::IpAddr::from([0; 4]);
    let expected = [
        Reason::NoRoute,
        Reason::Local,
        Reason::NotOnLink { gateway },
        Reason::WrongInterface { name: name() },
        Reason::LinkDown { name: name() },
        Reason::Unresolved,
        Reason::Failed,
        Reason::NoSource,
    ];
    let rows = table(&read("docs/operations.md"), "| reason | what to do |");
    let found: Vec<&str> = rows.iter().map(|row| unquoted(&row[0])).collect();
    assert_eq!(found, expected.iter().map(Reason::word).collect::<Vec<_>>());
}

#[test]
fn operations_explains_every_reason_for_which_an_advert_is_refused() {
    let rows = table(&read("docs/operations.md"), "| refused as | means |");
    let found: Vec<(&str, &str)> = rows.iter().map(|row| (unquoted(&row[0]), row[1].as_str())).collect();
    let expected: Vec<(&str, &str)> =
        Refusal::ALL.iter().map(|refusal| (refusal.name(), refusal.meaning().trim())).collect();
    assert_eq!(found, expected, "docs/operations.md, in the order of src/vrrp/packet.rs");
}

#[test]
fn operations_names_every_mode() {
    let rows = table(&read("docs/operations.md"), "| mode | is |");
    let found: Vec<&str> = rows.iter().map(|row| unquoted(&row[0])).collect();
    assert_eq!(found, IoMode::ALL.map(IoMode::name));
}

#[test]
fn limits_and_sizes_are_the_programs() {
    let text = read("docs/operations.md");
    let limits: BTreeMap<String, String> =
        table(&text, "| what | most |").into_iter().map(|row| (row[0].clone(), row[1].replace(',', ""))).collect();
    for (what, number) in [
        ("service addresses", MAX_ADDRESSES),
        ("single ports over all services", MAX_PORTS),
        ("port ranges of one address and protocol", MAX_RANGES),
        ("servers over all services", MAX_SERVERS),
        ("local addresses over all services", 1024),
    ] {
        assert!(limits[what].split(' ').next() == Some(&number.to_string()), "{what}: {}, not {number}", limits[what]);
    }
    let bytes = |entry: usize, load: usize| entry * 100 / load;
    use evenkeel::dataplane::flow::Entry;
    let v4 = bytes(size_of::<FlowV4>(), FlowV4::LOAD_PERCENT);
    let v6 = bytes(size_of::<FlowV6>(), FlowV6::LOAD_PERCENT);
    for page in ["docs/operations.md", "docs/architecture.md", "docs/adr/0005-flow-table.md"] {
        let text = read(page);
        assert!(text.contains(&format!("{v4} ")) && text.contains(&format!("{v6} ")), "{page}: {v4} and {v6} bytes");
    }
}

#[test]
fn migration_has_the_default_timeouts() {
    let rows = table(&read("docs/migration.md"), "| state | seconds |");
    let found: BTreeMap<String, u32> =
        rows.iter().map(|row| (row[0].clone(), row[1].parse().expect("number"))).collect();
    let timeouts = state::timeouts_ms(&Timeouts::default());
    let expected: BTreeMap<String, u32> = (1..STATES as u8)
        .map(State)
        .filter(|state| state.name() != "?")
        .map(|state| {
            let protocol = match state.0 {
                0..16 => "TCP ",
                16 => "",
                _ => "SCTP ",
            };
            (format!("{protocol}{}", state.name()), timeouts[usize::from(state.0)] / 1000)
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn the_readme_lists_every_command() {
    let help = Command::new(env!("CARGO_BIN_EXE_evenkeel")).arg("--help").output().expect("runs");
    let help = String::from_utf8(help.stdout).expect("text");
    let commands: BTreeSet<String> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // What is indented further goes on with the line before.
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| *word != "help")
        .map(|word| format!("evenkeel {word}"))
        .collect();
    let rows = table(&read("README.md"), "| command | does |");
    let listed: BTreeSet<String> = rows.iter().map(|row| unquoted(&row[0]).to_owned()).collect();
    assert_eq!(listed, commands);
}

#[test]
fn every_configuration_in_the_documents_is_sound() {
    let mut seen = 0;
    for path in documents() {
        let text = read(&path.display().to_string());
        for block in text.split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap_or_default();
            if !block.contains("[[interface]]") {
                continue;
            }
            seen += 1;
            let outcome = config::parse(block, 0);
            assert!(outcome.problems.is_empty(), "{}:\n{block}\n{:?}", path.display(), outcome.problems);
        }
    }
    assert!(seen >= 2, "{seen}");
    let readme = read("README.md");
    let block = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the README's");
    assert!(block.lines().filter(|line| !line.is_empty()).count() <= 10, "ten lines");
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for path in documents() {
        let text = read(&path.display().to_string());
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split(')').next().unwrap_or_default();
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || target.starts_with("https://") {
                continue;
            }
            if !root().join(&path).parent().expect("folder").join(file).exists() {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
        // Paths in the text, too, where they name what is in the repository.
        for word in text.split('`').skip(1).step_by(2) {
            let places = ["src/", "tests/", "docs/", "configs/", "fuzz/", "bench/"];
            let whole = word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            if whole && places.iter().any(|place| word.starts_with(place)) && !root().join(word).exists() {
                broken.push(format!("{}: `{word}`", path.display()));
            }
        }
    }
    // Made by runs, not kept.
    broken.retain(|entry| !entry.contains("fuzz/artifacts") && !entry.contains("fuzz/kept/TARGET"));
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_changelog_knows_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(read("CHANGELOG.md").contains(&format!("## [{version}]")), "{version}");
}

/// The section of a page below a heading of the second level.
fn section<'t>(text: &'t str, heading: &str) -> &'t str {
    let (_, rest) = text.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
    rest.split("\n## ").next().unwrap_or_default()
}

#[test]
fn the_control_page_has_every_command_option_part_and_code() {
    let text = read("docs/control.md");
    for command in control::socket::Command::ALL {
        let section = section(&text, &format!("`{}`", command.name()));
        if command.options().is_empty() {
            continue;
        }
        let rows = table(section, "| option | is |");
        let documented: BTreeSet<&str> = rows.iter().map(|row| unquoted(&row[0])).collect();
        let expected: BTreeSet<&str> = command.options().iter().copied().collect();
        assert_eq!(documented, expected, "docs/control.md: the options of `{}`", command.name());
    }
    let parts = table(&text, "| part | has |");
    let documented: Vec<&str> = parts.iter().map(|row| unquoted(&row[0])).collect();
    let expected: Vec<&str> = Part::ALL.iter().map(|part| part.name()).collect();
    assert_eq!(documented, expected, "docs/control.md, in the order of src/control/status/parts.rs");
    for row in table(&text, "| code | means |") {
        let code = serde_json::from_value::<control::socket::Code>(unquoted(&row[0]).into());
        assert!(code.is_ok_and(|code| serde_json::json!(code) == unquoted(&row[0])), "{row:?}");
    }
    assert_eq!(table(&text, "| code | means |").len(), 7);
    assert!(text.contains(&format!("`version` is {}.", control::socket::VERSION)));
    for block in text.split("```json\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        let value: serde_json::Value = serde_json::from_str(block).unwrap_or_else(|error| panic!("{error}: {block}"));
        if value.get("command").is_some() {
            let request = control::socket::parse_request(block.trim().as_bytes());
            assert!(request.is_ok(), "{block}: {}", request.unwrap_err());
        } else {
            assert_eq!(value["version"], 1, "an answer of an engine: {block}");
        }
    }
}
