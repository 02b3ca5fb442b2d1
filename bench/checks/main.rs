//! What thousands of health checks cost: TCP checks of as many addresses, against a listener in a process of its own.
//!
//! `cargo bench --bench checks` prints a table; `-- --seconds 600` measures longer than 60 s, `-- --checks 5000` another number,
//! `-- --interval-ms 1000` another interval; `-- --out FILE` writes one JSON object beside it. Each check connects to an address
//! of its own in 127.0.0.0/8, and is reset, once an interval. What is told is the time on a core of the thread `health` (the
//! connections' whole way through the kernel is in it, since both ends are here), by how much a check began too late at most,
//! and the memory of this process before and after.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel::health::driver::{Checker, Plan, Wiring};
use evenkeel::health::{CheckId, Record};
use evenkeel::model::{Check, CheckKind, CheckTarget, Pace};
use socket2::{Domain, Socket, Type};

/// What is not measured: the first connections, and what grows once.
const WARMUP: Duration = Duration::from_secs(5);

struct Listener(Child);

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if args.first().is_some_and(|arg| arg == "--listen") {
        return listen();
    }
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let number = |name: &str, usual: u64| value(name).map_or(usual, |text| text.parse().expect("a number"));
    let (count, seconds) = (number("--checks", 5000), number("--seconds", 60));
    let interval = Duration::from_millis(number("--interval-ms", 1000));

    let program = std::env::current_exe().expect("this program");
    let child = Command::new(program).arg("--listen").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut listener = Listener(child.expect("this program again"));
    let mut line = String::new();
    let out = listener.0.stdout.take().expect("a pipe");
    BufReader::new(out).read_line(&mut line).expect("the listener's port");
    let port: u16 = line.trim().parse().expect("a port");

    let checker = Checker::start(Wiring { wake: Arc::new(|| {}), egress: None }).expect("threads");
    let address = |at: u64| IpAddr::from(Ipv4Addr::from(0x7f01_0001 + at as u32));
    let pace = Pace { interval, timeout: interval * 2, jitter: interval / 10, warmup: interval, ..Pace::default() };
    let check = |at: u64| Check {
        kind: CheckKind::Tcp,
        target: CheckTarget { address: address(at), port, source: None, through: None },
        pace: pace.clone(),
    };
    checker.configure(Plan { checks: (0..count).map(|at| (CheckId(at), Arc::new(check(at)))).collect() });
    let records: Vec<Arc<Record>> = (0..count).filter_map(|at| checker.record(CheckId(at))).collect();
    let runs = || {
        records.iter().map(|record| record.read()).fold((0, 0, 0), |(passed, failed, unable), status| {
            (passed + status.passed, failed + status.failed, unable + status.unable)
        })
    };

    std::thread::sleep(WARMUP);
    checker.lateness();
    let (before, memory, cpu, begun) = (runs(), resident(), on_core("health"), Instant::now());
    let mut late = Vec::new();
    while begun.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_secs(1));
        late.push(checker.lateness());
    }
    let (passed, cpu) = (begun.elapsed().as_secs_f64(), (on_core("health") - cpu).as_secs_f64());
    let (after, memory_after) = (runs(), resident());
    let rate = (after.0 + after.1 + after.2 - before.0 - before.1 - before.2) as f64 / passed;
    late.sort();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let (worst, usual) =
        (late.last().copied().unwrap_or_default(), late.get(late.len() / 2).copied().unwrap_or_default());

    println!("{count} TCP checks, one each {} ms, for {passed:.0} s", interval.as_millis());
    println!("  checks a second                {rate:>10.0}");
    println!("  failed, unable                 {:>10} {}", after.1 - before.1, after.2 - before.2);
    println!("  thread `health`, of one core   {:>10.1} %", cpu / passed * 100.0);
    println!("  a check                        {:>10.1} us", cpu / (rate * passed) * 1e6);
    println!("  latest start, worst second     {:>10.1} ms", ms(worst));
    println!("  latest start, middle second    {:>10.1} ms", ms(usual));
    println!("  memory before, after           {memory:>10} KiB {memory_after} KiB");
    // Why, where any failed.
    let mut words = BTreeMap::<String, u64>::new();
    for turn in records.iter().flat_map(|record| record.read().history).filter(|turn| !turn.up) {
        *words.entry(turn.words).or_default() += 1;
    }
    words.iter().for_each(|(words, count)| println!("  checks that went down          {count:>10} {words}"));
    if let Some(file) = value("--out") {
        let row = serde_json::json!({
            "checks": count, "seconds": passed, "rate": rate, "failed": after.1 - before.1, "unable": after.2 - before.2,
            "core_percent": cpu / passed * 100.0, "latest_ms": ms(worst), "middle_latest_ms": ms(usual),
            "memory_before_kib": memory, "memory_after_kib": memory_after,
        });
        fs::write(file, row.to_string()).expect("the file of --out can be written");
    }
}

/// Accepts and closes, until its input ends.
fn listen() {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into()).expect("a port");
    // Enough for this process to be kept from running for most of a second.
    socket.listen(4096).expect("it listens");
    let listener = TcpListener::from(socket);
    println!("{}", listener.local_addr().expect("it is bound").port());
    std::io::stdout().flush().expect("a pipe");
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// Time on a core of the thread of this process with that name.
fn on_core(name: &str) -> Duration {
    let tasks = fs::read_dir("/proc/self/task").expect("/proc");
    let of = |task: fs::DirEntry| {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let nanoseconds = read("schedstat").split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0);
        (read("comm").trim() == name).then(|| Duration::from_nanos(nanoseconds))
    };
    tasks.flatten().find_map(of).expect("the thread runs")
}

/// Memory of this process that is in RAM, in KiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
