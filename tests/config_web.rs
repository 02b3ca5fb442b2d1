//! `[web]` in the configuration file: every mistake is reported with its place, secrets are never shown, and what is sound comes back
//! whole.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use evenkeel::control::check;
use evenkeel::control::config::{Outcome, Severity, check_file, parse_with, render};
use evenkeel::control::plan;
use evenkeel::model::{Role, Web};

const BASE: &str = "[[interface]]\nname = \"eth0\"\n[[service]]\nname = \"a\"\naddress = \"192.0.2.10\"\nport = 80\n\
                    server = [{ address = \"10.0.0.11\" }]\n[[service.check]]\ntype = \"tcp\"\n[web]\n";

const ANN: &str = "ann:$2y$05$.....................................................\n";
const BOB: &str = "bob:$2b$10$.....................................................\n";

fn pair() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let chain = rcgen::CertificateParams::new(vec!["lb1".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
    (chain, key.serialize_pem())
}

/// Reads `[web]` with files.
fn read(web: &str, files: &[(&str, &str)]) -> Outcome {
    let files: HashMap<_, _> = files.iter().map(|(name, text)| (Path::new(name), text.as_bytes().to_vec())).collect();
    parse_with(&format!("{BASE}{web}"), 1, &move |path| {
        files.get(path).cloned().ok_or_else(|| "no such file".to_owned())
    })
}

fn sound(web: &str, files: &[(&str, &str)]) -> Arc<Web> {
    let outcome = read(web, files);
    outcome.desired.unwrap_or_else(|| panic!("{:#?}", outcome.problems)).web.expect("a listener")
}

#[test]
fn what_is_written_is_meant() {
    let web = sound("", &[]);
    assert_eq!((web.listen.as_slice(), web.port), (&["127.0.0.1".parse().unwrap()][..], 9112));
    assert!(web.tls.is_none() && web.users.is_none() && web.is_local());
    let (chain, key) = pair();
    let text = "address = [\"10.0.0.1\", \"fd00::1\"]\nport = 443\ncertificate = \"/c\"\nkey = \"/k\"\nusers = \"/u\"\nadmins = [\"ann\"]\n";
    let users = format!("# people\n\n{ANN}{BOB}");
    let files = [("/c", chain.as_str()), ("/k", &key), ("/u", &users)];
    let outcome = read(text, &files);
    assert!(outcome.problems.is_empty(), "{:#?}", outcome.problems);
    let desired = outcome.desired.unwrap();
    let web = desired.web.as_ref().unwrap();
    let roles: Vec<_> = web.users.as_ref().unwrap().list.iter().map(|user| (user.name.as_str(), user.role)).collect();
    assert_eq!(roles, [("ann", Role::Admin), ("bob", Role::Reader)]);

    // With every default written out it is the same one, and no secret is in it or in any other form.
    let effective = render::render(&desired);
    assert!(effective.contains("[web]") && effective.contains("users = \"/u\""), "{effective}");
    let map: HashMap<_, _> = files.iter().map(|(name, text)| (Path::new(*name), text.as_bytes().to_vec())).collect();
    let again = parse_with(&effective, 1, &move |path| map.get(path).cloned().ok_or_else(|| "none".to_owned()));
    assert_eq!(again.desired.as_ref(), Some(&desired), "{:#?}", again.problems);
    for shown in [effective, format!("{desired:?}")] {
        assert!(!shown.contains("$2") && !shown.contains("PRIVATE"), "{shown}");
    }
}

#[test]
fn mistakes_are_named_with_their_place() {
    let ((chain, key), (_, other)) = (pair(), pair());
    let tls = "certificate = \"/c\"\nkey = \"/k\"\n";
    let dear = ANN.replace("$05$", "$17$");
    let many = "x\n".repeat(100);
    for (web, files, line, name, part) in [
        ("address = []\n", vec![], 11, "web.address", "the list is empty"),
        ("address = [\"10.0.0.1\", \"10.0.0.1\"]\n", vec![], 11, "web.address", "10.0.0.1"),
        ("address = [\"10.0.0.1\", \"0.0.0.0\"]\n", vec![], 11, "web.address", "the same port twice"),
        ("port = 0\n", vec![], 11, "web.port", "0"),
        ("certificate = \"/c\"\n", vec![("/c", chain.as_str())], 11, "web.certificate", "and no key"),
        ("key = \"/k\"\n", vec![("/k", key.as_str())], 11, "web.key", "and no certificate"),
        (tls, vec![("/k", &key)], 11, "web.certificate", "cannot read"),
        (tls, vec![("/c", "x"), ("/k", &key)], 11, "web.certificate", "there is no certificate in it"),
        (tls, vec![("/c", &chain), ("/k", "x")], 12, "web.key", "there is no private key"),
        (tls, vec![("/c", &chain), ("/k", &other)], 12, "web.key", "not that of the certificate"),
        ("users = \"/u\"\n", vec![], 11, "web.users", "cannot read"),
        ("users = \"/u\"\n", vec![("/u", "ann\n")], 11, "web.users", "line 1 of"),
        ("users = \"/u\"\n", vec![("/u", "ann:$apr1$x$y\n")], 11, "web.users", "none of bcrypt"),
        ("users = \"/u\"\n", vec![("/u", &ANN[3..])], 11, "web.users", "there is no name"),
        ("users = \"/u\"\n", vec![("/u", &dear)], 11, "web.users", "too dear"),
        ("admins = [\"ann\"]\n", vec![], 11, "web.admins", "no users"),
        ("users = \"/u\"\nadmins = [\"anne\"]\n", vec![("/u", ANN)], 12, "web.admins", "none of `users`"),
        ("user = \"/u\"\n", vec![], 11, "web.user", "unknown key"),
    ] {
        let outcome = read(web, &files);
        assert!(outcome.desired.is_none(), "{web}");
        let found: Vec<_> =
            outcome.errors().map(|error| (error.line, error.key.as_str(), error.message.as_str())).collect();
        let fits =
            |(at, key, message): &(usize, &str, &str)| *at == line && key.starts_with(name) && message.contains(part);
        assert!(found.iter().any(fits), "{web}: {found:#?}");
        assert!(outcome.problems.iter().all(|problem| !format!("{problem:?}").contains("$2y")), "{web}");
    }
    let twice = format!("{ANN}{BOB}{ANN}");
    let outcome = read("users = \"/u\"\n", &[("/u", &twice)]);
    assert!(outcome.errors().next().unwrap().message.contains("line 3"));
    assert!(read("users = \"/u\"\n", &[("/u", &many)]).problems.len() <= 20);
}

#[test]
fn what_is_doubtful_is_said() {
    let users = [("/u", ANN)];
    let open = read("address = \"10.0.0.1\"\nusers = \"/u\"\n", &users);
    let said: Vec<_> = open.warnings().map(|warning| (warning.line, warning.message.as_str())).collect();
    assert_eq!(said, [(11, "passwords go over the network as they are: there is no TLS")]);
    assert!(read("users = \"/u\"\n", &users).problems.is_empty());
    let note = |web: &str| check::notes(&read(web, &users).desired.unwrap());
    assert!(note("address = \"10.0.0.1\"\n")[0].contains("whoever reaches 10.0.0.1 port 9112 sees everything"));
    assert!(note("").is_empty() && note("address = \"10.0.0.1\"\nusers = \"/u\"\n").is_empty());

    // What the machine says of the files.
    use std::os::unix::fs::PermissionsExt;
    let dir = std::env::temp_dir().join(format!("ek-cfg-web-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["lb1".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    params.not_before = rcgen::date_time_ymd(2019, 1, 1);
    let write = |name: &str, text: &str, mode| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let chain = write("c.pem", &params.self_signed(&key).unwrap().pem(), 0o644);
    let check = |mode| {
        let (key, users) = (write("k.pem", &key.serialize_pem(), mode), write("u", ANN, mode));
        let text = format!("{BASE}certificate = \"{chain}\"\nkey = \"{key}\"\nusers = \"{users}\"\n");
        let outcome = check_file(Path::new(&write("lb.toml", &text, 0o600)));
        assert!(outcome.desired.is_some(), "{:#?}", outcome.problems);
        assert!(outcome.problems.iter().all(|problem| problem.severity == Severity::Warning));
        outcome.problems.into_iter().map(|problem| (problem.key, problem.message)).collect::<Vec<_>>()
    };
    let strict = check(0o600);
    assert!(strict.len() == 1 && strict[0].0 == "web.certificate" && strict[0].1.contains("expired"), "{strict:?}");
    let loose = check(0o644);
    let keys: Vec<_> = loose.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["web.certificate", "web.key", "web.users"]);
    assert!(loose[1].1.contains("everybody on this machine may read"), "{loose:?}");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_plan_says_what_changes_and_no_secret() {
    let of = |web: &str, files: &[(&str, &str)]| read(web, files).desired.expect("is sound");
    let none = {
        let text = BASE.replace("[web]\n", "");
        parse_with(&text, 1, &|_| Err("none".to_owned())).desired.expect("is sound")
    };
    let (plain, other) = (of("", &[]), of("port = 9113\n", &[]));
    let text = |old, new| plan::render(&plan::plan(old, new, &plan::Loads::default()));
    assert!(plan::plan(&plain, &plain, &plan::Loads::default()).is_empty());
    assert!(text(&none, &plain).starts_with("+ [web]"), "{}", text(&none, &plain));
    assert!(text(&plain, &none).starts_with("- [web]"));
    let changed = text(&plain, &other);
    assert!(changed.starts_with("~ [web]") && changed.contains("9113"), "{changed}");
    assert!(!changed.contains("restart"), "{changed}");
    let (with, more) =
        (of("users = \"/u\"\n", &[("/u", ANN)]), of("users = \"/u\"\n", &[("/u", &format!("{ANN}{BOB}"))]));
    let users = text(&with, &more);
    assert!(users.contains("users.contents") && !users.contains("$2") && !users.contains("bob"), "{users}");
}
