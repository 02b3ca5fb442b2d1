//! The Debian package and its service under the real systemd, as process 1 of a machine in namespaces: from its installation to its purge.

mod lab_support;

use std::fs;
use std::path::Path;
use std::process::Command;

use lab_support::machine::{Machine, machine_is_possible};
use lab_support::program;
use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What the engine keeps after its start, as bits of capabilities(7): chown 0, kill 5, setgid 6, setuid 7, net_bind_service 10,
/// net_admin 12, net_raw 13, ipc_lock 14, sys_nice 23, bpf 39.
const KEPT: u64 = 1 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 10 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 23 | 1 << 39;

/// What only loading the filter needs.
const PERFMON: u64 = 1 << 38;

/// One interface to a world in which there are a client and a real server; a virtual router whose address is the kernel's.
const CONFIG: &str = r#"
[engine]
flows = 4096

[web]
address = ["127.0.0.1"]

[[interface]]
name = "eth0"

[[virtual_router]]
name = "own"
interface = "eth0"
vrid = 7
version = 3
interval = 0.1
place = "kernel"
address = ["10.9.0.200/24"]

[[service]]
name = "web"
address = "10.9.0.100"
port = 80
method = "full-nat"
local_addresses = ["10.9.0.50"]
server = [{ address = "10.9.0.20" }]

[[service.check]]
type = "script"
command = "/srv/lab/check.sh"
user = "nobody"
interval = 0.5
"#;

const MORE: &str = r#"
[[service]]
name = "second"
address = "10.9.0.101"
port = 80
method = "full-nat"
local_addresses = ["10.9.0.50"]
server = [{ address = "10.9.0.20" }]
"#;

/// Good only as the user that is wanted, under the filter and without a way back.
const CHECK: &str = "#!/bin/sh
[ \"$(id -un)\" = nobody ] && [ \"$(id -gn)\" = nogroup ] &&
    grep -q '^NoNewPrivs:.1$' /proc/self/status && grep -q '^Seccomp:.2$' /proc/self/status &&
    grep -q '^CapEff:.0000000000000000$' /proc/self/status && ! unshare --user true 2>/dev/null
";

const NGINX: &str = "error_log stderr; pid /run/world.pid; events {}
http { access_log off; server { listen 10.9.0.20:80; return 200 'served\\n'; } }
";

/// A client's request, in the world; says what was answered.
const ASK: &str = r#"ip netns exec world timeout 2 bash -c 'exec 3<>/dev/tcp/ADDRESS/80; printf "GET / HTTP/1.0\r\n\r\n" >&3; grep served <&3'"#;

const WORLD: &str = "ip netns add world
ip link add eth0 type veth peer name wan netns world
ip address add 10.9.0.1/24 dev eth0; ip link set lo up; ip link set eth0 up
ip -n world address add 10.9.0.10/24 dev wan; ip -n world address add 10.9.0.20/24 dev wan
ip -n world link set lo up; ip -n world link set wan up
ip netns exec world ethtool -K wan tx off > /dev/null; ethtool -K eth0 tx off > /dev/null
ip netns exec world nginx -c /srv/lab/nginx.conf";

fn make_package(into: &Path) {
    let made = Command::new(format!("{ROOT}/packaging/deb/build.sh"))
        .arg(program())
        .arg(into)
        // The package is read once: quickly made is better than small.
        .env("DEB_COMPRESSION", "gzip")
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .output()
        .expect("build.sh");
    assert!(
        made.status.success(),
        "{}{}",
        String::from_utf8_lossy(&made.stdout),
        String::from_utf8_lossy(&made.stderr)
    );
}

fn start(name: &str) -> Machine {
    Machine::start(name, |files| {
        make_package(files);
        for (file, text) in [("evenkeel.toml", CONFIG), ("check.sh", CHECK), ("nginx.conf", NGINX), ("more.toml", MORE)]
        {
            fs::write(files.join(file), text).expect("a file");
        }
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(files.join("check.sh"), mode).expect("a program");
    })
}

/// Files of the machine that a package could leave.
fn files(machine: &Machine) -> Vec<String> {
    let all = machine.must(
        "find /etc /usr /opt /srv /lib /var /run /root -xdev \\( -path /var/log -o -path /var/lib/dpkg -o -path /var/cache -o -path /run/systemd \
         -o -path /run/log -o -path /var/tmp -o -path /var/lib/systemd \\) -prune -o -print | LC_ALL=C sort",
    );
    all.lines().map(str::to_owned).collect()
}

fn main_pid(machine: &Machine) -> String {
    machine.must("systemctl show -P MainPID evenkeel")
}

fn status_line(machine: &Machine) -> String {
    machine.must("systemctl show -P StatusText evenkeel")
}

fn ask(address: &str) -> String {
    ASK.replace("ADDRESS", address)
}

fn serves(machine: &Machine, why: &str) {
    machine.wait(&format!("an answer through the engine {why}"), &ask("10.9.0.100"));
}

/// The engine's own events in the journal: priority and text.
fn events(machine: &Machine) -> Vec<(u64, String)> {
    let lines = machine.must("journalctl -u evenkeel SYSLOG_IDENTIFIER=evenkeel -o json --no-pager");
    let parse = |line: &str| -> Option<(u64, String)> {
        let entry: Value = serde_json::from_str(line).ok()?;
        let priority = entry["PRIORITY"].as_str()?.parse().ok()?;
        Some((priority, entry["MESSAGE"].as_str()?.to_owned()))
    };
    lines.lines().filter_map(parse).collect()
}

fn logged(machine: &Machine, priority: u64, part: &str) -> bool {
    events(machine).iter().any(|(level, text)| *level == priority && text.contains(part))
}

/// Waits until another process than `old` is ready, and returns it.
fn replaced(machine: &Machine, old: &str, why: &str) -> String {
    machine.until(&format!("another engine {why}"), |machine| {
        let pid = main_pid(machine);
        let active = machine.run("systemctl is-active evenkeel").good;
        (active && pid != old && pid != "0").then_some(pid)
    })
}

#[test]
fn the_package_lives_and_dies_under_systemd() {
    if !machine_is_possible() {
        return;
    }
    let machine = start("service");
    let before = files(&machine);

    let said = machine.must("dpkg --no-triggers -i /srv/lab/evenkeel_*.deb");
    assert!(!said.contains("does not start"), "{said}{}", machine.must("journalctl -u evenkeel --no-pager"));
    starts_empty(&machine);
    machine.must(WORLD);
    machine.must("cp /srv/lab/evenkeel.toml /etc/evenkeel/evenkeel.toml && systemctl restart evenkeel");
    serves(&machine, "after its configuration");
    machine.wait("the virtual router's address", "ip address show dev eth0 | grep -w 10.9.0.200/24");
    gave_up(&machine);
    reloads(&machine);
    logs(&machine);
    comes_back(&machine);
    restarts(&machine);
    upgrades(&machine);

    let said = machine.must("DEBIAN_FRONTEND=noninteractive dpkg --no-triggers -r evenkeel");
    assert!(!machine.run("systemctl is-active evenkeel").good, "{said}");
    assert!(!machine.run("pidof evenkeel").good, "it still runs");
    let link = machine.must("ip address show dev eth0");
    assert!(!link.contains("10.9.0.200") && !link.contains("xdp"), "{link}");
    machine.must("test -e /etc/evenkeel/evenkeel.toml && ! test -e /usr/bin/evenkeel");
    // Installed again it serves again, with the configuration of before.
    machine.must("dpkg --no-triggers -i /srv/lab/evenkeel_*.deb && systemctl is-enabled evenkeel");
    serves(&machine, "after it was installed again");
    machine.must("dpkg --no-triggers -P evenkeel");
    assert_eq!(machine.must("find /var/lib/systemd -name '*evenkeel*'"), "");
    let after = files(&machine);
    let left: Vec<&String> = after
        .iter()
        .filter(|file| before.binary_search(file).is_err())
        .filter(|file| {
            !file.starts_with("/run/netns") && *file != "/run/world.pid" && !file.starts_with("/var/lib/nginx")
        })
        .collect();
    assert!(left.is_empty(), "the purge leaves {left:?}");
    let gone: Vec<&String> = before.iter().filter(|file| after.binary_search(file).is_err()).collect();
    assert!(gone.is_empty(), "the purge took {gone:?}");
}

/// An engine without a configuration runs, and says what to do.
fn starts_empty(machine: &Machine) {
    machine.must("systemctl is-active evenkeel && systemctl is-enabled evenkeel");
    assert_eq!(status_line(machine), "ready, and nothing is configured yet");
    let shown = machine.must("systemctl status --no-pager evenkeel");
    assert!(shown.contains("Status: \"ready, and nothing is configured yet\""), "{shown}");
    assert!(
        events(machine).iter().any(|(_, text)| text.contains("nothing is configured yet")),
        "{:?}",
        events(machine)
    );
    machine.must("evenkeel status > /dev/null");
    machine.must("man -w evenkeel >/dev/null 2>&1 || test -e /usr/share/man/man1/evenkeel.1.gz");
    machine.must("evenkeel check /etc/evenkeel/evenkeel.toml");
    machine.must("/usr/lib/evenkeel/ipvsadm -L -n > /dev/null");
    machine.must(
        "for file in /usr/share/doc/evenkeel/examples/*.toml; do evenkeel check $file > /dev/null || exit 1; done",
    );
}

/// Every thread is confined alike.
fn gave_up(machine: &Machine) {
    let pid = main_pid(machine);
    let statuses = machine.must(&format!("cat /proc/{pid}/task/*/status"));
    let all = |key: &str| -> Vec<&str> {
        statuses.lines().filter_map(|line| line.strip_prefix(key)).map(str::trim).collect()
    };
    let threads = all("Name:").len();
    assert!(threads >= 4, "{statuses}");
    assert_eq!(all("NoNewPrivs:"), vec!["1"; threads]);
    assert_eq!(all("Seccomp:"), vec!["2"; threads]);
    for set in ["CapEff:", "CapPrm:"] {
        for bits in all(set) {
            let bits = u64::from_str_radix(bits, 16).expect("a set of capabilities");
            assert_eq!(bits & !(KEPT | PERFMON), 0, "{set} {bits:x}\n{statuses}");
        }
    }
    // Threads that hand frames to the kernel are older than the moment at which it goes (ADR 0028).
    let main = machine.must(&format!("cat /proc/{pid}/status"));
    let effective = main.lines().find_map(|line| line.strip_prefix("CapEff:")).map(str::trim);
    let effective = u64::from_str_radix(effective.unwrap_or_default(), 16).expect("a set of capabilities");
    assert_eq!(effective, KEPT, "{effective:x}");
    for set in ["CapInh:", "CapAmb:"] {
        assert!(all(set).iter().all(|bits| u64::from_str_radix(bits, 16) == Ok(0)), "{statuses}");
    }
    // What scripts could gain at most: the same and PERFMON.
    for bits in all("CapBnd:") {
        assert_eq!(u64::from_str_radix(bits, 16).expect("a set") & !(KEPT | PERFMON), 0, "{statuses}");
    }
    assert!(logged(machine, 6, "privileges: kept"), "{:?}", events(machine));
    assert!(logged(machine, 6, "system calls:"), "{:?}", events(machine));
}

/// A good file is taken, a bad one is refused with its words where an administrator looks.
fn reloads(machine: &Machine) {
    let pid = main_pid(machine);
    machine.must("cat /srv/lab/more.toml >> /etc/evenkeel/evenkeel.toml && systemctl reload evenkeel");
    machine.wait("an answer of the service that came", &ask("10.9.0.101"));
    assert_eq!(status_line(machine), "ready: 2 services, all with usable servers; virtual routers: 1 master, 0 backup");
    machine.must("echo 'portt = 1' >> /etc/evenkeel/evenkeel.toml");
    let refused = machine.run("systemctl reload evenkeel");
    assert!(!refused.good, "a file with a mistake was taken");
    machine.wait("the words in the journal", "journalctl -u evenkeel --no-pager | grep 'did you mean `port`'");
    machine.wait("the line of state", "systemctl show -P StatusText evenkeel | grep 'the last reload was refused'");
    machine.must("systemctl is-active evenkeel");
    machine.must("cp /srv/lab/evenkeel.toml /etc/evenkeel/evenkeel.toml && systemctl reload evenkeel");
    assert_eq!(status_line(machine), "ready: 1 service, all with usable servers; virtual routers: 1 master, 0 backup");
    assert_eq!(main_pid(machine), pid, "a reload is no restart");
    serves(machine, "after reloads");
}

fn logs(machine: &Machine) {
    assert!(events(machine).iter().all(|(priority, _)| *priority < 7), "{:?}", events(machine));
    let said = machine.must("evenkeel log debug --for 10m");
    assert!(said.contains("log: debug, for "), "{said}");
    machine.must("evenkeel status > /dev/null");
    machine.until("a line for who looks closely", |machine| logged(machine, 7, "asked: status").then_some(()));
    machine.must("evenkeel log info");
    assert_eq!(machine.must("evenkeel log"), "log: info, as at start");
    let said = machine.run("evenkeel log lwod");
    assert!(!said.good && said.text.contains("expected one of"), "{}", said.text);
    assert!(
        logged(machine, 3, "") || logged(machine, 4, ""),
        "the refused reload has a priority: {:?}",
        events(machine)
    );
}

/// It is back after it died, and after it stood still.
fn comes_back(machine: &Machine) {
    let first = main_pid(machine);
    machine.must(&format!("kill -9 {first}"));
    let second = replaced(machine, &first, "after SIGKILL");
    serves(machine, "after SIGKILL");
    machine.wait("the virtual router's address", "ip address show dev eth0 | grep -w 10.9.0.200/24");
    machine.must(&format!("kill -STOP {second}"));
    replaced(machine, &second, "after it stood still");
    serves(machine, "after it stood still");
    machine.must("journalctl -u evenkeel --no-pager | grep 'Watchdog timeout'");
    assert_eq!(machine.must("systemctl show -P NRestarts evenkeel"), "2");
}

/// `systemctl restart` of an appliance without a peer: how long clients wait is printed, not judged.
fn restarts(machine: &Machine) {
    let asks = format!(
        "last=$(date +%s%N); gap=0; (sleep 0.3; systemctl restart evenkeel; touch /run/restarted) & \
         until [ -e /run/restarted ] && [ $(($(date +%s%N) - $(stat -c %Y /run/restarted)000000000)) -gt 3000000000 ]; do \
         if {} > /dev/null 2>&1; then now=$(date +%s%N); [ $((now - last)) -gt $gap ] && gap=$((now - last)); last=$now; fi; done; \
         rm /run/restarted; echo $((gap / 1000000))",
        ask("10.9.0.100").replace("timeout 2", "timeout 0.2")
    );
    let old = main_pid(machine);
    let gap = machine.must(&asks);
    eprintln!("systemctl restart alone: at most {gap} ms from one answer to the next");
    assert_ne!(main_pid(machine), old);
    serves(machine, "after a restart");
}

fn upgrades(machine: &Machine) {
    let old = main_pid(machine);
    let config = machine.must("sha256sum /etc/evenkeel/evenkeel.toml");
    machine.must("dpkg --no-triggers -i /srv/lab/evenkeel_*.deb");
    assert_eq!(machine.must("sha256sum /etc/evenkeel/evenkeel.toml"), config);
    replaced(machine, &old, "after the upgrade");
    serves(machine, "after the upgrade");
}

/// What `realserver prepare --persist` writes puts a real server's settings and addresses back after a start, and `undo` takes it away.
#[test]
fn a_real_server_is_prepared_again_when_its_machine_starts() {
    if !machine_is_possible() {
        return;
    }
    let machine = Machine::start("realserver", |files| {
        fs::copy(program(), files.join("evenkeel")).expect("a copy");
    });
    let realserver = |what: &str| format!("/srv/lab/evenkeel realserver {what}");
    let now = || {
        machine.must("sysctl -n net.ipv4.conf.all.arp_ignore net.ipv4.conf.all.arp_announce; ip -br address show lo")
    };
    let verify = realserver("verify --vip 192.0.2.10 --method dr");
    let before = now();
    machine.must(&realserver("prepare --vip 192.0.2.10 --method dr --persist"));
    let prepared = now();
    assert!(prepared.contains("192.0.2.10/32"), "{prepared}");
    machine.must(&verify);

    let unit = "evenkeel-realserver.service";
    machine.must(&format!("systemd-analyze verify /etc/systemd/system/{unit}"));
    machine.must(&format!("systemctl daemon-reload && systemctl is-enabled {unit}"));
    // All that the kernel forgets when it starts anew; then what systemd does when it starts.
    machine.must("ip address del 192.0.2.10/32 dev lo && sysctl -w net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.arp_announce=0");
    assert!(!machine.run(&verify).good);
    machine.must("/lib/systemd/systemd-sysctl /etc/sysctl.d/60-evenkeel-realserver.conf && sysctl -n net.ipv4.conf.all.arp_ignore | grep -qx 1");
    machine.must(&format!("systemctl start {unit}"));
    assert_eq!(now(), prepared);
    machine.must(&verify);

    machine.must(&realserver("undo"));
    assert_eq!(now(), before);
    machine.must("! find /etc/systemd /etc/sysctl.d -name '*evenkeel-realserver*' | grep .");
}

/// systemd's own judgement of the unit: 0 is the least exposed, 10 the most; OK ends at 5.
#[test]
fn the_unit_exposes_little() {
    if !machine_is_possible() {
        return;
    }
    let judged = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", "--threshold=45"])
        .arg(format!("{ROOT}/packaging/evenkeel.service"))
        .output()
        .expect("systemd-analyze");
    let said = String::from_utf8_lossy(&judged.stdout);
    eprintln!("{}", said.lines().last().unwrap_or_default());
    assert!(judged.status.success(), "{said}{}", String::from_utf8_lossy(&judged.stderr));
}

/// The same inputs make the same bytes.
#[test]
fn the_package_is_reproducible() {
    if !machine_is_possible() {
        return;
    }
    let folder = std::env::temp_dir().join(format!("evenkeel-package-{}", std::process::id()));
    let made = ["one", "two"].map(|name| {
        let into = folder.join(name);
        make_package(&into);
        let package = fs::read_dir(&into).expect("a folder").next().expect("a package").expect("a package").path();
        (package.file_name().map(std::ffi::OsStr::to_owned), fs::read(package).expect("a package"))
    });
    let _ = fs::remove_dir_all(&folder);
    assert!(made[0] == made[1], "two packages of one program differ");
}
