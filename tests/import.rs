//! `evenkeel import` from outside: the deployments in `tests/golden/import`, its exit codes, and files that are hostile.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use evenkeel::control::config;
use evenkeel::control::import::keepalived::keywords::CONTEXTS;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/import")
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    command.arg("import").args(arguments).current_dir(folder).stdin(Stdio::null()).output().expect("evenkeel")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder of its own, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("ek-import-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("folder");
        Folder(path)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.0.join(name), bytes).expect("file");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Each deployment, how it is imported, and what is left out of it.
const DEPLOYMENTS: [(&str, &[&str], &[&str]); 6] = [
    ("dns-dsr", &["keepalived", "dns-dsr.keepalived.conf"], &["router_id LVS_DNS"]),
    ("haproxy-pair", &["keepalived", "haproxy-pair.keepalived.conf"], &[]),
    ("proxy-pair", &["keepalived", "proxy-pair.keepalived.conf"], &[]),
    ("web-nat", &["keepalived", "web-nat.keepalived.conf"], &["router_id LVS_WEB_1"]),
    ("web-dr", &["ipvsadm", "web-dr.ipvsadm.rules", "--interface", "eth0"], &[]),
    ("much", &["keepalived", "much.keepalived.conf", "--config-id", "lb1"], MUCH),
];

/// What `much.keepalived.conf` has that has no counterpart.
const MUCH: &[&str] = &[
    "notification_email",
    "smtp_server 192.0.2.25",
    "router_id lb1",
    "enable_script_security",
    "brd +",
    "scope global",
    "smtp_alert",
    "virtual_routes",
    "nogroup",
    "BFD_CHECK",
    "require_reply 5349 50xx",
    "virtual_server fwmark 3",
];

/// What is printed for a deployment is `NAME.toml`, word for word; `EVENKEEL_BLESS=1` writes these files anew.
#[test]
fn the_deployments_become_what_is_written_beside_them() {
    for (name, arguments, left_out) in DEPLOYMENTS {
        let out = run(&golden(), arguments);
        assert!(out.status.success(), "{name}: {}", text(&out.stderr));
        let path = golden().join(format!("{name}.toml"));
        if std::env::var_os("EVENKEEL_BLESS").is_some() {
            fs::write(&path, &out.stdout).expect("golden file");
        }
        let wanted = fs::read_to_string(&path).expect("golden file");
        assert_eq!(text(&out.stdout), wanted, "{name}");
        let outcome = config::check_file(&path);
        assert!(outcome.desired.is_some(), "{name}: {}", config::render_all(name, &outcome.problems));
        let said = text(&out.stderr);
        for what in left_out {
            assert!(said.contains(&format!("`{what}` is left out")), "{name}: {said}");
        }
        assert_eq!(said.matches(" is left out: ").count(), left_out.len(), "{name}: {said}");
        // And each of them is a comment of the file, too.
        for line in said.lines().filter(|line| line.contains(" is left out: ")) {
            let words = |text: &str| text.split_whitespace().filter(|word| *word != "#").collect::<Vec<_>>().join(" ");
            assert!(words(&wanted).contains(&words(line)), "{name}: {line}");
        }
    }
}

#[test]
fn strict_refuses_what_has_no_counterpart() {
    let out = run(&golden(), &["keepalived", "web-nat.keepalived.conf", "--strict"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(out.stdout.is_empty(), "{}", text(&out.stdout));
    assert!(text(&out.stderr).contains("refused: 1 part has no counterpart"), "{}", text(&out.stderr));
    let out = run(&golden(), &["keepalived", "proxy-pair.keepalived.conf", "--strict"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
}

#[test]
fn a_file_that_is_there_is_not_overwritten() {
    let folder = Folder::new("output");
    let source = golden().join("web-dr.ipvsadm.rules");
    let arguments = ["ipvsadm", source.to_str().expect("path"), "-o", "new.toml"];
    assert!(run(&folder.0, &arguments).status.success());
    let first = fs::read_to_string(folder.0.join("new.toml")).expect("written");
    assert!(config::parse(&first, 0).desired.is_some());
    let out = run(&folder.0, &arguments);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).starts_with("new.toml: cannot be written: "), "{}", text(&out.stderr));
}

#[test]
fn broken_and_hostile_files_are_refused_at_their_place() {
    let folder = Folder::new("hostile");
    folder.write("open.conf", "vrrp_instance A {\n virtual_ipaddress {\n 192.0.2.1\n }\n");
    folder.write("closed.conf", "global_defs {\n}\n}\n");
    folder.write("binary.conf", [b"global_defs {\n".as_slice(), &[0, 1, 2, 255]].concat());
    folder.write("long.conf", [b"x ".as_slice(), &vec![b'y'; 20 << 20]].concat());
    folder.write("loop.conf", "include b.conf\n");
    folder.write("b.conf", "\ninclude loop.conf\n");
    folder.write("missing.conf", "\n\ninclude none.conf\n");
    folder.write("deep.conf", "a {\n".repeat(1_000_000));
    folder.write("self.conf", "$A=$A $A\n$A\n");
    folder.write("quote.conf", "global_defs {\n router_id \"x\n}\n");
    let expected = [
        ("open.conf", "open.conf:1: the block of `vrrp_instance A` has no `}`"),
        ("closed.conf", "closed.conf:3: there is a `}` without a `{`"),
        ("binary.conf", "binary.conf:2: this is no text"),
        ("long.conf", "long.conf: the files have more than 16 MiB"),
        ("loop.conf", "b.conf:2: `loop.conf` includes itself"),
        ("missing.conf", "missing.conf:3: `none.conf` cannot be read"),
        ("deep.conf", "deep.conf:"),
        ("self.conf", "self.conf:2: definitions"),
        ("quote.conf", "quote.conf:2: a `\"` has no second one"),
        ("nowhere.conf", "nowhere.conf: `nowhere.conf` cannot be read"),
        (".", ".: `` cannot be read: it is a folder"),
    ];
    for (file, start) in expected {
        let out = run(&folder.0, &["keepalived", file]);
        assert_eq!(out.status.code(), Some(1), "{file}: {}", text(&out.stderr));
        assert!(out.stdout.is_empty(), "{file}");
        let said = text(&out.stderr);
        assert!(said.contains("\n  help: "), "{file}: {said}");
        if file != "." {
            assert!(said.starts_with(start), "{file}: {said}");
        }
    }
}

/// The files of this test are what the real keepalived takes, where it is installed.
#[test]
fn keepalived_itself_takes_the_deployments() {
    for (name, arguments, _) in DEPLOYMENTS.iter().filter(|(_, arguments, _)| arguments[0] == "keepalived") {
        let file = arguments[1];
        let command = Command::new("keepalived").args(["-t", "-i", "lb1", "-f", file]).current_dir(golden()).output();
        let Ok(out) = command else {
            eprintln!("skipped: keepalived is not installed");
            return;
        };
        let said = [text(&out.stdout), text(&out.stderr)].concat();
        for complaint in ["Unknown keyword", "Extra '}'", "missing '}'", "Unexpected"] {
            assert!(!said.contains(complaint), "{name}: {said}");
        }
    }
}

#[test]
fn migration_names_every_keyword_that_is_translated() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/migration.md")).expect("page");
    for context in CONTEXTS {
        let head = format!("| {} | ", context.name());
        let row = page.lines().find(|line| line.starts_with(&head)).unwrap_or_else(|| panic!("no row `{head}`"));
        for keyword in context.translated() {
            assert!(row.contains(&format!("`{keyword}`")), "{}: `{keyword}` is not in the row", context.name());
        }
        for other in context.all().filter(|word| !context.translated().contains(word)) {
            assert!(!row.contains(&format!("`{other}`")), "{}: `{other}` is not translated", context.name());
        }
    }
}
