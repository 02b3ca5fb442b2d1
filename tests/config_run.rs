//! `evenkeel run` as an operator meets it: what it refuses, how it reloads, how it ends. Needs root.

mod config_support;

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use config_support::Pair;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_evenkeel");

/// A namespace with a config file and a socket of its own.
struct Bench {
    pair: Pair,
    file: PathBuf,
    socket: PathBuf,
}

impl Bench {
    fn new(name: &str) -> Option<Bench> {
        let pair = Pair::new(name)?;
        pair.in_a("address add 10.0.0.1/24 dev eth0");
        pair.in_b("address add 10.0.0.11/24 dev eth0");
        let base = std::env::temp_dir().join(format!("ek-cfg-{}-{name}", std::process::id()));
        Some(Bench { pair, file: base.with_extension("toml"), socket: base.with_extension("sock") })
    }

    fn write(&self, engine: &str, rest: &str) {
        let text = format!(
            "[engine]\nflows = 1024\nflows_ipv6 = 1024\n{engine}\n[control]\nsocket = \"{}\"\n{rest}",
            self.socket.display()
        );
        std::fs::write(&self.file, text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.pair.a, PROGRAM]).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    fn run_to_end(&self) -> (bool, String) {
        said(&self.command(&["run", "--config", self.file.to_str().unwrap()]).output().unwrap())
    }

    fn ask(&self, command: &str) -> (bool, String) {
        said(&self.command(&[command, "--socket", self.socket.to_str().unwrap()]).output().unwrap())
    }

    fn start(&self) -> Running {
        let log = self.file.with_extension("log");
        let mut command = self.command(&["run", "--config", self.file.to_str().unwrap()]);
        command.stderr(std::fs::File::create(&log).unwrap());
        let running = Running { child: command.spawn().unwrap(), log };
        running.await_log("ready");
        running
    }

    fn has_xdp(&self) -> bool {
        let output = Command::new("ip").args(["-n", &self.pair.a, "link", "show", "eth0"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains("xdp")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for file in [&self.file, &self.socket, &self.file.with_extension("log")] {
            let _ = std::fs::remove_file(file);
        }
    }
}

struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn await_log(&self, word: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let log = std::fs::read_to_string(&self.log).unwrap();
            if log.contains(word) {
                return;
            }
            assert!(Instant::now() < end, "no {word:?} in the log:\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.child.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn said(output: &Output) -> (bool, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

const SOUND: &str = "[[interface]]\nname = \"eth0\"\n[[service]]\nname = \"web\"\naddress = \"10.0.0.80\"\nport = 80\n\
                     server = [{ address = \"10.0.0.11\" }]\n";

#[test]
fn what_cannot_work_is_refused_in_words_and_leaves_nothing() {
    let Some(bench) = Bench::new("refuse") else { return };
    bench.write("cores = [0]\nring_sise = 64", "[[interface]]\nname = \"eth0\"\n[[service]]\naddress = \"x\"\n");
    let (done, text) = bench.run_to_end();
    assert!(!done);
    for part in ["engine.ring_sise: unknown key", "service[0].address", "service[0].port", "did you mean `ring_size`?"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    for (engine, rest, words) in [
        ("cores = [4000]", SOUND, "core 4000"),
        ("cores = [0]", &SOUND.replace("eth0", "eth9"), "eth9"),
        ("cores = [0]\nmode = \"zero-copy\"", SOUND, "zero-copy"),
        ("cores = [0]", &SOUND.replace("name = \"eth0\"", "name = \"eth0\"\nqueues = [7]"), "no receive queue 7"),
    ] {
        bench.write(engine, rest);
        let (done, text) = bench.run_to_end();
        assert!(!done && text.contains(words), "{words}: {text}");
        assert!(!bench.has_xdp() && !bench.socket.exists(), "{words}");
    }
}

#[test]
fn it_reloads_answers_and_ends() {
    let Some(bench) = Bench::new("life") else { return };
    bench.write("cores = [0]", SOUND);
    let mut running = bench.start();
    assert!(bench.has_xdp());
    let (done, text) = bench.ask("status");
    assert!(done && text.contains("10.0.0.80:80") && text.contains("02:00:00:00:0b:01 eth0"), "{text}");

    // A second engine with the same socket.
    let (done, text) = bench.run_to_end();
    assert!(!done && text.contains("already running, pid"), "{text}");
    assert!(bench.has_xdp(), "the first one is untouched");

    // A bad file changes nothing and says all.
    bench.write("cores = [0]", &format!("{SOUND}[[service]]\naddress = \"10.0.0.81\"\n[[sevice]]\n"));
    let (done, text) = bench.ask("reload");
    assert!(
        !done && text.contains("service[1].port") && text.contains("sevice") && text.contains("2 errors"),
        "{text}"
    );
    let (_, text) = bench.ask("status");
    assert!(text.contains("the last reload was refused") && text.contains("generation 1"), "{text}");

    // A good one is taken, and what needs a restart is named.
    bench.write("cores = [0]\nring_size = 1024", &SOUND.replace("port = 80", "port = 81"));
    let (done, text) = bench.ask("reload");
    assert!(done && text.contains("[engine] changed"), "{text}");
    let (_, text) = bench.ask("status");
    assert!(text.contains("10.0.0.80:81") && !text.contains("refused:"), "{text}");

    // By signal, too: many are no problem.
    bench.write("cores = [0]", &SOUND.replace("port = 80", "port = 82"));
    for _ in 0..1000 {
        running.signal(Signal::SIGHUP);
    }
    let end = Instant::now() + Duration::from_secs(5);
    while !bench.ask("status").1.contains("10.0.0.80:82") {
        assert!(Instant::now() < end);
    }
    bench.write("cores = [0]", &SOUND.replace("port = 80", "port = 83"));
    running.signal(Signal::SIGHUP);
    while !bench.ask("status").1.contains("10.0.0.80:83") {
        assert!(Instant::now() < end + Duration::from_secs(5), "a later signal is noticed");
    }

    // A server that goes is noticed, and one that comes back as well.
    bench.pair.in_b("link set eth0 down");
    running.await_log("eth0 is down");
    bench.pair.in_b("link set eth0 up");
    running.await_log("can be reached again");

    assert!(running.end(Signal::SIGTERM).success());
    assert!(!bench.has_xdp() && !bench.socket.exists());
    assert!(bench.ask("status").1.contains("no engine is running"));
}

#[test]
fn a_killed_engine_leaves_an_interface_that_works_and_a_socket_that_is_replaced() {
    let Some(bench) = Bench::new("kill") else { return };
    bench.write("cores = [0]", SOUND);
    let mut running = bench.start();
    assert!(!running.end(Signal::SIGKILL).success());
    let end = Instant::now() + Duration::from_secs(5);
    while bench.has_xdp() {
        assert!(Instant::now() < end, "the program stays on the interface");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(bench.socket.exists());
    assert!(bench.ask("status").1.contains("is gone"));
    let mut running = bench.start();
    assert!(running.end(Signal::SIGINT).success());
}
