//! Queues of programs: order, patience, what is left out.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::*;

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("evenkeel-queue-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        Place(path)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn shell(of: &str, script: &str) -> Task {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    Task { of: of.to_owned(), command, ..Task::default() }
}

const USUAL: Bounds = Bounds { waiting: 32, together: 8, time: None };

/// Turns until something holds; time goes `speed` times as fast as it does.
fn turn_until(queues: &mut Queues<u8>, speed: u32, said: &mut Vec<Said>, mut holds: impl FnMut(&Queues<u8>) -> bool) {
    let start = Instant::now();
    loop {
        queues.turn(start.elapsed() * speed, said);
        if holds(queues) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "it never came about; said: {said:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_idle(queues: &Queues<u8>) -> bool {
    queues.deadline(Duration::ZERO).is_none()
}

fn append(place: &Path, word: &str) -> String {
    format!("echo {word} >> {}/out", place.display())
}

#[test]
fn one_after_the_other_and_each_is_told_what_happened() {
    let place = Place::new("order");
    let (mut queues, mut said) = (Queues::new(USUAL), Vec::new());
    for n in 0..10 {
        let mut task = shell("web", &append(&place.0, "$WHAT"));
        task.environment = vec![("WHAT".to_owned(), n.to_string())];
        queues.add(1, task, &mut said);
    }
    turn_until(&mut queues, 1, &mut said, is_idle);
    assert_eq!(place.text("out").split_whitespace().collect::<String>(), "0123456789");
    assert_eq!(said, []);
}

#[test]
fn what_goes_wrong_is_said_and_stops_nothing() {
    let place = Place::new("wrong");
    let (mut queues, mut said) = (Queues::new(USUAL), Vec::new());
    let missing = Task { of: "web".to_owned(), command: vec!["/nonexistent/script".to_owned()], ..Task::default() };
    queues.add(1, missing, &mut said);
    queues.add(1, Task::default(), &mut said);
    queues.add(1, shell("web", "exit 3"), &mut said);
    queues.add(1, shell("web", "kill -9 $$"), &mut said);
    queues.add(1, shell("web", &append(&place.0, "done")), &mut said);
    turn_until(&mut queues, 1, &mut said, is_idle);
    assert_eq!(place.text("out"), "done\n");
    let missing = "(web) notify script /nonexistent/script was not run: /nonexistent/script does not exist";
    assert!(said.contains(&Said::Error(missing.to_owned())), "{said:?}");
    let warned = |part: &str| said.iter().any(|line| matches!(line, Said::Warning(text) if text.contains(part)));
    assert!(warned("exited with status 3") && warned("ended by signal 9"), "{said:?}");
}

#[test]
fn a_hanging_one_keeps_neither_its_own_nor_others_waiting() {
    let place = Place::new("hang");
    let (mut queues, mut said) = (Queues::new(USUAL), Vec::new());
    queues.add(1, shell("web", "sleep 1000"), &mut said);
    queues.add(1, shell("web", &append(&place.0, "own")), &mut said);
    queues.add(2, shell("dns", &append(&place.0, "other")), &mut said);
    turn_until(&mut queues, 1, &mut said, |_| place.text("out") == "other\n");
    turn_until(&mut queues, 1000, &mut said, |_| place.text("out") == "other\nown\n");
    assert!(!is_idle(&queues), "it still runs beside");
    assert!(matches!(&said[..], [Said::Warning(text)] if text.contains("still runs")), "{said:?}");
    // Dropped, it is killed with the queues.
}

#[test]
fn one_that_has_no_end_is_ended_with_its_children() {
    let place = Place::new("end");
    let bounds = Bounds { time: Some(Duration::from_secs(30)), ..USUAL };
    let (mut queues, mut said) = (Queues::new(bounds), Vec::new());
    let stubborn = format!("trap '' TERM; sleep 1000 & echo $! > {}/pid; wait; wait", place.0.display());
    queues.add(1, shell("web", &stubborn), &mut said);
    turn_until(&mut queues, 1, &mut said, |_| place.text("pid").ends_with('\n'));
    turn_until(&mut queues, 1000, &mut said, is_idle);
    assert!(matches!(&said[..], [Said::Warning(text)] if text.ends_with("is ended: it ran for 30 s")), "{said:?}");
    let child: i32 = place.text("pid").trim().parse().expect("a number");
    let start = Instant::now();
    let gone = || !fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    while !gone() {
        assert!(start.elapsed() < Duration::from_secs(60), "its child {child} lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn so_many_run_together_and_all_get_their_turn() {
    let place = Place::new("together");
    let bounds = Bounds { together: 3, ..USUAL };
    let (mut queues, mut said) = (Queues::new(bounds), Vec::new());
    for key in 0..20 {
        for _ in 0..2 {
            queues.add(key, shell("web", &append(&place.0, &key.to_string())), &mut said);
        }
    }
    let mut most = 0;
    turn_until(&mut queues, 1, &mut said, |queues| {
        most = most.max(queues.running());
        is_idle(queues)
    });
    assert_eq!(most, 3);
    let mut ran: Vec<u8> = place.text("out").lines().map(|line| line.parse().expect("a key")).collect();
    ran.sort_unstable();
    assert_eq!(ran, (0..20).flat_map(|key| [key, key]).collect::<Vec<_>>());
}

#[test]
fn what_is_out_of_date_is_left_out() {
    let (mut queues, mut said) = (Queues::new(Bounds { waiting: 2, ..USUAL }), Vec::new());
    for n in 0..4 {
        queues.add(1, shell("web", &format!("exit {n}")), &mut said);
    }
    assert_eq!(said.len(), 2);
    assert!(matches!(&said[0], Said::Warning(text) if text.contains("exit 0 is left out: 2 newer ones wait")));
}
