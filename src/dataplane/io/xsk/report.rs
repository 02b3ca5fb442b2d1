//! What opening AF_XDP sockets led to, in values and words: reports, refusals, errors, and where the frames are.
//!
//! Pure: owns no socket and asks nothing.

use std::io;

use super::Pages;
use crate::dataplane::io::PortIndex;
use crate::model::IoMode;

/// A mode that was tried, or passed over, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Refusal {
    /// The mode.
    pub mode: IoMode,
    /// In plain words.
    pub reason: String,
}

/// One socket as it was bound.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SocketReport {
    /// Port index.
    pub port: PortIndex,
    /// Interface name.
    pub interface: String,
    /// Queue.
    pub queue: u32,
    /// Mode obtained.
    pub mode: IoMode,
    /// Frames that one copy-mode kick can send, where the kernel lets it be set.
    pub tx_budget: Option<u32>,
}

/// What a worker got.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct OpenReport {
    /// Worker number.
    pub worker: usize,
    /// Its sockets.
    pub sockets: Vec<SocketReport>,
    /// Better modes that could not be had.
    pub refused: Vec<Refusal>,
    /// Pages of the frame memory.
    pub pages: Pages,
    /// Frames in all.
    pub frames: u32,
    /// Most bytes of a frame that fits, Ethernet header included.
    pub max_frame: u32,
    /// Busy polling: `None` not asked for, `Some(None)` on, `Some(Some(reason))` refused.
    pub busy_poll: Option<Option<String>>,
}

/// Why a worker has no AF_XDP sockets.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The request makes no sense.
    #[error("worker {worker}: {reason}")]
    Settings {
        /// Worker number.
        worker: usize,
        /// What is wrong.
        reason: String,
    },
    /// No memory for the frames.
    #[error("worker {worker}: {bytes} bytes of frame memory{}", if *.huge { " in reserved huge pages (vm.nr_hugepages)" } else { "" })]
    Memory {
        /// Worker number.
        worker: usize,
        /// Bytes that were asked for.
        bytes: u64,
        /// Whether reserved huge pages were demanded.
        huge: bool,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// No mode that the settings allow could be had.
    #[error("worker {worker}: no AF_XDP mode could be had: {}", reasons(.refused))]
    NoMode {
        /// Worker number.
        worker: usize,
        /// Each mode and why not.
        refused: Vec<Refusal>,
    },
}

fn reasons(refused: &[Refusal]) -> String {
    let all: Vec<_> = refused.iter().map(|refusal| format!("{}: {}", refusal.mode, refusal.reason)).collect();
    all.join("; ")
}

/// Where all frames of a worker are, in numbers. They add up to the total, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameAccount {
    /// On the free list.
    pub free: u64,
    /// In fill and RX rings.
    pub rx: u64,
    /// In the hands of the worker.
    pub held: u64,
    /// In TX and completion rings.
    pub tx: u64,
    /// All there are.
    pub total: u64,
}

impl FrameAccount {
    /// Whether no frame is lost or there twice.
    pub fn balanced(&self) -> bool {
        self.free + self.rx + self.held + self.tx == self.total
    }
}
