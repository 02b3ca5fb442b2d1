//! Scripts that hang, fork, print, fail to start, and are more than may run.

use std::path::PathBuf;
use std::sync::mpsc;

use super::*;
use crate::health::Reason;
use crate::model::{CheckTarget, Pace, ScriptCheck};

/// How long a test waits for what must come: much longer than it takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn shell(text: &str, timeout: Duration) -> Arc<Check> {
    let script = ScriptCheck {
        command: vec!["/bin/sh".into(), "-c".into(), text.into()],
        environment: vec![("COLOUR".into(), "green".into())],
        user: None,
        dynamic: false,
    };
    let target = CheckTarget { address: [10, 0, 0, 11].into(), port: 80, source: None, through: None };
    Arc::new(Check { kind: CheckKind::Script(script), target, pace: Pace { timeout, ..Pace::default() } })
}

fn runner() -> (Runner, mpsc::Receiver<Answer>) {
    let (tell, told) = mpsc::channel();
    let runner = Runner::start(move |answer| drop(tell.send(answer)), ()).expect("a thread");
    (runner, told)
}

fn result(told: &mpsc::Receiver<Answer>) -> (CheckId, Outcome) {
    match told.recv_timeout(PATIENCE) {
        Ok(Answer::Ran(id, outcome, _)) => (id, outcome),
        other => panic!("{other:?}"),
    }
}

fn alone(text: &str, timeout: Duration) -> Outcome {
    let (runner, told) = runner();
    runner.ask(Job::Run(CheckId(1), shell(text, timeout)));
    result(&told).1
}

/// A file that tells of processes, in a folder that goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let folder = std::env::temp_dir().join(format!("evenkeel-runner-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        Scratch(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("pids")
    }

    /// The processes that were written down, once there are that many.
    fn pids(&self, count: usize) -> Vec<u32> {
        wait_for(|| {
            let text = std::fs::read_to_string(self.file()).unwrap_or_default();
            let pids: Vec<u32> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
            (pids.len() >= count).then_some(pids)
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn wait_for<T>(look: impl Fn() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "it did not come about");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Gone, or a zombie that somebody else has yet to collect.
fn is_gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']))
}

fn failure(outcome: Outcome) -> String {
    match outcome {
        Outcome::Bad(failure) => {
            assert_eq!(failure.reason, Reason::Script);
            failure.words
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn words_and_environment() {
    let text = "echo; echo $COLOUR $EVENKEEL_ADDRESS $EVENKEEL_PORT $HOME.; echo more; exit 3";
    assert_eq!(failure(alone(text, PATIENCE)), "exit code 3: green 10.0.0.11 80 .");
    assert_eq!(alone("echo well >&2", PATIENCE), Outcome::good("exit code 0: well"));
    assert_eq!(failure(alone("kill -9 $$", PATIENCE)), "ended by signal 9 (SIGKILL)");
}

#[test]
fn what_cannot_be_started_is_told() {
    let (runner, told) = runner();
    let mut check = (*shell("", PATIENCE)).clone();
    let CheckKind::Script(script) = &mut check.kind else { panic!("a script") };
    script.command = vec!["/nowhere/check".into()];
    runner.ask(Job::Run(CheckId(1), Arc::new(check)));
    assert_eq!(failure(result(&told).1), "/nowhere/check does not exist");
}

#[test]
fn megabytes_are_thrown_away() {
    // It ends, so nothing held it up, and its first line is cut.
    let text = "head -c 20000000 /dev/zero | tr '\\0' x; exit 1";
    let words = failure(alone(text, PATIENCE));
    assert_eq!(words, format!("exit code 1: {}", "x".repeat(512)));
}

#[test]
fn a_script_that_hangs_is_killed_with_its_children() {
    let scratch = Scratch::new("hangs");
    let (runner, told) = runner();
    // Neither of them minds SIGTERM.
    let text = format!(
        "trap '' TERM; (trap '' TERM; sleep 1000 & wait) & echo $! >{0}; echo $$ >>{0}; while :; do sleep 1000; done",
        scratch.file().display()
    );
    let timeout = Duration::from_millis(300);
    runner.ask(Job::Run(CheckId(1), shell(&text, timeout)));
    assert_eq!(failure(result(&told).1), "killed after 300 ms, the timeout");
    for pid in scratch.pids(2) {
        wait_for(|| is_gone(pid).then_some(()));
    }
}

#[test]
fn what_a_script_leaves_behind_ends_with_it() {
    let scratch = Scratch::new("leaves");
    let (runner, told) = runner();
    let text = format!("sleep 1000 & echo $! >{}; exit 0", scratch.file().display());
    runner.ask(Job::Run(CheckId(1), shell(&text, PATIENCE)));
    assert_eq!(result(&told).1, Outcome::good("exit code 0"));
    for pid in scratch.pids(1) {
        wait_for(|| is_gone(pid).then_some(()));
    }
}

#[test]
fn no_more_than_allowed_run_at_a_time_and_the_others_wait_unharmed() {
    let scratch = Scratch::new("many");
    let (runner, told) = runner();
    let gate = scratch.0.join("gate");
    let text =
        format!("echo $$ >>{}; while ! test -e {}; do sleep 0.05; done", scratch.file().display(), gate.display());
    for id in 0..MOST as u64 {
        runner.ask(Job::Run(CheckId(id), shell(&text, PATIENCE)));
    }
    // Its time is much shorter than it has to wait; that is not counted.
    runner.ask(Job::Run(CheckId(1000), shell("exit 0", Duration::from_secs(20))));
    assert_eq!(scratch.pids(MOST).len(), MOST);
    assert!(told.try_recv().is_err(), "nobody is done");
    std::fs::write(&gate, "").expect("a file");
    let mut ids: Vec<u64> = (0..=MOST)
        .map(|_| result(&told))
        .map(|(id, outcome)| {
            assert_eq!(outcome, Outcome::good("exit code 0"));
            id.0
        })
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..MOST as u64).chain([1000]).collect::<Vec<_>>());
}

#[test]
fn one_process_of_a_check_at_a_time() {
    let scratch = Scratch::new("one");
    let (runner, told) = runner();
    let text = format!("trap '' TERM; echo $$ >>{}; while :; do sleep 1000; done", scratch.file().display());
    let timeout = Duration::from_millis(200);
    runner.ask(Job::Run(CheckId(1), shell(&text, timeout)));
    assert_eq!(failure(result(&told).1), "killed after 200 ms, the timeout");
    // It lives on for a second: the next one waits until it is gone.
    let text = format!("kill -0 $(head -1 {}) 2>/dev/null && exit 7; exit 0", scratch.file().display());
    runner.ask(Job::Run(CheckId(1), shell(&text, PATIENCE)));
    assert_eq!(result(&told).1, Outcome::good("exit code 0"));
}

#[test]
fn a_check_that_is_gone_is_killed_and_not_told() {
    let scratch = Scratch::new("cancel");
    let (runner, told) = runner();
    let text = format!("echo $$ >>{}; sleep 1000", scratch.file().display());
    runner.ask(Job::Run(CheckId(1), shell(&text, PATIENCE)));
    let pid = scratch.pids(1)[0];
    runner.ask(Job::Cancel(CheckId(1)));
    wait_for(|| is_gone(pid).then_some(()));
    runner.ask(Job::Run(CheckId(2), shell("exit 0", PATIENCE)));
    assert_eq!(result(&told).0, CheckId(2), "and nothing of the first");
}

#[test]
fn dropped_it_kills_all() {
    let scratch = Scratch::new("drop");
    let (runner, _told) = runner();
    for id in 0..5 {
        let text = format!("trap '' TERM; echo $$ >>{}; while :; do sleep 1000; done", scratch.file().display());
        runner.ask(Job::Run(CheckId(id), shell(&text, PATIENCE)));
    }
    let pids = scratch.pids(5);
    drop(runner);
    assert!(pids.iter().all(|pid| is_gone(*pid)), "gone before it returns");
}
