//! Services and servers added, changed and removed on a running engine under traffic, and written to its file with all of its
//! comments; what cannot be is refused and changes nothing.

mod lab_support;

use std::fs;
use std::net::IpAddr;
use std::process::Command;

use evenkeel::lab::site::Family;
use evenkeel::model::Method;
use lab_support::rig::{Rig, WEB, Wish, eventually};
use lab_support::{lab_is_possible, program};
use serde_json::Value as Json;

/// Runs `evenkeel WORDS --socket SOCKET`; what it printed, or what it said was wrong.
fn evenkeel(rig: &Rig, words: &[&str]) -> Result<String, String> {
    let output =
        Command::new(program()).args(words).arg("--socket").arg(rig.engine.socket()).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// The servers of eight connections, each once.
fn serving(rig: &Rig) -> Vec<String> {
    let mut names: Vec<String> = (0..8).map(|_| rig.get().1.server).collect();
    names.sort();
    names.dedup();
    names
}

fn unsaved(rig: &Rig) -> u64 {
    rig.engine.status().unwrap()["config"]["unsaved"].as_u64().expect("a number")
}

#[test]
fn a_running_engine_is_changed_and_its_file_follows() {
    if !lab_is_possible() {
        return;
    }
    let stand = Wish::new(Method::Dr, Family::V4).build();
    let rig = stand.start();
    let servers: Vec<IpAddr> = rig.site.servers.iter().map(|server| server.address(Family::V4)).collect();
    let (first, second) = (servers[0].to_string(), servers[1].to_string());
    assert_eq!(serving(&rig), ["server1", "server2"], "{}", rig.story());

    // A file as people write it.
    let file = rig.engine.file().to_owned();
    let written = fs::read_to_string(&file).unwrap();
    let commented = format!("# The pair in rack 4; ask Ann.\n{written}\n# The end.\n");
    fs::write(&file, &commented).unwrap();
    evenkeel(&rig, &["reload"]).unwrap();

    // In force when the command returns, and not in the file.
    evenkeel(&rig, &["server", "remove", &second, "--service", "web"]).unwrap();
    assert_eq!(serving(&rig), ["server1"], "{}", rig.story());
    evenkeel(&rig, &["server", "add", &second, "weight=1", "--service", "web"]).unwrap();
    evenkeel(&rig, &["server", "weight", &first, "0", "--service", "web"]).unwrap();
    assert_eq!(serving(&rig), ["server2"], "{}", rig.story());
    assert_eq!(unsaved(&rig), 3);
    assert_eq!(fs::read_to_string(&file).unwrap(), commented);
    assert!(rig.engine.status_for_people().unwrap().contains("does not have: 3"), "{}", rig.story());

    // What cannot be changes nothing, and says what it is.
    for (words, part) in [
        (&["server", "weight", "10.255.255.1", "1"][..], "there is no server 10.255.255.1 in any service"),
        (&["server", "weight", &first, "70000", "--service", "web"], "weight"),
        (&["server", "add", &first, "--service", "web"], "has the server"),
        (&["service", "edit", "wbe", "scheduler=rr"], "did you mean `web`?"),
        (&["service", "edit", "web", "scheduler=wlcc"], "did you mean `wlc`?"),
        (&["service", "edit", "web", "schedular=wlc"], "did you mean `scheduler`?"),
        (&["service", "add", "224.0.0.1:80"], "a multicast address"),
    ] {
        let error = evenkeel(&rig, words).expect_err("is refused");
        assert!(error.contains(part), "{words:?}: {error}");
    }
    assert_eq!((unsaved(&rig), serving(&rig)), (3, vec!["server2".to_owned()]));

    // Another service, with the same servers.
    let vip = rig.site.vip_port(Family::V4, WEB).ip();
    let other = format!("{vip}:8088");
    let dry = evenkeel(&rig, &["service", "add", &other, "name=other", "check=none", "--dry-run"]).unwrap();
    assert_eq!(dry, "would be changed\n");
    evenkeel(&rig, &["service", "add", &other, "name=other", "check=none", "method=dr"]).unwrap();
    evenkeel(&rig, &["server", "add", &first, "--service", "other"]).unwrap();
    let status = rig.engine.status().unwrap();
    let named = |status: &Json, name: &str| {
        status["services"].as_array().expect("services").iter().any(|service| service["name"] == name)
    };
    assert!(named(&status, "other"), "{status}");

    // To the file: all comments stay, and a restart has what was there.
    let said = evenkeel(&rig, &["save"]).unwrap();
    assert!(said.ends_with("saved\n"), "{said}");
    let saved = fs::read_to_string(&file).unwrap();
    assert!(saved.starts_with("# The pair in rack 4; ask Ann.\n") && saved.ends_with("# The end.\n"), "{saved}");
    assert!(saved.contains("name = \"other\""), "{saved}");
    assert_eq!(unsaved(&rig), 0);
    evenkeel(&rig, &["reload"]).unwrap();
    assert!(named(&rig.engine.status().unwrap(), "other"));
    assert_eq!(serving(&rig), ["server2"], "{}", rig.story());

    // A file that somebody else changed is not written over; one that cannot be written stays.
    evenkeel(&rig, &["service", "remove", "other"]).unwrap();
    fs::write(&file, format!("{saved}# Bob was here.\n")).unwrap();
    let error = evenkeel(&rig, &["save"]).expect_err("is refused");
    assert!(error.contains("was changed since it was read"), "{error}");
    assert!(fs::read_to_string(&file).unwrap().ends_with("# Bob was here.\n"));
    let printed = evenkeel(&rig, &["save", "--print"]).unwrap();
    assert!(!printed.contains("name = \"other\"") && printed.contains("# The end."), "{printed}");
    let said = evenkeel(&rig, &["reload"]).unwrap();
    assert!(said.contains("had not been saved"), "{said}");
    assert!(named(&rig.engine.status().unwrap(), "other"), "the file is in force again");

    // By its address and port, while clients are served.
    evenkeel(&rig, &["service", "remove", &format!("tcp {other}")]).unwrap();
    eventually("it is gone", || !named(&rig.engine.status().unwrap(), "other"));
    assert_eq!(serving(&rig), ["server2"], "{}", rig.story());
}

#[test]
fn a_full_disk_loses_nothing() {
    if !lab_is_possible() {
        return;
    }
    // A file system of its own, small; the engine's node has the mounts of the moment when it is made.
    let folder = std::env::temp_dir().join(format!("evenkeel-full-disk-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let mounted = nix::mount::mount(
        Some("none"),
        &folder,
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        Some("size=64k,mode=755"),
    );
    assert_eq!(mounted, Ok(()));
    struct Unmount(std::path::PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
            let _ = fs::remove_dir(&self.0);
        }
    }
    let _unmount = Unmount(folder.clone());
    let rig = Wish::new(Method::Dr, Family::V4).build().start();
    let file = rig.engine.file().to_owned();
    let moved = folder.join("lb.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&moved, &text).unwrap();
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(&moved, &file).unwrap();
    evenkeel(&rig, &["reload"]).unwrap();
    let server = rig.site.servers[0].address(Family::V4).to_string();
    evenkeel(&rig, &["server", "weight", &server, "0", "--service", "web"]).unwrap();
    let mut filler = vec![0_u8; 4096];
    filler.fill(b'x');
    for number in 0.. {
        if fs::write(folder.join(format!("filler{number}")), &filler).is_err() {
            break;
        }
    }
    let error = evenkeel(&rig, &["save"]).expect_err("there is no room");
    assert!(error.contains("it is as it was"), "{error}");
    assert_eq!(fs::read_to_string(&moved).unwrap(), text);
    assert_eq!((unsaved(&rig), serving(&rig)), (1, vec!["server2".to_owned()]), "{}", rig.story());
    // With room again, it goes to where the link leads.
    fs::remove_file(folder.join("filler0")).unwrap();
    fs::remove_file(folder.join("filler1")).unwrap();
    evenkeel(&rig, &["save"]).unwrap();
    assert!(fs::read_to_string(&moved).unwrap().contains("weight = 0"));
    assert!(fs::symlink_metadata(&file).unwrap().file_type().is_symlink());
}
