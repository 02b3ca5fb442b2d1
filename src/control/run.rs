//! `evenkeel run`: starts the engine, and keeps it true to its file until it is told to stop.
//!
//! Owns the order of start and stop, and the one loop over signals, the control socket, the kernel's announcements and
//! timers. Decides nothing about packets and nothing about a configuration.

mod change;
mod claims;
mod explain;
mod health;
mod people;
mod report;
mod systemd;
mod zero;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::UnixStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tracing::{debug, error, info, warn};

use super::alarms::Alarms;
use super::apply::{self, Applied, ApplyError, Machine};
use super::capture::Catching;
use super::check::{self, summary};
use super::config::{self, Loaded, Refused};
use super::counters;
use super::edit::Running;
use super::flows::Listings;
use super::groups::Groups;
use super::health::watch::{Prospect, Wake, Watch};
use super::log::{self, Levels};
use super::netlink::NetlinkError;
use super::nexthop::tracker::Tracker;
use super::nexthop::{Path as Way, Reason};
use super::persistence::Question;
use super::routers::Routers;
use super::service;
use super::service::notify::Notify;
use super::socket::server::{Server, SocketError};
use super::socket::{Answer, Command};
use super::startup;
use super::unix_time;
use super::web::Web;
use super::workers::{self, WorkerError, Workers};
use crate::dataplane::io::open::{self, IoError, IoReport, Opened};
use crate::dataplane::worker::Shared;
use crate::health::CheckerError;
use crate::model::{self, Desired, Service};
use crate::vrrp::driver::DriverError;
use change::Saving;
use explain::Asking;
use people::People;

/// Arguments of `evenkeel run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Least severity that is logged: off, error, warn, info, debug or trace; or also for a part, as in `vrrp=debug,info`. `evenkeel
    /// log` changes it later.
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = log::level)]
    log_level: String,
    /// Keep all capabilities and allow all system calls, to the engine and to the scripts that it starts.
    #[arg(long)]
    no_sandbox: bool,
}

/// Why the engine does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The file has mistakes.
    #[error(transparent)]
    Config(#[from] Refused),
    /// No control socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// No signals, or no poll.
    #[error("cannot set up the control loop")]
    Loop(#[source] std::io::Error),
    /// No I/O.
    #[error(transparent)]
    Io(#[from] IoError),
    /// No facts from the kernel.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The data plane cannot hold the configuration.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The kernel would act on the packets that the engine acts on.
    #[error("{0}")]
    KernelInTheWay(String),
    /// No workers.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// No VRRP.
    #[error(transparent)]
    Vrrp(#[from] DriverError),
    /// The thread of VRRP ended by itself.
    #[error("the VRRP thread died; the interfaces and addresses are given back")]
    VrrpDied,
    /// No health checks.
    #[error(transparent)]
    Health(#[from] CheckerError),
    /// A thread of the health checks ended by itself.
    #[error("a thread of the health checks died; the interfaces are given back to the kernel")]
    HealthDied,
    /// A worker ended by itself.
    #[error("worker {0} died; the interfaces are given back to the kernel")]
    WorkerDied(usize),
}

const RELOAD: Token = Token(0);
const STOP: Token = Token(1);
const NETLINK: Token = Token(2);
const HEALTH: Token = Token(3);
/// From here on tokens are the control socket's.
const SOCKET: Token = Token(16);

/// How long start-up waits for the servers' Ethernet addresses before it goes on without the rest: those of a segment answer within
/// milliseconds, and one server that is off must not keep the others' clients waiting.
const FIRST_RESOLUTION: Duration = Duration::from_millis(500);

/// Least time between two snapshots that only follow next hops.
const HOPS_PAUSE: Duration = Duration::from_millis(50);

/// How often loads are measured and workers looked after.
const TICK: Duration = Duration::from_secs(1);

/// How often it is seen whether filters can be narrowed.
const SETTLE: Duration = Duration::from_millis(20);

/// Runs `evenkeel run`.
pub fn main(args: RunArgs) -> ExitCode {
    log::begin(&args.log_level);
    // Before there is another thread: all get what this one has.
    if args.no_sandbox {
        service::warn_unconfined();
    } else {
        service::confine();
    }
    match run(&args.config, &args.log_level) {
        Ok(()) => ExitCode::SUCCESS,
        Err(RunError::Config(refused)) => {
            if log::goes_to_journal() {
                error!("{refused}");
            } else {
                eprintln!("{refused}");
            }
            ExitCode::FAILURE
        }
        Err(failure) => {
            error!("{}", startup::chain(&failure));
            ExitCode::FAILURE
        }
    }
}

/// Runs the engine until a signal ends it.
///
/// # Errors
/// [`RunError`]: why it did not start, or why it had to stop.
pub fn run(file: &Path, levels: &str) -> Result<(), RunError> {
    let Loaded { desired, warnings, text } = config::load(file)?;
    let name = file.display().to_string();
    for warning in &warnings {
        warn!("{}", warning.render(&name).trim_end());
    }
    startup::raise_descriptors();
    let poll = Poll::new().map_err(RunError::Loop)?;
    let signals = [(RELOAD, &[SIGHUP][..]), (STOP, &[SIGTERM, SIGINT])];
    let mut pipes = signals
        .into_iter()
        .map(|(token, signals)| listen(&poll, token, signals))
        .collect::<Result<Vec<_>, _>>()
        .map_err(RunError::Loop)?;
    let server = Server::bind(&desired.control_socket, poll.registry(), SOCKET)?;
    let Opened { workers: ios, gates, report } = open::open(&desired.interfaces, &desired.engine)?;
    startup::report(&report, &desired);
    if let Err(failure) = service::privileges::reduce_after_opening() {
        warn!("privileges: {failure}");
    }

    let now = Instant::now();
    let mut tracker = Tracker::open(&desired, now)?;
    while now.elapsed() < FIRST_RESOLUTION && tracker.hops().any(|(_, reach)| *reach == Err(Reason::Unresolved)) {
        tracker.turn(FIRST_RESOLUTION.saturating_sub(now.elapsed()));
    }
    poll.registry()
        .register(&mut SourceFd(&tracker.as_raw_fd()), NETLINK, Interest::READABLE)
        .map_err(RunError::Loop)?;

    if let Some(why) = startup::kernel_in_the_way(&desired, &report.modes, &tracker.facts().addresses) {
        return Err(RunError::KernelInTheWay(why));
    }
    startup::notes(&desired, &tracker.facts().addresses);
    check::notes(&desired).iter().for_each(|note| info!("{note}"));
    let groups = Groups::new(&report.interfaces);
    let machine = machine(&desired, &tracker, &report, now);
    let waker = Arc::new(Waker::new(poll.registry(), HEALTH).map_err(RunError::Loop)?);
    let wake: Wake = Arc::new(move || {
        // Where it fails, the next turn of the loop sees what there is.
        let _ = waker.wake();
    });
    let watch = Watch::new(now, Arc::clone(&wake));
    let web = Web::new(Arc::clone(&wake));
    let mut people = People::open(&desired.state_file, wake);
    people.look(&desired);
    let reach = |service: &Service, server: &model::Server| tracker.reach(service, server);
    let prospect = watch.look(&desired, now, reach, |prospect| people.prepare(&desired, prospect));
    let whereabouts = health::whereabouts(&tracker, prospect.meaning(), Duration::ZERO);
    let (applied, snapshot) = Applied::first(gates, groups, &desired, machine, whereabouts)?;
    let shared = Arc::new(workers::shared(snapshot, ios.len(), &desired.engine)?);
    let workers = Workers::start(ios, &desired.engine, &shared)?;
    let routers = Routers::new(applied.mastery().clone(), &workers, &desired.control_socket);
    let mut engine = Engine {
        routers,
        file: file.to_owned(),
        loads: vec![0.0; workers.list.len()],
        busy: vec![0; workers.list.len()],
        desired: Arc::new(desired),
        tracker,
        watch,
        applied,
        workers,
        shared,
        report,
        started: now,
        loaded_at: unix_time(),
        last_error: None,
        restart: Vec::new(),
        hops_changed: false,
        hops_applied: now,
        stands_changed: false,
        changed: now,
        took: Duration::ZERO,
        ticked: now,
        unreachable: BTreeMap::new(),
        alarms: Alarms::default(),
        listening: claims::Listening::open(),
        local: Vec::new(),
        listings: Listings::default(),
        catching: Catching::default(),
        asking: Asking::default(),
        running: Running::new(text),
        saving: None,
        people,
        web,
        notify: Notify::new(now),
        levels: Levels::new(levels),
    };
    engine.applied.open(&engine.desired, &engine.tracker.facts().addresses)?;
    engine.note_unreachable();
    engine.watch.ways().learn(&engine.tracker, &engine.desired);
    engine.watch.take(prospect)?;
    engine.tell();
    // Not before the packets of a master would be served.
    engine.configure_routers()?;
    info!("ready: {}", summary(&engine.desired, warnings.len()).trim_start_matches("fine: "));
    info!("next: {}", startup::next_steps(&engine.desired));
    let line = engine.state_line();
    engine.notify.ready(&line);
    let ended = engine.serve(poll, server, &mut pipes);
    engine.notify.stopping();
    engine.routers.stop();
    info!("stopped");
    ended
}

/// A pipe that becomes readable when one of the signals arrives.
fn listen(poll: &Poll, token: Token, signals: &[i32]) -> std::io::Result<UnixStream> {
    let (receiver, sender) = std::os::unix::net::UnixStream::pair()?;
    for signal in signals {
        signal_hook::low_level::pipe::register(*signal, sender.try_clone()?)?;
    }
    receiver.set_nonblocking(true)?;
    let mut receiver = UnixStream::from_std(receiver);
    poll.registry().register(&mut receiver, token, Interest::READABLE)?;
    Ok(receiver)
}

/// The machine as it is now, for a change.
fn machine<'t>(desired: &Desired, tracker: &'t Tracker, report: &IoReport, started: Instant) -> Machine<'t> {
    let facts = tracker.facts();
    let ports = apply::ports(desired, facts, &report.interfaces);
    Machine { ports, addresses: &facts.addresses, now: started.elapsed() }
}

/// Servers by how they are reached.
fn servers(desired: &Desired) -> impl Iterator<Item = (IpAddr, Way)> {
    desired.services.iter().flat_map(Service::all_servers).map(|s| (s.address, Way::of(s.method)))
}

/// Notes what a client asks, for who looks for the client that asks too much.
fn asked(command: Command) -> Command {
    debug!("asked: {}", command.name());
    command
}

/// A running engine.
struct Engine {
    file: PathBuf,
    desired: Arc<Desired>,
    // First of all: the other appliances are told before anything stops.
    routers: Routers,
    tracker: Tracker,
    watch: Watch,
    // Before the workers: the filters leave the interfaces first, then the workers end.
    applied: Applied,
    workers: Workers,
    shared: Arc<Shared>,
    report: IoReport,
    started: Instant,
    loaded_at: u64,
    last_error: Option<String>,
    /// What the file says that only a restart brings.
    restart: Vec<String>,
    /// Next hops changed, a server has drained for long enough, or one that was removed has no flows left.
    hops_changed: bool,
    hops_applied: Instant,
    /// Servers stand otherwise than the data plane knows.
    stands_changed: bool,
    /// When the last change was made, and how long it took.
    changed: Instant,
    took: Duration,
    ticked: Instant,
    busy: Vec<u64>,
    loads: Vec<f64>,
    /// Servers without a next hop, and why, as last logged.
    unreachable: BTreeMap<IpAddr, Reason>,
    alarms: Alarms,
    /// Who else answers for service addresses.
    listening: claims::Listening,
    /// Sentences about addresses that the kernel should not have, or should, as last logged.
    local: Vec<String>,
    /// Requests about flows that the workers are answering.
    listings: Listings,
    /// Captures that clients have begun.
    catching: Catching,
    /// Clients that wait for an explanation.
    asking: Asking,
    /// The configuration's text.
    running: Running,
    /// The file is being written.
    saving: Option<Saving>,
    /// Metrics and the status page.
    web: Web,
    /// systemd, where it listens.
    notify: Notify,
    /// What is logged.
    levels: Levels,
    // Last: scripts that still run are waited for a little.
    people: People,
}

impl Engine {
    fn serve(&mut self, mut poll: Poll, mut server: Server, pipes: &mut [UnixStream]) -> Result<(), RunError> {
        let mut events = Events::with_capacity(256);
        // The page is there with the first packet, not with the first event.
        self.web.configure(self.desired.web.as_ref(), Instant::now());
        loop {
            let now = Instant::now();
            let until = self.next_deadline().min(server.next_deadline(now).unwrap_or(now + TICK));
            match poll.poll(&mut events, Some(until.saturating_duration_since(now))) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(RunError::Loop(error)),
            }
            let now = Instant::now();
            for event in &events {
                match event.token() {
                    STOP => {
                        info!("stopping");
                        return Ok(());
                    }
                    RELOAD => {
                        // Any number of signals are one reload. Read empty, or a later one would not be noticed.
                        let _ = std::io::copy(&mut pipes[RELOAD.0], &mut std::io::sink());
                        let _ = self.reload(now);
                    }
                    NETLINK => self.hops_changed |= self.tracker.on_readable(now),
                    // Heard with every turn.
                    HEALTH => {}
                    token => {
                        server.note(token);
                    }
                }
            }
            self.on_health(now);
            server.set_roles(&self.desired.roles);
            self.web.configure(self.desired.web.as_ref(), now);
            self.on_web(&mut server, poll.registry(), now);
            self.levels.turn(now);
            server.turn(poll.registry(), now, |request, client| match asked(request.command) {
                Command::Status => self.status(&request.options).into(),
                Command::Reload => self.asked_to_reload(&request.options, now).into(),
                Command::Edit => self.edit(&request.options, now).into(),
                Command::Save => self.save(client, &request.options),
                Command::Flows => self.listings.begin(client, &request.options, &self.shared, &self.desired, now),
                Command::Server => self.server(&request.options, now).into(),
                Command::Events => self.people.events.begin(client, &request.options, now),
                Command::Persistence => match Question::read(&request.options) {
                    Ok(question) => self.persistence(&question, now).into(),
                    Err(why) => Answer::refused(why).into(),
                },
                Command::Capture => self.catching.begin(client, &request.options, &self.shared, &self.desired, now),
                Command::Explain => self.explain(client, &request.options, now),
                Command::Log => self.levels.answer(&request.options, now).into(),
                Command::Zero => match counters::Question::read(&request.options) {
                    Ok(question) => self.zero(&question).into(),
                    Err(why) => Answer::refused(why).into(),
                },
            });
            let mut answers = Vec::new();
            self.listings.turn(
                &self.shared,
                now,
                |client| server.waits(client),
                |to, answer| answers.push((to, answer)),
            );
            self.catching.turn(
                &self.shared,
                &self.desired,
                now,
                |client| server.waits(client),
                |to, answer| answers.push((to, answer)),
            );
            for (client, answer) in answers {
                if let Some(answer) = self.explained(client, answer, now) {
                    server.complete(client, &answer, now);
                }
            }
            self.asking.keep(|client| server.waits(client));
            if let Some((to, answer)) = self.saved() {
                server.complete(to, &answer, now);
            }
            self.on_deadline(now)?;
            let mut answers = Vec::new();
            self.people.events.turn(now, |client| server.waits(client), |to, answer| answers.push((to, answer)));
            for (client, answer) in answers {
                server.complete(client, &answer, now);
            }
        }
    }

    fn next_deadline(&self) -> Instant {
        let mut until = self.tracker.next_deadline().min(self.ticked + TICK);
        if self.hops_changed {
            until = until.min(self.hops_applied + HOPS_PAUSE);
        }
        if self.applied.is_settling() {
            until = until.min(Instant::now() + SETTLE);
        }
        if let Some(deadline) = self.health_deadline() {
            until = until.min(deadline);
        }
        for deadline in self.web.next_deadline().into_iter().chain(self.levels.next_deadline()) {
            until = until.min(deadline);
        }
        if let Some(deadline) = self.people.events.next_deadline() {
            until = until.min(deadline);
        }
        if let Some(deadline) = self.applied.next_deadline() {
            until = until.min((self.started + deadline).max(self.hops_applied + HOPS_PAUSE));
        }
        if let Some(fetch) = self.catching.next_deadline(Instant::now()) {
            until = until.min(fetch);
        }
        if let Some(fetch) = self.listings.next_deadline(Instant::now()) {
            until = until.min(fetch);
        }
        until
    }

    fn on_deadline(&mut self, now: Instant) -> Result<(), RunError> {
        if now >= self.tracker.next_deadline() {
            self.hops_changed |= self.tracker.on_deadline(now);
        }
        self.hops_changed |= self.applied.next_deadline().is_some_and(|deadline| now >= self.started + deadline);
        if self.hops_changed && now >= self.hops_applied + HOPS_PAUSE {
            self.hops_changed = false;
            self.hops_applied = now;
            self.on_hops(now);
        }
        self.applied.settle(&self.workers);
        if now >= self.ticked + TICK {
            let elapsed = (now - self.ticked).as_nanos() as f64;
            for ((worker, before), load) in self.workers.list.iter().zip(&mut self.busy).zip(&mut self.loads) {
                let busy = worker.stats.busy_ns.get();
                *load = (busy.saturating_sub(*before) as f64 / elapsed).min(1.0);
                *before = busy;
            }
            self.ticked = now;
            self.estimate();
            for alarm in self.alarms.tick(&self.workers, now) {
                warn!("{}", alarm.text);
            }
            self.look_for_claims(now);
            if let Some(dead) = self.workers.list.iter().position(|worker| !worker.is_running()) {
                return Err(RunError::WorkerDied(dead));
            }
            if !self.routers.is_running() {
                return Err(RunError::VrrpDied);
            }
            if !self.watch.is_running() || !self.people.are_running() {
                return Err(RunError::HealthDied);
            }
            self.tell_systemd(now);
            self.on_health_tick(now);
            self.hops_changed |= self.applied.has_idle_ghosts();
        }
        Ok(())
    }

    /// Makes the data plane true to a configuration, to how its servers are reached and to how they stand. `prospect`: how they
    /// would, for a configuration that is not in force.
    fn change(&mut self, desired: &Desired, prospect: Option<&Prospect>) -> Result<u64, ApplyError> {
        let begun = Instant::now();
        let machine = machine(desired, &self.tracker, &self.report, self.started);
        let meaning = prospect.map_or(self.watch.meaning(), Prospect::meaning);
        let whereabouts = health::whereabouts(&self.tracker, meaning, machine.now);
        let generation = self.applied.change(desired, machine, whereabouts, &self.shared, &self.workers)?;
        self.watch.ways().learn(&self.tracker, desired);
        self.changed = Instant::now();
        self.took = self.changed - begun;
        Ok(generation)
    }

    /// Gives VRRP the configuration in force.
    fn configure_routers(&mut self) -> Result<(), DriverError> {
        let (applied, meaning) = (&self.applied, self.watch.meaning());
        self.routers.configure(&self.desired, |router| applied.slot(router), |service| meaning.is_up(service))
    }
}
