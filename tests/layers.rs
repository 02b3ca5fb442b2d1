//! The rules of `docs/architecture.md` that a compiler does not check: who may import whom, where unsafe code may be,
//! what pure files may not do, and how long a file may be. Reads `src/`; builds nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Files that may hold unsafe code (`docs/adr/0004-unsafe-code.md`).
const UNSAFE: [&str; 5] = ["dataplane/io/xsk/", "dataplane/xdp/", "dataplane/sys.rs", "tun.rs", "priority.rs"];

/// Files without a clock, socket, file, thread or lock. Any file whose `//!` has the word "Pure" is held to it too.
const PURE: [&str; 11] = [
    "dataplane/pipeline",
    "dataplane/parse",
    "dataplane/flow/",
    "dataplane/schedule/",
    "dataplane/rewrite.rs",
    "dataplane/answer.rs",
    "dataplane/snapshot.rs",
    "vrrp/packet.rs",
    "vrrp/machine",
    "control/compile.rs",
    "control/resolve.rs",
];

/// What no pure file names.
const IMPURE: [&str; 16] = [
    "Instant::now",
    "SystemTime",
    "clock_gettime",
    ".elapsed(",
    "std::fs",
    "File::",
    "UdpSocket",
    "TcpStream",
    "UnixStream",
    "thread::",
    "Mutex",
    "RwLock",
    "println!",
    "tracing",
    "std::process",
    "std::env",
];

/// Most lines of a source file that is no test.
const MOST_LINES: usize = 600;

/// What each layer may name by `crate::`.
fn may_import(file: &str, layer: &str) -> &'static [&'static str] {
    match (file, layer) {
        // The command line is where `main` begins: it names every command.
        ("control/cli.rs", _) => &["model", "dataplane", "control", "lab", "pktgen", "realserver"],
        (_, "model" | "priority" | "tun") => &["model"],
        (_, "programs") => &["programs"],
        (_, "dataplane") => &["model", "dataplane"],
        (_, "vrrp") => &["model", "programs", "priority", "vrrp"],
        (_, "health") => &["model", "programs", "priority", "health"],
        (_, "control") => &["model", "programs", "priority", "tun", "dataplane", "vrrp", "health", "control"],
        // The lab uses the program from outside, as its users do.
        (_, "lab") => &["model", "lab"],
        // For machines that run no engine.
        (_, "realserver") => &["model", "tun", "realserver"],
        (_, "pktgen") => &["model", "dataplane", "pktgen"],
        _ => &[],
    }
}

struct Source {
    /// Below `src/`.
    name: String,
    text: String,
    /// Without comments, literals and code that only tests have; lines are where they were.
    code: String,
}

impl Source {
    fn layer(&self) -> &str {
        let first = self.name.split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs")
    }

    /// How far below the crate's root its module is: 1 for `model.rs` and `lab/mod.rs`.
    fn depth(&self) -> usize {
        let path = self.name.trim_end_matches("/mod.rs").trim_end_matches(".rs");
        if path == "lib" || path == "main" { 0 } else { path.split('/').count() }
    }

    fn is_test(&self) -> bool {
        self.name.ends_with("/tests.rs") || self.name.contains("/tests/")
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    let all: Vec<Source> = paths
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).expect("source");
            let name = path.strip_prefix(&root).expect("below src").display().to_string();
            let code = without_tests(&without_comments_and_literals(&text));
            Source { name, text, code }
        })
        .collect();
    assert!(all.len() > 40, "only {} files: is this the right folder?", all.len());
    all
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// Blanks comments, strings and characters; every newline stays.
fn without_comments_and_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut blank = |from: usize, to: usize| {
        for byte in &mut out[from..to] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    };
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let end = if rest.starts_with(b"//") {
            rest.iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| at + n)
        } else if rest.starts_with(b"/*") {
            find(bytes, b"*/", at + 2).map_or(bytes.len(), |n| n + 2)
        } else if let Some(hashes) = raw_string(rest) {
            let mut close = vec![b'"'];
            close.extend(std::iter::repeat_n(b'#', hashes));
            find(bytes, &close, at + hashes + 2).map_or(bytes.len(), |n| n + close.len())
        } else if rest[0] == b'"' {
            let mut end = at + 1;
            while end < bytes.len() && bytes[end] != b'"' {
                end += if bytes[end] == b'\\' { 2 } else { 1 };
            }
            end + 1
        } else if rest[0] == b'\'' && rest.get(1) == Some(&b'\\') {
            find(bytes, b"'", at + 3).map_or(bytes.len(), |n| n + 1)
        } else if rest[0] == b'\'' && rest.get(2) == Some(&b'\'') {
            at + 3
        } else {
            at += 1;
            continue;
        };
        let end = end.min(bytes.len());
        blank(at, end);
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The number of `#` where a raw string begins.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let rest = rest.strip_prefix(b"r")?;
    let hashes = rest.iter().take_while(|b| **b == b'#').count();
    (rest.get(hashes) == Some(&b'"')).then_some(hashes)
}

fn find(bytes: &[u8], what: &[u8], from: usize) -> Option<usize> {
    bytes.get(from..)?.windows(what.len()).position(|window| window == what).map(|at| at + from)
}

/// Blanks each item under `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut out = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(start) = find(&out, b"#[cfg(test)]", from) {
        let mut depth = 0usize;
        let mut end = start + 12;
        while end < out.len() {
            match out[end] {
                b'{' => depth += 1,
                b'}' if depth <= 1 => break,
                b'}' => depth -= 1,
                b';' if depth == 0 => break,
                _ => {}
            }
            end += 1;
        }
        let end = (end + 1).min(out.len());
        out[start..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        from = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Where `word` stands alone, as offsets.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at.checked_sub(1).is_none_or(|at| !is_word(bytes[at]));
        let after = bytes.get(at + word.len()).is_none_or(|byte| !is_word(*byte));
        before && after
    })
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// The first names behind each `crate::`, those in braces too.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in words(code, "crate") {
        let Some(rest) = code[at + 5..].strip_prefix("::") else { continue };
        let name =
            |text: &str| text.trim_start().bytes().take_while(|b| is_word(*b)).map(char::from).collect::<String>();
        let Some(group) = rest.strip_prefix('{') else {
            found.push((line_of(code, at), name(rest)));
            continue;
        };
        let mut depth = 0;
        let mut part = 0;
        for (index, byte) in group.bytes().enumerate() {
            match byte {
                b'{' => depth += 1,
                b'}' if depth == 0 => {
                    found.push((line_of(code, at), name(&group[part..index])));
                    break;
                }
                b'}' => depth -= 1,
                b',' if depth == 0 => {
                    found.push((line_of(code, at), name(&group[part..index])));
                    part = index + 1;
                }
                _ => {}
            }
        }
    }
    found.retain(|(_, name)| !name.is_empty());
    found
}

fn report(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}\n  {}", broken.join("\n  "));
}

#[test]
fn layers_import_only_what_lies_below_them() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|s| !s.is_test()) {
        let layer = source.layer();
        if layer == "lib" || layer == "main" {
            continue;
        }
        let allowed = may_import(&source.name, layer);
        assert!(!allowed.is_empty(), "src/{} is in no layer: say in this test and in lib.rs which it is", source.name);
        for (line, name) in imports(&source.code) {
            if !allowed.contains(&name.as_str()) {
                broken.push(format!("src/{}:{line} names crate::{name}", source.name));
            }
        }
        for (at, _) in source.code.match_indices("super::super::") {
            let chain = source.code[at..].split("super::").take_while(|part| part.is_empty()).count();
            if chain >= source.depth() {
                broken.push(format!("src/{}:{} climbs to the crate's root", source.name, line_of(&source.code, at)));
            }
        }
    }
    report("model <- dataplane <- control <- main; lab and pktgen beside main", &broken);
}

#[test]
fn the_command_enters_by_the_control_layer_only() {
    let main = sources().into_iter().find(|s| s.name == "main.rs").expect("main.rs");
    let named: BTreeSet<&str> = main
        .code
        .match_indices("evenkeel::")
        .map(|(at, _)| main.code[at + 10..].split("::").next().unwrap_or_default())
        .collect();
    assert_eq!(named, BTreeSet::from(["control"]));
}

#[test]
fn unsafe_code_is_where_it_may_be_and_says_why_it_is_sound() {
    let mut broken = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for at in words(&source.code, "unsafe") {
            let line = line_of(&source.code, at);
            if !UNSAFE.iter().any(|place| source.name.starts_with(place)) {
                broken.push(format!("src/{}:{line} has unsafe code", source.name));
            }
            let what = source.code[at + 6..].trim_start();
            let reason = if what.starts_with("fn") || what.starts_with("trait") { "# Safety" } else { "SAFETY:" };
            // The reason is in the line, or above it within the same block.
            let above = lines[..line - 1].iter().rev().map(|text| text.trim());
            let mut above =
                above.take(12).take_while(|text| !text.is_empty() && *text != "}" && !text.ends_with(") {"));
            if !lines[line - 1].contains(reason) && !above.any(|text| text.contains(reason)) {
                broken.push(format!("src/{}:{line} lacks `{reason}`", source.name));
            }
        }
    }
    report("unsafe code lives in a few files, each block with its reason (docs/adr/0004-unsafe-code.md)", &broken);
}

#[test]
fn every_file_says_what_it_owns() {
    let all = sources();
    let broken: Vec<String> =
        all.iter().filter(|s| !s.text.starts_with("//! ")).map(|s| format!("src/{}", s.name)).collect();
    report("each file opens with `//!`: what it owns, and what it never does", &broken);
}

#[test]
fn pure_files_have_no_clock_and_no_side_effects() {
    let mut broken = Vec::new();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for source in sources().iter().filter(|s| !s.is_test()) {
        let listed = PURE.iter().find(|place| source.name.starts_with(*place));
        let head: String = source.text.lines().take_while(|line| line.starts_with("//!")).collect();
        let says_so = source.name != "lib.rs" && words(&head, "Pure").next().is_some();
        if listed.is_none() && !says_so {
            continue;
        }
        seen.extend(listed.copied());
        for word in IMPURE {
            for (at, _) in source.code.match_indices(word) {
                // `std::thread` and such are told from names that only end so.
                let joined = at > 0 && is_word(source.code.as_bytes()[at - 1]) && word.starts_with(char::is_alphabetic);
                if !joined {
                    broken.push(format!("src/{}:{} has `{word}`", source.name, line_of(&source.code, at)));
                }
            }
        }
    }
    assert_eq!(seen.len(), PURE.len(), "a pure file was renamed: {seen:?}");
    report("pure files take time as a parameter and touch nothing", &broken);
}

#[test]
fn files_are_short() {
    let all = sources();
    let broken: Vec<String> = all
        .iter()
        .filter(|s| !s.is_test() && s.text.lines().count() > MOST_LINES)
        .map(|s| format!("src/{}: {} lines", s.name, s.text.lines().count()))
        .collect();
    report("a file has at most 600 lines; long tests move to x/tests.rs", &broken);
}

#[test]
fn the_scanner_sees_what_it_should() {
    let text = "use crate::{model::X, control};\n// crate::lab\nlet s = \"crate::lab\"; let c = '\"';\n\
                #[cfg(test)]\nmod tests { use crate::lab; fn f() { } }\nlet r = r#\"unsafe \" {\"#; crate::pktgen::x();\n\
                #[cfg(test)]\nmod more;\nlet t: &'static str = \"\\\"unsafe\"; unsafe { }";
    let code = without_tests(&without_comments_and_literals(text));
    let names: Vec<(usize, String)> = imports(&code);
    let expected = [(1, "model"), (1, "control"), (6, "pktgen")].map(|(line, name)| (line, name.to_owned()));
    assert_eq!(names, expected);
    assert_eq!(words(&code, "unsafe").map(|at| line_of(&code, at)).collect::<Vec<_>>(), [9]);
    assert_eq!(code.matches('\n').count(), text.matches('\n').count());
}
