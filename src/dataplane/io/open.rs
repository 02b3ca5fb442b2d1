//! From the settings to running I/O: facts, filters, sockets, in the order that drivers want, in the best mode allowed.
//!
//! Owns the ladder of modes and the dealing of queues to workers. Never decides what the filters take: they are handed
//! over empty, so that everything still passes to the kernel.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::PortIndex;
use super::af_packet::{AfPacketError, AfPacketIo, PacketBinding};
use super::facts::{FactsError, InterfaceFacts};
use super::xsk::pass::Target;
use super::xsk::{OpenError, OpenReport, Passer, PortBinding, Refusal, XskIo};
use crate::dataplane::access::Table;
use crate::dataplane::xdp::{Filter, FilterCounters, FilterError, FilterTable, Matcher, XdpAttach};
use crate::model::{EngineSettings, Interface, IoMode};

/// The I/O of one worker.
pub enum WorkerIo {
    /// AF_XDP in any of its modes.
    Xsk(Box<XskIo>),
    /// The AF_PACKET fallback.
    AfPacket(Box<AfPacketIo>),
}

const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<WorkerIo>();
    is_send::<Gate>();
};

/// What decides, for one interface, which frames are taken.
pub enum Gate {
    /// The XDP program.
    Xdp(Box<Filter>),
    /// The userspace matcher of the AF_PACKET fallback, and what it takes now.
    Software {
        /// Shared with the worker.
        matcher: Arc<ArcSwap<Matcher>>,
        /// What it takes now.
        table: FilterTable,
        /// Frames that it dropped because the access lists deny their senders: counted by the worker.
        denied: Arc<AtomicU64>,
    },
}

impl Gate {
    /// Takes all that `table` takes, besides what is taken already.
    ///
    /// # Errors
    /// [`FilterError`], as [`Filter::widen`].
    pub fn widen(&mut self, table: &FilterTable) -> Result<(), FilterError> {
        match self {
            Gate::Xdp(filter) => filter.widen(table),
            Gate::Software { matcher, table: now, .. } => {
                let wide = now.union(table);
                let access = Arc::clone(matcher.load().access());
                matcher.store(Arc::new(Matcher::new(&wide)?.with_access(&access)));
                *now = wide;
                Ok(())
            }
        }
    }

    /// Takes what `table` takes and nothing else.
    ///
    /// # Errors
    /// [`FilterError`], as [`Filter::narrow`].
    pub fn narrow(&mut self, table: &FilterTable) -> Result<(), FilterError> {
        match self {
            Gate::Xdp(filter) => filter.narrow(table),
            Gate::Software { matcher, table: now, .. } => {
                let access = Arc::clone(matcher.load().access());
                matcher.store(Arc::new(Matcher::new(table)?.with_access(&access)));
                now.clone_from(table);
                Ok(())
            }
        }
    }

    /// Judges clients by these lists from here on, where [`FilterTable::judged`] has the service's address.
    ///
    /// # Errors
    /// [`FilterError`], as [`Filter::set_access`].
    pub fn set_access(&mut self, access: &Arc<Table>) -> Result<(), FilterError> {
        match self {
            Gate::Xdp(filter) => filter.set_access(access),
            Gate::Software { matcher, .. } => {
                let next = Matcher::clone(&matcher.load()).with_access(access);
                matcher.store(Arc::new(next));
                Ok(())
            }
        }
    }

    /// The lists that judge now.
    pub fn access(&self) -> Arc<Table> {
        match self {
            Gate::Xdp(filter) => Arc::clone(filter.access()),
            Gate::Software { matcher, .. } => Arc::clone(matcher.load().access()),
        }
    }

    /// What is taken now.
    pub fn table(&self) -> &FilterTable {
        match self {
            Gate::Xdp(filter) => filter.table(),
            Gate::Software { table, .. } => table,
        }
    }

    /// What the XDP program counted; the fallback, which does not see what becomes of other frames, only counts denied ones.
    ///
    /// # Errors
    /// [`FilterError::Map`].
    pub fn counters(&self) -> Result<FilterCounters, FilterError> {
        match self {
            Gate::Xdp(filter) => filter.counters(),
            Gate::Software { denied, .. } => {
                Ok(FilterCounters { denied: denied.load(Ordering::Relaxed), ..FilterCounters::default() })
            }
        }
    }
}

/// What start-up can say about the I/O.
#[derive(Clone, Debug, Default)]
pub struct IoReport {
    /// Each interface as it was found.
    pub interfaces: Vec<InterfaceFacts>,
    /// Mode of each interface.
    pub modes: Vec<IoMode>,
    /// Queues of each interface that are used.
    pub queues: Vec<Vec<u32>>,
    /// What each worker got; empty with AF_PACKET.
    pub workers: Vec<OpenReport>,
    /// Better modes that could not be had, and why.
    pub refused: Vec<Refusal>,
    /// What an operator should know, in plain words.
    pub warnings: Vec<String>,
}

/// Running I/O. The gates are empty: everything passes to the kernel until they are widened.
pub struct Opened {
    /// One for each core of the settings.
    pub workers: Vec<WorkerIo>,
    /// One for each interface. Dropping them takes the programs off.
    pub gates: Vec<Gate>,
    /// What was obtained.
    pub report: IoReport,
}

/// Why the I/O cannot start.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    /// An interface cannot be asked.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// A request that cannot work.
    #[error("{0}")]
    Impossible(String),
    /// A filter cannot be had.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The sockets cannot be had.
    #[error(transparent)]
    Xsk(#[from] OpenError),
    /// The fallback cannot be had.
    #[error(transparent)]
    AfPacket(#[from] AfPacketError),
}

/// Opens the I/O of all workers on all interfaces; without interfaces there is nobody to work. Takes effect in the network namespace of the calling thread.
///
/// # Errors
/// [`IoError`]; nothing stays open or attached then.
pub fn open(interfaces: &[Interface], settings: &EngineSettings) -> Result<Opened, IoError> {
    let facts =
        interfaces.iter().map(|interface| InterfaceFacts::of(&interface.name)).collect::<Result<Vec<_>, _>>()?;
    if facts.is_empty() {
        return Ok(Opened { workers: Vec::new(), gates: Vec::new(), report: IoReport::default() });
    }
    if facts.len() > usize::from(PortIndex::MAX) {
        return Err(IoError::Impossible(format!("{} interfaces; there can be 1 to 255", facts.len())));
    }
    if settings.cores.is_empty() {
        return Err(IoError::Impossible("no cores for workers".to_owned()));
    }
    for facts in &facts {
        if !facts.ethernet {
            return Err(IoError::Impossible(format!("{} is not an Ethernet interface", facts.name)));
        }
        if !facts.fits(settings.frame_size) {
            let hint = if facts.fits(4096) { "use `frame_size = 4096`" } else { "lower the MTU" };
            return Err(IoError::Impossible(format!(
                "{}: frames of MTU {} do not fit frames of {} bytes: {hint}",
                facts.name, facts.mtu, settings.frame_size
            )));
        }
    }
    let mut refused = Vec::new();
    let attempts = attempts(&settings.modes);
    let last = attempts.len();
    for (number, modes) in (1..).zip(attempts) {
        let attempt = EngineSettings { modes, ..settings.clone() };
        match open_xsk(interfaces, &facts, &attempt, &mut refused) {
            Ok(opened) => return Ok(opened),
            // Another program's interface stays its own whatever the mode.
            Err(error @ (IoError::Filter(FilterError::Occupied { .. }) | IoError::Impossible(_))) => return Err(error),
            Err(error) if number == last && !settings.modes.contains(&IoMode::AfPacket) => return Err(error),
            Err(error) => {
                let mode = attempt.modes.iter().max().copied().unwrap_or(IoMode::Generic);
                refused.push(Refusal { mode, reason: chain(&error) });
            }
        }
    }
    open_af_packet(facts, settings, refused)
}

/// The sets of AF_XDP modes to try: all that are allowed, then generic mode on every interface.
fn attempts(modes: &[IoMode]) -> Vec<Vec<IoMode>> {
    let mut xsk: Vec<IoMode> = modes.iter().copied().filter(|&mode| mode != IoMode::AfPacket).collect();
    xsk.sort();
    let mut attempts = vec![xsk.clone()];
    if xsk.len() > 1 && xsk.contains(&IoMode::Generic) {
        // For interfaces that run native XDP but cannot bind sockets in the modes that go with it.
        attempts.push(vec![IoMode::Generic]);
    }
    attempts.retain(|attempt| !attempt.is_empty());
    attempts
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The queues of each interface that are used: those of the config, or all.
fn used_queues(interface: &Interface, facts: &InterfaceFacts, workers: usize) -> Result<Vec<u32>, IoError> {
    let queues = interface.queues.clone().unwrap_or_else(|| (0..facts.rx_queues).collect());
    let name = &facts.name;
    if let Some(queue) = queues.iter().find(|&&queue| queue >= facts.rx_queues) {
        let count = facts.rx_queues;
        return Err(IoError::Impossible(format!("{name} has no receive queue {queue}; it has {count}, from 0")));
    }
    if (1..queues.len()).any(|index| queues[..index].contains(&queues[index])) {
        return Err(IoError::Impossible(format!("{name}: a queue is listed twice in {queues:?}")));
    }
    if queues.len() < workers {
        return Err(IoError::Impossible(format!(
            "{name}: {} receive queues for {workers} workers, but each worker needs one to receive and send on; use \
             fewer cores or more queues (`ethtool -L {name}`)",
            queues.len()
        )));
    }
    Ok(queues)
}

fn open_xsk(
    interfaces: &[Interface],
    facts: &[InterfaceFacts],
    settings: &EngineSettings,
    refused: &mut Vec<Refusal>,
) -> Result<Opened, IoError> {
    let workers = settings.cores.len();
    let queues = interfaces
        .iter()
        .zip(facts)
        .map(|(interface, facts)| used_queues(interface, facts, workers))
        .collect::<Result<Vec<_>, _>>()?;
    let mut filters =
        facts.iter().map(|facts| attach(facts, &settings.modes, refused)).collect::<Result<Vec<_>, _>>()?;

    let mut ios = Vec::new();
    let mut reports: Vec<OpenReport> = Vec::new();
    for worker in 0..workers {
        let bindings: Vec<PortBinding> = (0..)
            .zip(facts)
            .zip(&filters)
            .zip(&queues)
            .map(|(((port, facts), filter), queues)| PortBinding {
                port,
                name: facts.name.clone(),
                ifindex: facts.ifindex,
                // Dealt like cards, so that every worker has some.
                queues: queues.iter().skip(worker).step_by(workers).copied().collect(),
                attach: filter.attached(),
                tx_queues: facts.tx_queues,
            })
            .collect();
        let (io, report) = XskIo::open(worker, &bindings, settings)?;
        for (port, queue, socket) in io.sockets() {
            filters[usize::from(port)].set_socket(queue, socket)?;
        }
        ios.push(Box::new(io));
        reports.push(report);
    }

    for refusal in reports.iter().flat_map(|report| &report.refused) {
        if !refused.contains(refusal) {
            refused.push(refusal.clone());
        }
    }
    let modes: Vec<IoMode> = (0..facts.len())
        .map(|port| {
            let sockets = reports.iter().flat_map(|report| &report.sockets);
            sockets.filter(|socket| usize::from(socket.port) == port).map(|socket| socket.mode).max()
        })
        .map(|mode| mode.unwrap_or(IoMode::Generic))
        .collect();
    let warnings = facts.iter().zip(&filters).flat_map(|(facts, filter)| facts.warnings(Some(filter.attached())));
    let mut warnings: Vec<String> = warnings.collect();
    for (facts, queues) in facts.iter().zip(&queues) {
        if queues.len() < facts.rx_queues as usize {
            warnings.push(format!(
                "{}: only queues {queues:?} of {} are used; packets for services on the others go to the kernel",
                facts.name, facts.rx_queues
            ));
        }
    }
    warnings.extend(
        reports
            .iter()
            .filter_map(|report| report.busy_poll.clone().flatten())
            .map(|reason| format!("busy polling was refused: {reason}")),
    );
    match passer(facts, &filters) {
        Ok(passer) => {
            for io in &mut ios {
                io.set_passer(passer.clone());
            }
        }
        Err(reason) => warnings.push(format!(
            "frames cannot be given back to the kernel (Linux 5.18 can): packets for the host that look like a NAT \
             server's replies, or like fragments for a service, are dropped as `not-ours`: {reason}"
        )),
    }
    let gates = filters.into_iter().map(|filter| Gate::Xdp(Box::new(filter))).collect();
    let refused = std::mem::take(refused);
    let report = IoReport { interfaces: facts.to_vec(), modes, queues, workers: reports, refused, warnings };
    Ok(Opened { workers: ios.into_iter().map(WorkerIo::Xsk).collect(), gates, report })
}

/// The way back to the kernel, on every interface.
fn passer(facts: &[InterfaceFacts], filters: &[Filter]) -> Result<Arc<Passer>, String> {
    let targets = facts.iter().zip(filters).map(|(facts, filter)| {
        let way = filter.way_back().map_err(|error| chain(&error))?;
        Ok(Target { ifindex: facts.ifindex, way })
    });
    let targets = targets.collect::<Result<Vec<_>, String>>()?;
    Passer::start(targets).map(Arc::new).map_err(|error| error.to_string())
}

/// Attaches the filter in the driver where the modes allow it, else in the kernel's receive path.
fn attach(facts: &InterfaceFacts, modes: &[IoMode], refused: &mut Vec<Refusal>) -> Result<Filter, FilterError> {
    let native = modes.contains(&IoMode::ZeroCopy) || modes.contains(&IoMode::Copy);
    // Once for both modes: the kernel's verifier takes its time.
    let mut filter = Filter::loaded(&facts.name)?;
    if native {
        match filter.put_on(facts.ifindex, XdpAttach::Native) {
            Err(error @ FilterError::Refused { .. }) if modes.contains(&IoMode::Generic) => {
                refused.push(Refusal { mode: IoMode::Copy, reason: error.to_string() });
            }
            done => return done.map(|()| filter),
        }
    }
    filter.put_on(facts.ifindex, XdpAttach::Generic)?;
    Ok(filter)
}

fn open_af_packet(
    facts: Vec<InterfaceFacts>,
    settings: &EngineSettings,
    refused: Vec<Refusal>,
) -> Result<Opened, IoError> {
    if settings.cores.len() > 1 {
        return Err(IoError::Impossible(format!(
            "AF_PACKET has one worker, and `cores` names {}{}",
            settings.cores.len(),
            refused.last().map(|refusal| format!(" (AF_XDP: {})", refusal.reason)).unwrap_or_default()
        )));
    }
    let mut bindings = Vec::new();
    for (port, facts) in (0..).zip(&facts) {
        let matcher = Arc::new(ArcSwap::from_pointee(Matcher::default()));
        bindings.push(PacketBinding { port, name: facts.name.clone(), matcher, denied: Arc::default() });
    }
    let frames = settings.frames.saturating_mul(u32::try_from(facts.len()).unwrap_or(1));
    let io = AfPacketIo::open(&bindings, frames, settings.frame_size)?;
    let gates = bindings
        .into_iter()
        .map(|binding| Gate::Software {
            matcher: binding.matcher,
            table: FilterTable::default(),
            denied: binding.denied,
        })
        .collect();
    let mut warnings: Vec<String> = facts.iter().flat_map(|facts| facts.warnings(None)).collect();
    warnings.push(
        "AF_PACKET: the kernel sees every packet too; it must not route (net.ipv4.ip_forward=0, \
         net.ipv6.conf.all.forwarding=0)"
            .to_owned(),
    );
    let modes = vec![IoMode::AfPacket; facts.len()];
    let queues = vec![Vec::new(); facts.len()];
    let report = IoReport { interfaces: facts, modes, queues, workers: Vec::new(), refused, warnings };
    Ok(Opened { workers: vec![WorkerIo::AfPacket(Box::new(io))], gates, report })
}
