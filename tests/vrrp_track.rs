//! Tracking and notification with real scripts, files, processes and FIFOs, each test in a folder of its own.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use evenkeel::model::{
    Notify, SyncGroup, Track, TrackFile, TrackProcess, TrackScript, Tracked, VirtualAddress, VirtualRouter, Vrrp,
};
use evenkeel::vrrp::notify::{Change, Report, Reporter};
use evenkeel::vrrp::track::{Observation, Tracker, Value};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

/// What should happen at once may take this long on a busy machine; what comes by the look of every second takes longer.
const SOON: Duration = Duration::from_millis(900);
const LONG: Duration = Duration::from_secs(10);

static FOLDERS: AtomicU32 = AtomicU32::new(0);

/// A folder that is removed with everything in it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ek-track-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Folder(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// An executable shell script; `@` in it is the folder.
    fn script(&self, name: &str, body: &str) -> Vec<String> {
        let path = self.path(name);
        let text = format!("#!/bin/sh\n{}\n", body.replace('@', &self.0.display().to_string()));
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        vec![path.display().to_string()]
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The number that a script wrote there.
    fn pid(&self, name: &str) -> Pid {
        wait_for(LONG, "a process id", || self.read(name).trim().parse().ok().map(Pid::from_raw))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn wait_for<T>(within: Duration, what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(begun.elapsed() < within, "no {what} within {within:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn is_gone(pid: Pid) -> bool {
    // A zombie is as good as gone: the parent of orphans may be slow to look.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    kill(pid, None).is_err() || stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}

fn router(name: &str, tracks: Vec<Tracked>) -> VirtualRouter {
    let tracks = tracks.into_iter().map(|what| Track { what, weight: 0 }).collect();
    VirtualRouter { tracks, ..VirtualRouter::new(name, "eth0", 51, vec![VirtualAddress::host([192, 0, 2, 10].into())]) }
}

fn script(name: &str, command: Vec<String>) -> TrackScript {
    TrackScript {
        name: name.into(),
        command,
        interval: Duration::from_millis(50),
        timeout: Duration::from_secs(5),
        rise: 1,
        fall: 1,
        user: None,
        starts_good: false,
    }
}

/// A configuration in which one router tracks everything.
fn tracking(scripts: Vec<TrackScript>, files: Vec<TrackFile>, processes: Vec<TrackProcess>) -> Vrrp {
    let mut tracks: Vec<Tracked> = scripts.iter().map(|script| Tracked::Script(script.name.clone())).collect();
    tracks.extend(files.iter().map(|file| Tracked::File(file.name.clone())));
    tracks.extend(processes.iter().map(|process| Tracked::Process(process.name.clone())));
    Vrrp { routers: vec![router("VI_1", tracks)], scripts, files, processes, ..Vrrp::default() }
}

struct Tracking {
    tracker: Tracker,
    wakes: Arc<AtomicU32>,
    reports: crossbeam::channel::Receiver<Report>,
}

impl Tracking {
    fn start(vrrp: &Vrrp) -> Tracking {
        let (sent, reports) = crossbeam::channel::unbounded();
        let wakes = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&wakes);
        let wake = Arc::new(move || _ = count.fetch_add(1, Ordering::SeqCst));
        Tracking { tracker: Tracker::start(vrrp, wake, sent).unwrap(), wakes, reports }
    }

    fn next(&self, within: Duration) -> Observation {
        let seen = self.tracker.observations().recv_timeout(within);
        seen.unwrap_or_else(|_| panic!("nothing was seen within {within:?}; the log has {:?}", self.log()))
    }

    /// The next thing that is seen of a script.
    fn verdict(&self) -> Result<(), String> {
        match self.next(LONG).value {
            Value::Good => Ok(()),
            Value::Bad(why) => Err(why),
            Value::Number(number) => panic!("a number: {number}"),
        }
    }

    fn number(&self, within: Duration) -> i64 {
        match self.next(within).value {
            Value::Number(number) => number,
            other => panic!("no number: {other:?}"),
        }
    }

    fn is_quiet(&self, how_long: Duration) {
        if let Ok(seen) = self.tracker.observations().recv_timeout(how_long) {
            panic!("seen without a reason: {seen:?}");
        }
    }

    fn log(&self) -> Vec<String> {
        let text = |report| match report {
            Report::Log { text, .. } => Some(text),
            _ => None,
        };
        self.reports.try_iter().filter_map(text).collect()
    }
}

#[test]
fn a_script_is_seen_to_fail_and_to_succeed_again() {
    let folder = Folder::new();
    fs::write(folder.path("good"), "").unwrap();
    let command = folder.script("check", "[ -e @/good ]");
    let tracking = Tracking::start(&tracking(vec![script("chk", command)], vec![], vec![]));
    assert_eq!(tracking.next(LONG), Observation::good(Tracked::Script("chk".into())));
    tracking.is_quiet(Duration::from_millis(300));
    fs::remove_file(folder.path("good")).unwrap();
    assert_eq!(tracking.verdict(), Err("failed: exited with status 1".into()));
    tracking.is_quiet(Duration::from_millis(300));
    fs::write(folder.path("good"), "").unwrap();
    assert_eq!(tracking.verdict(), Ok(()));
    // keepalived's lines.
    let expected = ["succeeded", "failed (exited with status 1)", "succeeded"];
    assert_eq!(tracking.log(), expected.map(|what| format!("VRRP_Script(chk) {what}")));
    // The last one comes after what it is for.
    let end = Instant::now() + LONG;
    while tracking.wakes.load(Ordering::SeqCst) < 3 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    tracking.is_quiet(Duration::from_millis(50));
    assert_eq!(tracking.wakes.load(Ordering::SeqCst), 3, "one for each");
}

#[test]
fn another_reason_to_fail_is_told() {
    let folder = Folder::new();
    fs::write(folder.path("code"), "3").unwrap();
    let command = folder.script("check", "read code < @/code; [ $code = kill ] && kill -9 $$; exit $code");
    let tracking = Tracking::start(&tracking(vec![script("chk", command)], vec![], vec![]));
    assert_eq!(tracking.verdict(), Err("failed: exited with status 3".into()));
    fs::rename(write(&folder, "next", "kill"), folder.path("code")).unwrap();
    assert_eq!(tracking.verdict(), Err("failed: due to signal 9".into()));
}

fn write(folder: &Folder, name: &str, text: &str) -> PathBuf {
    let path = folder.path(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_script_that_hangs_is_ended_with_its_children() {
    for (name, stubborn) in [("polite", ""), ("stubborn", "trap '' TERM\n")] {
        let folder = Folder::new();
        let body = format!("{stubborn}sleep 100 &\necho $! > @/child\necho $$ > @/parent\nwait; sleep 100");
        let mut hanging = script(name, folder.script("check", &body));
        hanging.timeout = Duration::from_millis(300);
        hanging.interval = Duration::from_secs(60);
        let begun = Instant::now();
        let tracking = Tracking::start(&tracking(vec![hanging], vec![], vec![]));
        assert_eq!(tracking.verdict(), Err("failed: timed out after 0.3 s".into()), "{name}");
        assert!(begun.elapsed() >= Duration::from_millis(300));
        for pid in [folder.pid("child"), folder.pid("parent")] {
            wait_for(LONG, "end of a process of the group", || is_gone(pid).then_some(()));
        }
        tracking.is_quiet(Duration::from_millis(100));
    }
}

#[test]
fn a_script_that_leaves_a_child_behind_is_not_waited_for() {
    let folder = Folder::new();
    let command = folder.script("check", "sleep 100 &\necho $! > @/child\nexit 0");
    let mut leaving = script("chk", command);
    leaving.interval = Duration::from_secs(60);
    let tracking = Tracking::start(&tracking(vec![leaving], vec![], vec![]));
    let begun = Instant::now();
    assert_eq!(tracking.verdict(), Ok(()));
    assert!(begun.elapsed() < Duration::from_secs(4), "its timeout is 5 s");
    // What a script starts in the background is its own business: many check and restart a daemon.
    let child = folder.pid("child");
    assert!(!is_gone(child));
    kill(child, Signal::SIGKILL).unwrap();
}

#[test]
fn a_script_that_prints_megabytes_does_no_harm() {
    let folder = Folder::new();
    let command = folder.script("check", "head -c 50000000 /dev/zero; head -c 50000000 /dev/zero >&2");
    let tracking = Tracking::start(&tracking(vec![script("chk", command)], vec![], vec![]));
    assert_eq!(tracking.verdict(), Ok(()));
}

#[test]
fn what_cannot_be_run_fails_and_says_why() {
    let folder = Folder::new();
    let plain = write(&folder, "plain", "#!/bin/sh\n").display().to_string();
    let no_interpreter = folder.script("odd", "");
    fs::write(&no_interpreter[0], "#!/no/such/shell\n").unwrap();
    let mut rows = vec![
        (vec!["/no/such/program".to_owned()], None, "failed: /no/such/program does not exist".to_owned()),
        (vec!["no-such-program-ek".into()], None, "failed: no-such-program-ek does not exist".into()),
        (vec![plain.clone()], None, format!("failed: {plain} is not executable")),
        (vec![folder.0.display().to_string()], None, format!("failed: {} is not executable", folder.0.display())),
        (no_interpreter.clone(), None, format!("failed: {} cannot be started: No such file", no_interpreter[0])),
        (vec!["/bin/true".into()], Some("no-such-user-ek"), "failed: there is no user no-such-user-ek".into()),
        (vec!["/bin/sh".into(), "-c".into(), "no-such-ek".into()], None, "failed: exited with status 127".into()),
    ];
    if geteuid().is_root() {
        let open = folder.script("open", "exit 0");
        fs::set_permissions(&open[0], fs::Permissions::from_mode(0o777)).unwrap();
        rows.push((
            open.clone(),
            None,
            format!("failed: {} can be written by everybody: it is not run as root", open[0]),
        ));
        rows.push((open, Some("nobody"), String::new()));
        let private = folder.script("private", "exit 0");
        fs::set_permissions(&private[0], fs::Permissions::from_mode(0o700)).unwrap();
        rows.push((private, Some("nobody"), "failed: exited with status ".into()));
    }
    for (command, user, expected) in rows {
        let mut broken = script("chk", command);
        broken.user = user.map(str::to_owned);
        let tracking = Tracking::start(&tracking(vec![broken], vec![], vec![]));
        let seen = tracking.verdict().err().unwrap_or_default();
        assert!(seen.starts_with(&expected) && seen.is_empty() == expected.is_empty(), "{seen:?}, not {expected:?}");
        tracking.is_quiet(Duration::from_millis(120));
    }
}

#[test]
fn a_script_is_run_as_its_user_with_no_other_groups() {
    if !geteuid().is_root() {
        return println!("skipped: needs root");
    }
    let folder = Folder::new();
    // Nor with capabilities.
    let body = "grep -q 'CapPrm:.0*$' /proc/self/status && [ \"$(id -un)\" = nobody ] && [ \"$(id -G)\" = \"$(id -G nobody)\" ]";
    let mut other = script("chk", folder.script("check", body));
    other.user = Some("nobody".into());
    let tracking = Tracking::start(&tracking(vec![other], vec![], vec![]));
    assert_eq!(tracking.verdict(), Ok(()));
}

#[test]
fn what_others_can_write_runs_as_root_with_a_warning() {
    if !geteuid().is_root() {
        return println!("skipped: needs root");
    }
    let folder = Folder::new();
    let command = folder.script("theirs", "exit 0");
    std::os::unix::fs::chown(&command[0], Some(65534), Some(65534)).unwrap();
    let tracking = Tracking::start(&tracking(vec![script("chk", command.clone())], vec![], vec![]));
    assert_eq!(tracking.verdict(), Ok(()));
    tracking.is_quiet(Duration::from_millis(200));
    let warning = format!("VRRP_Script(chk): {0} runs as root, and others than root can write {0}", command[0]);
    assert_eq!(tracking.log(), [warning, "VRRP_Script(chk) succeeded".into()], "once, not for each run");
}

#[test]
fn a_script_never_runs_twice_at_a_time_and_others_do_not_wait_for_it() {
    let folder = Folder::new();
    let slow =
        folder.script("slow", "mkdir @/lock || echo twice >> @/twice\nsleep 0.15\nrmdir @/lock\necho >> @/slow.runs");
    let fast = folder.script("fast", "echo >> @/fast.runs");
    let mut scripts = vec![script("slow", slow), script("fast", fast)];
    scripts.iter_mut().for_each(|script| script.interval = Duration::from_millis(30));
    let tracking = Tracking::start(&tracking(scripts, vec![], vec![]));
    wait_for(LONG, "fourth run", || (folder.read("slow.runs").len() >= 4).then_some(()));
    drop(tracking);
    assert_eq!(folder.read("twice"), "");
    assert!(folder.read("fast.runs").len() >= 8, "{} runs", folder.read("fast.runs").len());
}

#[test]
fn one_that_starts_good_is_good_at_once() {
    let mut good = script("chk", vec!["/bin/sleep".into(), "60".into()]);
    good.starts_good = true;
    let tracking = Tracking::start(&tracking(vec![good], vec![], vec![]));
    let seen = tracking.next(SOON);
    assert_eq!(seen, Observation::good(Tracked::Script("chk".into())));
}

#[test]
fn a_reload_runs_only_what_is_new() {
    let folder = Folder::new();
    let rare = |name: &str, body: &str| {
        let mut script = script(name, folder.script(name, body));
        script.interval = Duration::from_secs(60);
        script
    };
    let scripts = vec![rare("one", "echo >> @/one.runs"), rare("two", "echo >> @/two.runs; exit 1")];
    let mut vrrp = tracking(scripts, vec![], vec![]);
    let tracking = Tracking::start(&vrrp);
    let mut verdicts = [tracking.verdict(), tracking.verdict()];
    verdicts.sort();
    assert_eq!(verdicts, [Ok(()), Err("failed: exited with status 1".into())]);
    // The second gets another program; a third comes that nobody tracks.
    vrrp.scripts[1].command = folder.script("better", "echo >> @/better.runs");
    vrrp.scripts.push(rare("unused", "echo >> @/unused.runs"));
    tracking.tracker.configure(&vrrp);
    assert_eq!(tracking.next(LONG), Observation::good(Tracked::Script("two".into())));
    // Other numbers alone run nothing anew, and change nothing.
    vrrp.scripts[0].fall = 5;
    tracking.tracker.configure(&vrrp);
    tracking.is_quiet(Duration::from_millis(300));
    let runs = ["one.runs", "two.runs", "better.runs", "unused.runs"].map(|name| folder.read(name).len());
    assert_eq!(runs, [1, 1, 1, 0]);
    // Gone from the configuration: it is ended.
    let mut hanging = rare("hang", "echo $$ > @/hang.pid; sleep 100");
    hanging.timeout = Duration::from_secs(50);
    tracking.tracker.configure(&self::tracking(vec![hanging], vec![], vec![]));
    let pid = folder.pid("hang.pid");
    tracking.tracker.configure(&Vrrp::default());
    wait_for(LONG, "end of a script that is no longer configured", || is_gone(pid).then_some(()));
}

#[test]
fn the_end_of_the_tracker_is_the_end_of_its_scripts() {
    let folder = Folder::new();
    let command = folder.script("check", "sleep 100 &\necho $! > @/child\necho $$ > @/parent\nwait");
    let mut hanging = script("chk", command);
    hanging.timeout = LONG;
    let tracking = Tracking::start(&tracking(vec![hanging], vec![], vec![]));
    let pids = [folder.pid("child"), folder.pid("parent")];
    let begun = Instant::now();
    assert!(tracking.tracker.is_running());
    drop(tracking);
    assert!(begun.elapsed() < Duration::from_secs(3));
    for pid in pids {
        wait_for(LONG, "end of a process", || is_gone(pid).then_some(()));
    }
}

fn file(name: &str, path: PathBuf) -> TrackFile {
    TrackFile { name: name.into(), path }
}

#[test]
fn files_come_change_and_go() {
    let folder = Folder::new();
    let path = folder.path("load");
    let tracking = Tracking::start(&tracking(vec![], vec![file("load", path.clone())], vec![]));
    assert_eq!(tracking.number(LONG), 0, "no file");
    fs::write(&path, "-20\n").unwrap();
    assert_eq!(tracking.number(SOON), -20);
    fs::write(&path, "garbage\n").unwrap();
    assert_eq!(tracking.number(SOON), 0);
    fs::rename(write(&folder, "new", "7"), &path).unwrap();
    assert_eq!(tracking.number(SOON), 7);
    fs::write(&path, "7 # the same").unwrap();
    write(&folder, "neighbour", "8");
    tracking.is_quiet(Duration::from_millis(200));
    fs::write(&path, [0xff; 100_000]).unwrap();
    assert_eq!(tracking.number(SOON), 0, "no number");
    fs::write(&path, "12").unwrap();
    assert_eq!(tracking.number(SOON), 12);
    fs::remove_file(&path).unwrap();
    assert_eq!(tracking.number(SOON), 0);
    assert_eq!(tracking.log()[0], "tracked file load holds -20, before 0");
    // What is no file has no number, and a FIFO without a writer holds nothing up.
    fs::create_dir(&path).unwrap();
    fs::remove_dir(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    tracking.is_quiet(Duration::from_millis(2500));
    fs::remove_file(&path).unwrap();
    fs::write(&path, "3").unwrap();
    assert_eq!(tracking.number(SOON), 3);
}

#[test]
fn folders_may_come_later_and_links_may_lead_elsewhere() {
    let folder = Folder::new();
    fs::create_dir(folder.path("a")).unwrap();
    fs::create_dir(folder.path("b")).unwrap();
    write(&folder, "a/value", "1");
    write(&folder, "b/value", "2");
    symlink(folder.path("a"), folder.path("now")).unwrap();
    let files = vec![file("linked", folder.path("now/value")), file("late", folder.path("later/value"))];
    let tracking = Tracking::start(&tracking(vec![], files, vec![]));
    assert_eq!([tracking.number(LONG), tracking.number(LONG)], [1, 0]);
    // Behind the link, at once.
    write(&folder, "a/value", "5");
    assert_eq!(tracking.number(SOON), 5);
    // Another target of the link, as a configuration store swaps its folders: with the look of every second.
    symlink(folder.path("b"), folder.path("next")).unwrap();
    fs::rename(folder.path("next"), folder.path("now")).unwrap();
    assert_eq!(tracking.number(LONG), 2);
    write(&folder, "b/value", "6");
    assert_eq!(tracking.number(SOON), 6);
    fs::create_dir(folder.path("later")).unwrap();
    write(&folder, "later/value", "9");
    assert_eq!(tracking.number(LONG), 9);
    fs::remove_dir_all(folder.path("later")).unwrap();
    assert_eq!(tracking.number(LONG), 0);
}

/// A program of an own name that does nothing.
struct Sleeper(Child);

impl Sleeper {
    fn start(folder: &Folder, name: &str) -> Sleeper {
        let path = folder.path(name);
        if !path.exists() {
            fs::copy("/bin/sleep", &path).unwrap();
        }
        Sleeper(Command::new(&path).arg("100").stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn processes_come_and_go() {
    let folder = Folder::new();
    // Longer than what the kernel keeps of a name.
    let name = format!("ek{}-{}", std::process::id(), "a-long-process-name");
    let tracked = |quorum, delay| TrackProcess { name: "squid".into(), process: name.clone(), quorum, delay };
    let first = Sleeper::start(&folder, &name);
    let mut vrrp = tracking(vec![], vec![], vec![tracked(2, Duration::ZERO)]);
    let tracking = Tracking::start(&vrrp);
    assert_eq!(tracking.verdict(), Err("runs 1 times of 2".into()));
    let second = Sleeper::start(&folder, &name);
    assert_eq!(tracking.verdict(), Ok(()));
    // One that nobody has looked after is there, but does not run.
    kill(Pid::from_raw(second.0.id() as i32), Signal::SIGKILL).unwrap();
    let begun = Instant::now();
    assert_eq!(tracking.verdict(), Err("runs 1 times of 2".into()));
    assert!(begun.elapsed() < SOON);
    drop(second);
    assert_eq!(
        tracking.log(),
        ["lost", "gained", "lost"].map(|what| format!("Quorum {what} for tracked process squid"))
    );
    // A delay: what comes back in time was never gone.
    vrrp.processes = vec![tracked(1, Duration::from_secs(2))];
    tracking.tracker.configure(&vrrp);
    assert_eq!(tracking.verdict(), Ok(()));
    drop(first);
    thread::sleep(Duration::from_millis(200));
    let third = Sleeper::start(&folder, &name);
    tracking.is_quiet(Duration::from_millis(2500));
    drop(third);
    let begun = Instant::now();
    assert_eq!(tracking.verdict(), Err("does not run".into()));
    assert!(begun.elapsed() >= Duration::from_secs(2));
}

/// The log of this whole test program.
fn log() -> Arc<Mutex<Vec<u8>>> {
    static LOG: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();
    #[derive(Clone)]
    struct Into(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Into {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let make = || {
        let log = Arc::new(Mutex::new(Vec::new()));
        let into = Into(Arc::clone(&log));
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || into.clone()).init();
        log
    };
    Arc::clone(LOG.get_or_init(make))
}

fn logged(words: &str) -> usize {
    String::from_utf8_lossy(&log().lock().unwrap()).lines().filter(|line| line.contains(words)).count()
}

fn changed(name: &str, group: bool, change: Change, priority: u8) -> Report {
    Report::Changed { name: name.into(), group, change, priority }
}

/// Reads a FIFO into a string until it is dropped.
struct Reader {
    file: File,
    text: String,
}

impl Reader {
    fn open(path: &Path) -> Reader {
        let file = wait_for(LONG, "FIFO", || {
            let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
            file.metadata().unwrap().file_type().is_fifo().then_some(file)
        });
        Reader { file, text: String::new() }
    }

    fn lines(&mut self, count: usize) -> &str {
        wait_for(LONG, "lines", || {
            let mut more = [0; 65536];
            while let Ok(read @ 1..) = self.file.read(&mut more) {
                self.text.push_str(std::str::from_utf8(&more[..read]).unwrap());
            }
            (self.text.lines().count() >= count).then_some(())
        });
        &self.text
    }
}

/// The configuration of the recording, as ours.
fn recorded_plan(folder: &Folder) -> Vrrp {
    let said = fs::read_to_string(golden("said.sh")).unwrap().replace("@FOLDER@", &folder.0.display().to_string());
    fs::write(folder.path("said.sh"), said).unwrap();
    fs::set_permissions(folder.path("said.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    let call = |words: &[&str]| {
        let said = folder.path("said.sh").display().to_string();
        Some(std::iter::once(said).chain(words.iter().map(|word| (*word).to_owned())).collect::<Vec<_>>())
    };
    let all = |word: &str, master: &[&str]| Notify {
        master: call(master),
        backup: call(&[word, "backup"]),
        fault: call(&[word, "fault"]),
        stop: call(&[word, "stop"]),
        any: call(&[word, "any"]),
    };
    let mut routers = ["VI_1", "VI_2", "VI_3"].map(|name| router(name, vec![])).to_vec();
    routers[0].notify = all("one", &["one", "master", "with space"]);
    routers[1].notify = Notify { any: call(&["two", "any"]), ..Notify::default() };
    routers[2].notify = all("three", &["three", "master"]);
    let group = SyncGroup {
        name: "G1".into(),
        routers: vec!["VI_1".into(), "VI_2".into()],
        tracks: vec![],
        notify: all("group", &["group", "master"]),
    };
    let mut vrrp = Vrrp { routers, groups: vec![group], ..Vrrp::default() };
    vrrp.settings.fifo = Some(folder.path("fifo"));
    vrrp
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/vrrp/notify").join(name)
}

#[test]
fn scripts_and_fifo_say_what_keepalived_says() {
    let folder = Folder::new();
    let recorded = fs::read_to_string(golden("fifo")).unwrap();
    let reporter = Reporter::start(Arc::new(recorded_plan(&folder))).unwrap();
    let mut reader = Reader::open(&folder.path("fifo"));
    for line in recorded.lines() {
        let [kind, name, state, priority] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let change = [
            Change::Master,
            Change::Backup,
            Change::Fault,
            Change::Stop,
            Change::MasterPriority,
            Change::BackupPriority,
            Change::MasterHeardLower,
        ];
        let change = *change.iter().find(|change| change.word() == state).expect("a state");
        let report = changed(name.trim_matches('"'), kind == "GROUP", change, priority.parse().unwrap());
        reporter.reports().send(report).unwrap();
    }
    assert_eq!(reader.lines(recorded.lines().count()), recorded);
    drop(reporter);
    assert!(!folder.path("fifo").exists(), "keepalived removes the FIFO that it made");
    let recorded = fs::read_to_string(golden("argv")).unwrap();
    let ours = folder.read("argv");
    for first in ["[one]", "[two]", "[three]", "[group]"] {
        // keepalived runs the scripts of a change at the same time: between two changes of one router it is in order.
        let of = |text: &str| text.lines().filter(|line| line.contains(first)).map(str::to_owned).collect::<Vec<_>>();
        let (mut theirs, mut ours) = (of(&recorded), of(&ours));
        assert_eq!(ours.len(), theirs.len());
        if first != "[two]" {
            for pair in ours.chunks_exact(2) {
                assert!(pair[1].contains("[any]"), "the one for any state comes after: {pair:?}");
            }
            theirs.chunks_mut(2).for_each(<[String]>::sort);
            ours.chunks_mut(2).for_each(<[String]>::sort);
        }
        assert_eq!(ours, theirs);
    }
}

#[test]
fn a_fifo_is_made_for_its_owner_and_one_that_was_there_stays() {
    let folder = Folder::new();
    let path = folder.path("fifo");
    let mut vrrp = Vrrp { routers: vec![router("VI_1", vec![])], ..Vrrp::default() };
    vrrp.settings.fifo = Some(path.clone());
    let reporter = Reporter::start(Arc::new(vrrp.clone())).unwrap();
    let mut reader = Reader::open(&path);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    // Somebody puts another one in its place.
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
    let mut other = Reader::open(&path);
    reporter.reports().send(changed("VI_1", false, Change::Master, 254)).unwrap();
    assert_eq!(other.lines(1), "INSTANCE \"VI_1\" MASTER 254\n");
    assert_eq!(reader.lines(0), "");
    // Another path with a reload: what was made is removed.
    let second = folder.path("second");
    nix::unistd::mkfifo(&second, nix::sys::stat::Mode::S_IRWXU).unwrap();
    vrrp.settings.fifo = Some(second.clone());
    reporter.reports().send(Report::Plan(Arc::new(vrrp))).unwrap();
    reporter.reports().send(changed("VI_1", false, Change::Backup, 1)).unwrap();
    // It waits for a reader that comes later.
    assert_eq!(Reader::open(&second).lines(1), "INSTANCE \"VI_1\" BACKUP 1\n");
    drop(reporter);
    assert!(second.exists());
}

#[test]
fn nobody_reads_the_fifo_and_nothing_waits() {
    let folder = Folder::new();
    log();
    let name = format!("VI_full_{}", std::process::id());
    let mut vrrp = Vrrp { routers: vec![router(&name, vec![])], ..Vrrp::default() };
    vrrp.settings.fifo = Some(folder.path("fifo"));
    let reporter = Reporter::start(Arc::new(vrrp)).unwrap();
    for _ in 0..4000 {
        reporter.reports().send(changed(&name, false, Change::Master, 100)).unwrap();
    }
    wait_for(LONG, "lost line", || (reporter.lost_lines() > 0).then_some(()));
    let line = format!("INSTANCE \"{name}\" MASTER 100\n");
    let room = 65536 / line.len();
    wait_for(LONG, "rest of the lost lines", || (reporter.lost_lines() as usize >= 4000 - room).then_some(()));
    let fifo = folder.path("fifo").display().to_string();
    assert_eq!(logged(&format!("nobody reads the FIFO {fifo}")), 1, "said once");
    let mut reader = Reader::open(&folder.path("fifo"));
    let kept = 4000 - reporter.lost_lines() as usize;
    assert_eq!(reader.lines(kept), line.repeat(kept), "whole lines only");
    reporter.reports().send(changed(&name, false, Change::Backup, 100)).unwrap();
    assert!(reader.lines(kept + 1).ends_with(&format!("INSTANCE \"{name}\" BACKUP 100\n")));
}

#[test]
fn what_is_no_fifo_is_not_written() {
    let folder = Folder::new();
    log();
    let path = write(&folder, "precious", "mine");
    let mut vrrp = Vrrp { routers: vec![router("VI_1", vec![])], ..Vrrp::default() };
    vrrp.settings.fifo = Some(path.clone());
    let reporter = Reporter::start(Arc::new(vrrp)).unwrap();
    reporter.reports().send(changed("VI_1", false, Change::Master, 100)).unwrap();
    wait_for(LONG, "lost line", || (reporter.lost_lines() == 1).then_some(()));
    drop(reporter);
    assert_eq!(folder.read("precious"), "mine");
    assert_eq!(logged(&format!("{} is not a FIFO: remove it", path.display())), 1);
}

#[test]
fn scripts_of_one_router_are_run_in_order_and_others_do_not_wait() {
    let folder = Folder::new();
    let slow = folder.script("slow", "sleep 0.4; echo slow >> @/said");
    let quick = folder.script("quick", "echo quick >> @/said");
    let other = folder.script("other", "echo other >> @/said");
    let mut routers = vec![router("VI_1", vec![]), router("VI_2", vec![])];
    routers[0].notify = Notify { backup: Some(slow), master: Some(quick), ..Notify::default() };
    routers[1].notify = Notify { any: Some(other), ..Notify::default() };
    let reporter = Reporter::start(Arc::new(Vrrp { routers, ..Vrrp::default() })).unwrap();
    for (name, change) in [("VI_1", Change::Backup), ("VI_1", Change::Master), ("VI_2", Change::Master)] {
        reporter.reports().send(changed(name, false, change, 100)).unwrap();
    }
    drop(reporter);
    assert_eq!(folder.read("said"), "other\nslow\nquick\n", "the end waits for what runs");
}

#[test]
fn a_script_that_hangs_holds_up_neither_the_next_nor_the_end() {
    let folder = Folder::new();
    log();
    let hang = folder.script("hang", "echo $$ > @/hang.pid; sleep 100 & wait");
    let next = folder.script("next", "echo next > @/next.said; exit 7");
    let mut one = router("VI_1", vec![]);
    one.notify = Notify { backup: Some(hang.clone()), master: Some(next.clone()), ..Notify::default() };
    let reporter = Reporter::start(Arc::new(Vrrp { routers: vec![one], ..Vrrp::default() })).unwrap();
    reporter.reports().send(changed("VI_1", false, Change::Backup, 100)).unwrap();
    reporter.reports().send(changed("VI_1", false, Change::Master, 100)).unwrap();
    let pid = folder.pid("hang.pid");
    wait_for(LONG, "next script", || (folder.read("next.said") == "next\n").then_some(()));
    let begun = Instant::now();
    drop(reporter);
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(logged(&format!("notify script {} still runs", hang[0])), 1);
    assert_eq!(logged(&format!("notify script {} exited with status 7", next[0])), 1);
    // It goes on, for it may be meant so.
    assert!(!is_gone(pid));
    nix::sys::signal::killpg(pid, Signal::SIGKILL).unwrap();
}

#[test]
fn a_router_that_is_no_longer_configured_is_still_told_that_it_stops() {
    let folder = Folder::new();
    let command = folder.script("said", "echo \"$*\" >> @/argv");
    let mut one = router("VI_1", vec![]);
    one.notify.any = Some(command);
    let reporter = Reporter::start(Arc::new(Vrrp { routers: vec![one], ..Vrrp::default() })).unwrap();
    reporter.reports().send(Report::Plan(Arc::new(Vrrp::default()))).unwrap();
    for _ in 0..2 {
        reporter.reports().send(changed("VI_1", false, Change::Stop, 100)).unwrap();
    }
    drop(reporter);
    assert_eq!(folder.read("argv"), "INSTANCE VI_1 STOP 100\n", "and then forgotten");
}

#[test]
fn a_notify_script_that_cannot_run_is_named() {
    log();
    let missing = format!("/no/such/ek-{}", std::process::id());
    let mut one = router("VI_1", vec![]);
    one.notify.master = Some(vec![missing.clone(), "argument".into()]);
    let reporter = Reporter::start(Arc::new(Vrrp { routers: vec![one], ..Vrrp::default() })).unwrap();
    reporter.reports().send(changed("VI_1", false, Change::Master, 100)).unwrap();
    drop(reporter);
    let line = format!("(VI_1) notify script {missing} argument was not run: {missing} does not exist");
    assert_eq!(logged(&line), 1);
}
