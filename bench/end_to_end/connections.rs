//! Connections: one HTTP request on each, as many as the machine does, against a real nginx.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::bail;
use evenkeel::lab::client::load::{Load, LoadPlan};

use crate::Programs;
use crate::device::{Device, Kind, WEB_PORT, on_load_core};
use crate::site::{DIRECT, GENERATOR, LOAD_CORE, Placement, SERVER, SINK, Site, VIP, pin};

/// What was measured.
pub struct Connections {
    /// Answered requests a second.
    pub rate: f64,
    pub failed: u64,
    /// Processor time of the device for each, where it is a process that may sleep.
    pub device_us: Option<f64>,
}

pub fn measure(programs: &Programs, kind: Kind, seconds: f64) -> anyhow::Result<Connections> {
    let site = Site::new()?;
    web_server(&site)?;
    crate::quiet::wait();
    let device = Device::start(&site, programs, kind, Placement::Default)?;
    let address = if kind == Kind::Direct { DIRECT } else { VIP };
    let target = SocketAddr::new(address.into(), WEB_PORT);
    let plan = LoadPlan { clients: 16, rate: 1_000_000, ..LoadPlan::new(target) };
    // Threads inherit the affinity of the one that starts them.
    std::thread::scope(|scope| {
        let work = scope.spawn(|| -> anyhow::Result<Connections> {
            pin(0, LOAD_CORE)?;
            let load = Load::start(site.lab.node(GENERATOR)?, &plan)?;
            std::thread::sleep(Duration::from_millis(300));
            let before = (load.tally(), device.cpu_ns(), Instant::now());
            std::thread::sleep(Duration::from_secs_f64(seconds));
            let after = (load.tally(), device.cpu_ns(), Instant::now());
            let last = load.stop();
            if let Some(reason) = last.reasons.first() {
                eprintln!("  a request failed {reason}");
            }
            let between = after.0.since(&before.0);
            let answered = between.answered() as f64;
            let total = |cpu: Option<[f64; 2]>| cpu.map(|[user, system]| user + system);
            let spent = total(before.1).zip(total(after.1)).map(|(before, after)| (after - before) / 1000.0);
            let sleeps = matches!(kind, Kind::EvenkeelAdaptive | Kind::Haproxy);
            Ok(Connections {
                rate: answered / (after.2 - before.2).as_secs_f64(),
                failed: last.failures,
                device_us: spent.filter(|_| sleeps).map(|spent| spent / answered.max(1.0)),
            })
        });
        work.join().unwrap_or_else(|_| bail!("the measuring thread died"))
    })
}

fn web_server(site: &Site) -> anyhow::Result<()> {
    let home = site.lab.path("nginx");
    fs::create_dir_all(&home)?;
    let at = home.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {at}/{name};"))
        .concat();
    fs::write(
        home.join("nginx.conf"),
        format!(
            "daemon off; master_process off; worker_processes 1; pid {at}/pid; error_log {at}/error.log warn;\n\
             events {{ worker_connections 8192; }}\n\
             http {{ access_log off; {temporary} server {{ listen 0.0.0.0:{WEB_PORT} backlog=4096;\n\
             add_header X-Server sink always; location / {{ return 200 \"ok\\n\"; }} }} }}\n"
        ),
    )?;
    let mut command = on_load_core("nginx".as_ref());
    command.arg("-e").arg(home.join("error.log")).arg("-p").arg(&home).arg("-c").arg(home.join("nginx.conf"));
    let process = site.lab.start(SINK, "nginx", &command)?;
    let start = Instant::now();
    let address = SocketAddr::new(SERVER.into(), WEB_PORT);
    site.lab.node(SINK)?.run(|| {
        loop {
            if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
                return Ok(());
            }
            if process.ended().is_some() || start.elapsed() > Duration::from_secs(5) {
                bail!("nginx does not listen: {}", process.last_words(5));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    })?
}
