//! Network namespaces for the tests of the control side.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::fs::File;
use std::process::Command;

/// Two namespaces, `a` with eth0 and `b` with eth0, joined by a veth pair; gone when dropped.
pub struct Pair {
    /// Name of the first.
    pub a: String,
    /// Name of the second.
    pub b: String,
}

impl Pair {
    /// Builds it; nothing without root.
    pub fn new(name: &str) -> Option<Pair> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let prefix = format!("ek-cfg-{}-{name}", std::process::id());
        let pair = Pair { a: format!("{prefix}-a"), b: format!("{prefix}-b") };
        ip(&format!("netns add {}", pair.a));
        ip(&format!("netns add {}", pair.b));
        ip(&format!("-n {} link add eth0 type veth peer name eth0 netns {}", pair.a, pair.b));
        pair.in_a("link set eth0 address 02:00:00:00:0a:01 up");
        pair.in_b("link set eth0 address 02:00:00:00:0b:01 up");
        Some(pair)
    }

    /// Runs `ip` in `a`.
    pub fn in_a(&self, command: &str) {
        ip(&format!("-n {} {command}", self.a));
    }

    /// Whether a command works in `a`: not every kernel has every type of interface.
    pub fn can(&self, command: &str) -> bool {
        let arguments = format!("-n {} {command}", self.a);
        let done = Command::new("ip").args(arguments.split(' ')).output().unwrap().status.success();
        if !done {
            eprintln!("this kernel cannot: ip {command}");
        }
        done
    }

    /// Runs `ip` in `b`.
    pub fn in_b(&self, command: &str) {
        ip(&format!("-n {} {command}", self.b));
    }

    /// Runs a closure on a thread inside namespace `a`.
    pub fn enter<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        Pair::inside(&self.a, run)
    }

    /// Runs a closure on a thread inside namespace `b`.
    pub fn enter_b<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        Pair::inside(&self.b, run)
    }

    fn inside<T: Send>(name: &str, run: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let namespace = File::open(format!("/run/netns/{name}")).unwrap();
                nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                run()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for namespace in [&self.a, &self.b] {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
