//! The words of `evenkeel run`: what start-up got, what only a restart brings, where the log goes.
//!
//! Owns sentences. Changes nothing but a configuration's parts that a running engine cannot take.

use std::io::IsTerminal as _;

use tracing::{info, warn};

use crate::dataplane::io::open::IoReport;
use crate::model::Desired;

/// Logs to stderr, one plain line an event.
pub fn log_to_stderr(level: &str) {
    let filter = tracing_subscriber::EnvFilter::new(level);
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // A second subscriber (in tests) is no error.
    let _ = log.try_init();
}

/// An error with its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Says in plain words what the engine got.
pub fn report(report: &IoReport, desired: &Desired) {
    for (port, facts) in report.interfaces.iter().enumerate() {
        let mode = report.modes.get(port).map_or("no mode", |mode| mode.name());
        let driver = if facts.driver.is_empty() { "no driver name" } else { &facts.driver };
        let queues = report.queues.get(port).map_or(0, Vec::len);
        let of = if queues == 0 { "all queues".to_owned() } else { format!("{queues} of {} queues", facts.rx_queues) };
        let refused: Vec<String> = report.refused.iter().map(|r| format!("{} refused: {}", r.mode, r.reason)).collect();
        let why = if refused.is_empty() { String::new() } else { format!(" ({})", refused.join("; ")) };
        let offloads = [
            ("tx checksum", facts.offloads.tx_checksum),
            ("tso", facts.offloads.tso),
            ("gro", facts.offloads.gro),
            ("lro", facts.offloads.lro),
            ("rx vlan", facts.offloads.rx_vlan),
        ];
        let on: Vec<&str> = offloads.into_iter().filter(|(_, on)| *on == Some(true)).map(|(name, _)| name).collect();
        let on = if on.is_empty() { "none".to_owned() } else { on.join(", ") };
        info!(
            "{}: driver {driver}, {mode} mode{why}, {of}, {}, MTU {}, offloads on: {on}",
            facts.name, facts.mac, facts.mtu
        );
    }
    for worker in &report.workers {
        let sockets: Vec<String> =
            worker.sockets.iter().map(|s| format!("{} queue {}", s.interface, s.queue)).collect();
        let core = desired.engine.cores.get(worker.worker).copied().unwrap_or_default();
        info!(
            "worker {} on core {core}: {}; {} frames of memory in {}",
            worker.worker,
            sockets.join(", "),
            worker.frames,
            worker.pages
        );
    }
    report.warnings.iter().for_each(|warning| warn!("{warning}"));
}

/// Puts the running engine's settings in the place of those that it cannot take, and says which these are.
pub fn needs_restart(running: &Desired, new: &mut Desired) -> Vec<String> {
    let mut all = Vec::new();
    let mut keep = |what: &str, differs: bool| {
        if differs {
            all.push(format!("{what} changed in the file: restart the engine to have it so; the rest is in force"));
        }
    };
    keep("[engine]", running.engine != new.engine);
    keep("[[interface]]", running.interfaces != new.interfaces);
    keep("[control]", running.control_socket != new.control_socket);
    new.engine.clone_from(&running.engine);
    new.interfaces.clone_from(&running.interfaces);
    new.control_socket.clone_from(&running.control_socket);
    all
}
