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
        let mut words: Vec<&str> = command.split(' ').collect();
        words.extend(["--socket", self.socket.to_str().unwrap()]);
        said(&self.command(&words).output().unwrap())
    }

    /// Sends a UDP packet to the service from each of so many ports of a client.
    fn send_from_ports(&self, ports: std::ops::Range<u16>) {
        self.pair.enter_b(|| {
            let interface = pnet::datalink::interfaces().into_iter().find(|i| i.name == "eth0").unwrap();
            let channel = pnet::datalink::channel(&interface, pnet::datalink::Config::default()).unwrap();
            let pnet::datalink::Channel::Ethernet(mut sender, _) = channel else { panic!("not Ethernet") };
            for port in ports {
                let mut frame = Vec::new();
                etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0xb, 1], [2, 0, 0, 0, 0xa, 1])
                    .ipv4([198, 51, 100, 7], [10, 0, 0, 80], 64)
                    .udp(port, 80)
                    .write(&mut frame, b"question")
                    .unwrap();
                sender.send_to(&frame, None).unwrap().unwrap();
                if port % 32 == 0 {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        });
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

impl Bench {
    /// What `ip maddr` shows of eth0.
    fn groups(&self) -> String {
        let output = Command::new("ip").args(["-n", &self.pair.a, "maddr", "show", "dev", "eth0"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn set(&self, setting: &str) {
        let arguments = ["netns", "exec", &self.pair.a, "sysctl", "-qw", setting];
        assert!(Command::new("ip").args(arguments).status().unwrap().success(), "{setting}");
    }
}

#[test]
fn the_groups_of_owned_ipv6_addresses_are_joined_and_left() {
    let Some(bench) = Bench::new("groups") else { return };
    let services = |addresses: &[&str]| {
        let service = |address: &&str| format!("[[service]]\naddress = \"{address}\"\nport = 80\n");
        format!("[[interface]]\nname = \"eth0\"\n{}", addresses.iter().map(service).collect::<String>())
    };
    let gateway = "[[address]]\naddress = \"2001:db8::3:4567\"\n";
    bench.write("cores = [0]", &(services(&["2001:db8::1:2345"]) + gateway));
    assert!(!bench.groups().contains("33:33:ff:01:23:45"), "not before");
    let mut running = bench.start();
    let groups = bench.groups();
    assert!(groups.contains("33:33:ff:01:23:45") && groups.contains("33:33:ff:03:45:67"), "{groups}");
    bench.write("cores = [0]", &services(&["2001:db8::2:3456"]));
    assert!(bench.ask("reload").0);
    assert!(bench.groups().contains("33:33:ff:02:34:56"), "at once");
    let end = Instant::now() + Duration::from_secs(5);
    while bench.groups().contains("33:33:ff:01:23:45") || bench.groups().contains("33:33:ff:03:45:67") {
        assert!(Instant::now() < end, "they are left when no worker needs them any more: {}", bench.groups());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(running.end(Signal::SIGTERM).success());
    assert!(!bench.groups().contains("33:33:ff:02:34:56"), "gone");
}

#[test]
fn a_kernel_that_would_act_on_the_same_packets_is_refused() {
    let Some(bench) = Bench::new("kernel") else { return };
    let nat = SOUND.replace("port = 80", "port = 80\nmethod = \"nat\"");
    let full = SOUND.replace("port = 80", "port = 80\nmethod = \"full-nat\"\nlocal_addresses = \"10.0.0.1\"");
    bench.set("net.ipv4.ip_forward=1");
    bench.write("cores = [0]\nmode = \"af-packet\"", &nat);
    let (done, text) = bench.run_to_end();
    assert!(!done && text.contains("sysctl -w net.ipv4.ip_forward=0"), "{text}");
    bench.set("net.ipv4.ip_forward=0");
    bench.write("cores = [0]\nmode = \"af-packet\"", &full);
    let (done, text) = bench.run_to_end();
    assert!(!done && text.contains("10.0.0.1, which it has"), "{text}");
    // Else it starts, says what is left to do, and refuses a reload that needs another kernel.
    bench.write("cores = [0]\nmode = \"af-packet\"", &nat);
    let mut running = bench.start();
    running.await_log("net.ipv4.ip_forward is 0");
    bench.write("cores = [0]\nmode = \"af-packet\"", &full);
    let (done, text) = bench.ask("reload");
    assert!(!done && text.contains("10.0.0.1, which it has"), "{text}");
    assert!(running.end(Signal::SIGTERM).success());
}

#[test]
fn methods_and_a_local_server_are_shown() {
    let Some(bench) = Bench::new("methods") else { return };
    let text = "[[interface]]\nname = \"eth0\"\n[[service]]\naddress = \"10.0.0.80\"\nport = 80\n\
                local_addresses = [\"10.0.0.101\", \"10.0.0.102\"]\nserver = [\n\
                { address = \"10.0.0.11\", port = 8080, method = \"nat\" },\n\
                { address = \"10.0.0.11\", port = 8081, method = \"full-nat\" },\n\
                { address = \"10.0.0.11\", method = \"gue\" },\n{ address = \"10.0.0.1\" }]\n";
    bench.write("cores = [0]\nlocal_ports = \"1000-1999\"", text);
    let mut running = bench.start();
    let (_, text) = bench.ask("status");
    for (server, how) in [
        ("10.0.0.11:8080", "Masq"),
        ("10.0.0.11:8081", "FullNat"),
        ("10.0.0.11:80 ", "Tunnel gue"),
        ("10.0.0.1:80 ", "Local"),
        ("10.0.0.1:80 ", "this machine"),
        ("warning: server 10.0.0.1 of", "ip address add 10.0.0.80/32 dev lo"),
    ] {
        assert!(text.lines().any(|line| line.contains(server) && line.contains(how)), "{server} {how}:\n{text}");
    }
    let arguments = ["status", "--json", "--socket", bench.socket.to_str().unwrap()];
    let (_, text) = said(&bench.command(&arguments).output().unwrap());
    let status: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(status["local_ports"], serde_json::json!({ "addresses": 2, "in_use": 0, "capacity": 2000 }));
    assert_eq!(status["workers"][0]["local_port_capacity"], 2000);
    let servers = status["services"][0]["servers"].as_array().unwrap();
    let methods: Vec<&str> = servers.iter().filter_map(|server| server["method"].as_str()).collect();
    assert_eq!(methods, ["nat", "full-nat", "gue", "local"]);
    assert_eq!((&servers[0]["port"], servers[2].get("port")), (&serde_json::json!(8080), None));
    // The kernel has the address now: nothing is left to do.
    bench.pair.in_a("address add 10.0.0.80/32 dev lo");
    let end = Instant::now() + Duration::from_secs(5);
    while bench.ask("status").1.contains("ip address add") {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(running.end(Signal::SIGTERM).success());
}

#[test]
fn flows_are_listed_counted_and_ended_while_it_runs() {
    let Some(bench) = Bench::new("flows") else { return };
    bench.write("cores = [0]", &SOUND.replace("port = 80", "port = 80\nprotocol = \"udp\""));
    let mut running = bench.start();
    // The second packet proves a flow: half of them are.
    bench.send_from_ports(1000..1600);
    bench.send_from_ports(1000..1300);
    let end = Instant::now() + Duration::from_secs(10);
    while bench.ask("flows --count") != (true, "600\n".to_owned()) || bench.ask("flows --proven --count").1 != "300\n" {
        assert!(Instant::now() < end, "{:?}", bench.ask("flows --count"));
    }
    let (done, text) = bench.ask("flows --client 198.51.100.0/24 --limit 5");
    let lines: Vec<&str> = text.lines().collect();
    assert!(done && lines.len() == 7, "{text}");
    assert_eq!(
        lines[..2],
        ["IPVS connection entries", "pro expire state       source             virtual            destination"]
    );
    for line in &lines[2..] {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((words[0], words[2], words[4], words[5]), ("UDP", "UDP", "10.0.0.80:80", "10.0.0.11:80"));
        assert!(words[1].starts_with("04:") && words[3].starts_with("198.51.100.7:1"), "{line}");
    }
    let (done, text) = bench.ask("flows --unproven --json");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let flows = json["flows"].as_array().unwrap();
    let mut clients: Vec<&str> = flows.iter().map(|flow| flow["client"].as_str().unwrap()).collect();
    clients.sort_unstable();
    clients.dedup();
    assert!(done && clients.len() == 300 && json["matched"] == 300, "{text}");
    assert!(flows.iter().all(|flow| flow["service"] == "web" && flow["proven"] == false && flow["worker"] == 0));
    for (question, part) in [
        ("flows --service wbe", "did you mean `web`?"),
        ("flows --clear", "would end every flow"),
        ("flows --client 10.0.0.0/33", "expected an address or a network"),
    ] {
        let (done, text) = bench.ask(question);
        assert!(!done && text.contains(part), "{question}: {text}");
    }
    assert_eq!(bench.ask("flows --clear --unproven"), (true, "300 flows ended\n".to_owned()));
    assert_eq!(bench.ask("flows --count"), (true, "300\n".to_owned()));
    assert_eq!(bench.ask("flows --clear --service web --json"), (true, "{\"matched\":300}\n".to_owned()));
    assert_eq!(bench.ask("flows --json"), (true, "{\"flows\":[\n],\"matched\":0}\n".to_owned()));
    assert!(running.end(Signal::SIGTERM).success());
}
