//! Workers for people: what `status` says of them, and their rings.
//!
//! Owns the layout. Pure.

use crate::control::status::table::Table;
use crate::control::status::{Status, render_workers};

/// The workers and their rings.
pub fn render(status: &Status) -> String {
    let mut out = render_workers(status);
    let mut table = Table::new(&[
        ">Worker",
        ">Batches",
        ">Sleeps",
        ">Late",
        ">Send ring full",
        ">Send calls",
        ">Receive calls",
        ">To the kernel",
        ">Flows timed out",
        ">Gave way",
        ">Directory full",
        "<Rings",
    ]);
    for worker in &status.workers {
        let rings = status.interfaces.iter().flat_map(|interface| {
            let mine = interface.queues.iter().filter(|queue| queue.worker == worker.worker);
            mine.map(|queue| format!("{}:{} {}", interface.name, queue.queue, queue.mode))
        });
        let numbers = [
            worker.batches,
            worker.sleeps,
            worker.rx_ring_drops,
            worker.tx_full,
            worker.tx_kicks,
            worker.rx_wakeups,
            worker.passed,
            worker.expired,
            worker.evicted,
            worker.directory_full,
        ];
        let mut cells = vec![worker.worker.to_string()];
        cells.extend(numbers.iter().map(u64::to_string));
        cells.push(rings.collect::<Vec<_>>().join(", "));
        table.cells(cells);
    }
    out.push_str(&table.render());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::status::{InterfaceStatus, QueueStatus, WorkerStatus};
    use crate::model::IoMode;

    #[test]
    fn each_worker_has_its_rings() {
        let queue = |queue, worker| QueueStatus { queue, worker, mode: IoMode::Copy };
        let interface = |name: &str| InterfaceStatus {
            name: name.to_owned(),
            queues: vec![queue(0, 0), queue(1, 1)],
            ..InterfaceStatus::default()
        };
        let worker =
            |worker| WorkerStatus { worker, core: worker + 2, running: true, expired: 7, ..WorkerStatus::default() };
        let status = Status {
            interfaces: vec![interface("eth0"), interface("eth1")],
            workers: vec![worker(0), worker(1)],
            ..Status::default()
        };
        let text = render(&status);
        assert!(text.starts_with("Worker  Core  Load"), "{text}");
        assert!(
            text.contains("  eth0:0 copy, eth1:0 copy\n") && text.contains("  eth0:1 copy, eth1:1 copy\n"),
            "{text}"
        );
    }
}
