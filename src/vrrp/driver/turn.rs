//! One turn of the `vrrp` thread: what came in, what is due, what follows.
//!
//! Owns everything that the thread has. Reads all that has come in before it looks at what is due: after a pause, the adverts
//! that wait say that the master is well.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver, Sender};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::ports::Ports;
use super::stall::{LOOK, Stall};
use super::world::{Speaking, interfaces_of};
use super::{Command, DriverError, Plan, Wiring};
use crate::model::{Mastery, RouterSlot, Tracked, VirtualRouter, Vrrp};
use crate::vrrp::election::{Action, Election, Level, Source, Spec};
use crate::vrrp::frame::{Heard, heard};
use crate::vrrp::kernel::{Kernel, Outcome};
use crate::vrrp::link::{Links, Listener, News};
use crate::vrrp::notify::{Report, Reporter};
use crate::vrrp::realtime;
use crate::vrrp::socket::{LONGEST, Speaker};
use crate::vrrp::status::VrrpStatus;
use crate::vrrp::track::{Conditions, Observation, Tracker};

const WAKER: Token = Token(0);
pub(super) const LISTENER: Token = Token(1);
const TIMER: Token = Token(2);
/// Tokens of interfaces lie above it.
pub(super) const FIRST_PORT: usize = 2;

/// Frames of one interface that are read before deadlines are looked at again: more than all routers send in seconds, and
/// a few milliseconds' work.
const MOST_FRAMES: usize = 4096;
/// Turns in a row without a pause that are no mistake yet.
const MOST_RUSHED: u32 = 1000;
/// Shortest and longest time between two publications of the status.
const SOON: Duration = Duration::from_millis(50);
pub(super) const SECOND: Duration = Duration::from_secs(1);
/// Time for a hand-over beyond the configured one before the thread ends in any case.
const GRACE: Duration = Duration::from_millis(200);

/// A configured router, and how it is on this machine.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) spec: Spec,
    /// What the election was told last; `None`: nothing yet.
    pub(super) source: Option<Option<Source>>,
    pub(super) owned: bool,
    /// Times that its addresses were asked to be put on the kernel's interfaces and no answer came yet.
    pub(super) putting: u32,
    /// Announcements that wait for that.
    pub(super) awaiting: Option<u8>,
    /// Number of its next IPv4 packet.
    pub(super) id: u16,
    /// Whether the last advert could not be sent.
    pub(super) mute: bool,
    /// No longer configured; kept while it serves.
    pub(super) gone: bool,
}

/// The bits that are set, unset when the thread ends, however it does.
pub(super) struct Slots {
    mastery: Arc<Mastery>,
    set: BTreeSet<RouterSlot>,
}

impl Slots {
    pub(super) fn set(&mut self, slot: RouterSlot, owned: bool) {
        let changed = if owned { self.set.insert(slot) } else { self.set.remove(&slot) };
        if changed {
            self.mastery.set(slot, owned);
        }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        for slot in std::mem::take(&mut self.set) {
            self.mastery.set(slot, false);
        }
    }
}

/// Everything that the thread has. The order is that in which it goes: first nobody is served any more, last it is told.
pub(super) struct Turn {
    pub(super) slots: Slots,
    pub(super) ports: Ports,
    pub(super) speaker: Option<Speaker>,
    pub(super) kernel: Kernel,
    pub(super) tracker: Tracker,
    pub(super) reports: Sender<Report>,
    _reporter: Reporter,
    pub(super) runners: BTreeMap<String, Runner>,
    pub(super) election: Election,
    pub(super) out: Vec<Action>,
    pub(super) conditions: Conditions,
    pub(super) stall: Stall,
    pub(super) looked: Duration,
    pub(super) links: Links,
    /// Whether `links` is all there is.
    pub(super) known: bool,
    /// News since the interfaces were asked for; `None` while they are not.
    pub(super) since: Option<Vec<News>>,
    pub(super) ask_again: Option<Duration>,
    pub(super) speaking: Speaking,
    pub(super) listener: Listener,
    pub(super) outcomes: Receiver<Outcome>,
    pub(super) inbox: Receiver<Command>,
    pub(super) vrrp: Arc<Vrrp>,
    pub(super) virtuals: BTreeSet<IpAddr>,
    pub(super) watched: BTreeSet<String>,
    pub(super) beats: Arc<dyn Fn() -> Vec<u64> + Send + Sync>,
    pub(super) status: Arc<ArcSwap<VrrpStatus>>,
    pub(super) realtime: String,
    pub(super) dirty: bool,
    published: Option<Duration>,
    /// When it ends at the latest, once it was told to.
    pub(super) ending: Option<Duration>,
    pub(super) began: Instant,
    pub(super) poll: Poll,
    pub(super) timer: TimerFd,
    pub(super) unread: BTreeSet<Token>,
    pub(super) buffer: Vec<u8>,
    /// Turns in a row in which something was due and nothing came in.
    pub(super) rushed: u32,
}

impl Turn {
    pub(super) fn new(
        plan: Plan,
        wiring: Wiring,
        inbox: Receiver<Command>,
        status: Arc<ArcSwap<VrrpStatus>>,
    ) -> Result<(Turn, Arc<Waker>), DriverError> {
        fn lacks(what: &'static str) -> impl FnOnce(io::Error) -> DriverError {
            move |source| DriverError::Start { what, source }
        }
        let poll = Poll::new().map_err(lacks("poll"))?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(lacks("poll"))?);
        let listener = Listener::open().map_err(lacks("netlink socket"))?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)
            .map_err(io::Error::from)
            .map_err(lacks("timer"))?;
        let timer_fd = std::os::fd::AsFd::as_fd(&timer).as_raw_fd();
        for (fd, token) in [(listener.as_raw_fd(), LISTENER), (timer_fd, TIMER)] {
            poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE).map_err(lacks("poll"))?;
        }
        let vrrp = Arc::new(plan.vrrp.clone());
        let reporter = Reporter::start(Arc::clone(&vrrp)).map_err(lacks("thread for reports"))?;
        let reports = reporter.reports();
        let wake: Arc<dyn Fn() + Send + Sync> = {
            let waker = Arc::clone(&waker);
            Arc::new(move || drop(waker.wake()))
        };
        let tracker =
            Tracker::start(&vrrp, Arc::clone(&wake), reports.clone()).map_err(lacks("thread for what is tracked"))?;
        let (kernel, outcomes) = Kernel::start(wiring.kept, reports.clone(), wake)
            .map_err(lacks("netlink socket or thread for addresses"))?;
        let mut turn = Turn {
            slots: Slots { mastery: wiring.mastery, set: BTreeSet::new() },
            ports: Ports::default(),
            speaker: None,
            kernel,
            tracker,
            reports,
            _reporter: reporter,
            runners: BTreeMap::new(),
            election: Election::new(),
            out: Vec::new(),
            conditions: Conditions::default(),
            stall: Stall::default(),
            looked: Duration::ZERO,
            links: Links::default(),
            known: false,
            since: None,
            ask_again: None,
            speaking: Speaking::default(),
            listener,
            outcomes,
            inbox,
            vrrp,
            virtuals: BTreeSet::new(),
            watched: BTreeSet::new(),
            beats: wiring.beats,
            status,
            realtime: String::new(),
            dirty: true,
            published: None,
            ending: None,
            began: Instant::now(),
            poll,
            timer,
            unread: BTreeSet::new(),
            buffer: vec![0; LONGEST],
            rushed: 0,
        };
        turn.ask_for_links();
        turn.configure(plan, Duration::ZERO);
        Ok((turn, waker))
    }

    /// Turns until it is told to end.
    pub(super) fn run(&mut self) {
        self.realtime = self.raise(self.vrrp.settings.realtime);
        let mut events = Events::with_capacity(256);
        while self.ending.is_none_or(|limit| !self.election.is_stopped() && self.now() < limit) {
            self.wait(&mut events);
            let now = self.now();
            if !self.hear(&events, now) {
                return;
            }
            self.look_at_engine(now);
            let now = self.now();
            self.election.tick(now, &mut self.out);
            self.act();
            self.publish(now);
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn raise(&self, priority: u8) -> String {
        let (words, wanted) = realtime::raise(priority);
        if !wanted {
            self.log(Level::Warn, format!("the thread of the adverts runs with {words}"));
        }
        words
    }

    pub(super) fn log(&self, level: Level, text: String) {
        let _ = self.reports.send(Report::Log { level, text });
    }

    /// Waits for something to come in or for the next deadline.
    fn wait(&mut self, events: &mut Events) {
        let now = self.now();
        let deadline = self.deadline();
        let at_once = !self.unread.is_empty() || deadline.is_some_and(|deadline| deadline <= now);
        // The poll itself knows milliseconds only.
        let armed = match deadline {
            Some(deadline) if !at_once => {
                let wait = Expiration::OneShot(TimeSpec::from_duration(deadline - now));
                self.timer.set(wait, TimerSetTimeFlags::empty()).is_ok()
            }
            _ => true,
        };
        let timeout = match (at_once, armed) {
            (true, _) => Some(Duration::ZERO),
            (false, true) => None,
            (false, false) => Some(Duration::from_millis(1)),
        };
        events.clear();
        if let Err(error) = self.poll.poll(events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            // Nothing that waiting mends; a turn each millisecond goes on with the adverts.
            std::thread::sleep(Duration::from_millis(1));
        }
        // With real-time priority, a deadline that never passes would take a core for itself.
        self.rushed = if at_once && self.unread.is_empty() && events.is_empty() { self.rushed + 1 } else { 0 };
        if self.rushed > MOST_RUSHED {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn deadline(&self) -> Option<Duration> {
        let published = self.published.unwrap_or_default();
        let publish = match (self.dirty, self.runners.is_empty()) {
            (true, _) => Some(published + SOON),
            (false, false) => Some(published + SECOND),
            (false, true) => None,
        };
        let engine = self.watches_engine().then_some(self.looked + LOOK);
        [
            self.election.deadline(),
            publish,
            engine,
            self.ports.deadline(),
            self.asks_again(),
            self.speaking.retry,
            self.ending,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Takes in all that has come. Returns whether to go on.
    fn hear(&mut self, events: &Events, now: Duration) -> bool {
        let mut look_at_links = false;
        for event in events {
            match event.token() {
                WAKER | TIMER => {}
                LISTENER => look_at_links = true,
                port => drop(self.unread.insert(port)),
            }
        }
        look_at_links |= self.unread.remove(&LISTENER);
        let mut changed = look_at_links && self.take_news();
        while let Ok(outcome) = self.outcomes.try_recv() {
            changed |= self.take_outcome(outcome, now);
        }
        if self.asks_again().is_some_and(|at| at <= now) {
            self.ask_for_links();
        }
        let retry = [self.ports.deadline(), self.speaking.retry].into_iter().flatten().min();
        if changed || retry.is_some_and(|at| at <= now) {
            self.settle(now);
        }
        while let Ok(observation) = self.tracker.observations().try_recv() {
            self.observe(observation, now);
        }
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Configure(plan) => self.configure(*plan, now),
                Command::Services(services) => {
                    for (name, up) in services {
                        self.observe(Observation::service(&name, up), now);
                    }
                }
                Command::Stop => {
                    self.election.stop(now, &mut self.out);
                    self.act();
                    self.ending = Some(now + self.vrrp.settings.handover + GRACE);
                }
                Command::Abandon => return false,
            }
        }
        for token in std::mem::take(&mut self.unread) {
            self.read(token);
        }
        true
    }

    /// Reads what waits at one interface.
    fn read(&mut self, token: Token) {
        let Some(interface) = self.ports.name_of(token).map(str::to_owned) else { return };
        let Some(port) = self.ports.get(&interface).and_then(|entry| entry.port.as_ref()) else { return };
        let now = self.now();
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut more = true;
        // An interface that only has addresses of routers hears what others' routers say there.
        let speaks = self.runners.values().any(|runner| runner.spec.router.interface == interface);
        for _ in 0..MOST_FRAMES {
            match port.receive(&mut buffer) {
                Ok(Some(frame)) => match heard(frame) {
                    Some(Heard::Advert(envelope, message)) if speaks => {
                        self.election.receive(&interface, &envelope, message, now, &mut self.out);
                    }
                    Some(Heard::Claim { address, mac }) if self.is_strange(&interface, mac) => {
                        self.election.claimed(&interface, address, mac, now, &mut self.out);
                    }
                    _ => {}
                },
                Ok(None) => {
                    more = false;
                    break;
                }
                // Said once for each time that the interface goes down; the next call reads on.
                Err(_) => {}
            }
        }
        self.buffer = buffer;
        if more {
            self.unread.insert(token);
        }
    }

    /// Whether a MAC is none of this appliance's.
    fn is_strange(&self, interface: &str, mac: crate::model::MacAddr) -> bool {
        let mut ours = self.runners.values().filter(|runner| runner.spec.router.virtual_mac);
        self.links.named(interface).is_none_or(|link| link.mac != Some(mac))
            && !ours.any(|runner| runner.spec.router.mac() == mac)
    }

    fn configure(&mut self, plan: Plan, now: Duration) {
        let Plan { vrrp, slots } = plan;
        let vrrp = Arc::new(vrrp);
        let specs: Vec<Spec> = vrrp
            .routers
            .iter()
            .zip(slots)
            .map(|(router, slot)| match self.runners.get(&router.name) {
                Some(known) if *known.spec.router == *router && known.spec.slot == slot => known.spec.clone(),
                _ => Spec { router: Arc::new(router.clone()), slot },
            })
            .collect();
        let _ = self.reports.send(Report::Plan(Arc::clone(&vrrp)));
        self.tracker.configure(&vrrp);
        if self.vrrp.settings.realtime != vrrp.settings.realtime && vrrp.settings.realtime > 0 {
            self.realtime = self.raise(vrrp.settings.realtime);
        }
        // Those that are gone say so from the interfaces that they had.
        self.election.configure(&specs, &vrrp.groups, vrrp.settings.handover, now, &mut self.out);
        self.act();
        let mut anew = Vec::new();
        let mut before = std::mem::take(&mut self.runners);
        for spec in specs {
            let name = spec.router.name.clone();
            let runner = match before.remove(&name) {
                Some(known) if known.spec == spec && !known.gone => known,
                known => {
                    anew.push(name.clone());
                    let (owned, putting, awaiting) =
                        known.map_or((false, 0, None), |known| (known.owned, known.putting, known.awaiting));
                    Runner { spec, source: None, owned, putting, awaiting, id: 1, mute: false, gone: false }
                }
            };
            self.runners.insert(name, runner);
        }
        for (name, runner) in before.into_iter().filter(|(_, runner)| runner.owned) {
            self.runners.insert(name, Runner { gone: true, ..runner });
        }
        self.virtuals = vrrp.routers.iter().flat_map(VirtualRouter::all_addresses).map(|known| known.address).collect();
        self.watched = interfaces_of(&vrrp);
        let mut changed = self.conditions.configure(&vrrp);
        changed.extend(anew);
        self.vrrp = vrrp;
        self.tell_conditions(&changed, now);
        self.settle(now);
    }

    pub(super) fn observe(&mut self, observation: Observation, now: Duration) {
        let changed = self.conditions.observe(observation);
        self.tell_conditions(&changed, now);
    }

    fn tell_conditions(&mut self, routers: &[String], now: Duration) {
        for name in routers {
            if let Some(condition) = self.conditions.of(name) {
                self.election.condition(name, condition.clone(), now, &mut self.out);
            }
        }
        self.dirty |= !routers.is_empty();
        self.act();
    }

    fn watches_engine(&self) -> bool {
        !self.vrrp.settings.stall.is_zero() && self.conditions.tracks(&Tracked::Engine)
    }

    fn look_at_engine(&mut self, now: Duration) {
        if self.conditions.tracks(&Tracked::Engine) && (self.looked.is_zero() || now >= self.looked + LOOK) {
            self.looked = now.max(Duration::from_nanos(1));
            let stalled = self.stall.look(&(self.beats)(), self.vrrp.settings.stall, now);
            // Worded by the tenth of a second, it would be another condition each time.
            let stalled: Vec<(usize, f64)> =
                stalled.into_iter().map(|(worker, _)| (worker, self.vrrp.settings.stall.as_secs_f64())).collect();
            self.observe(Observation::engine(&stalled), now);
        }
    }

    /// Publishes the status, if it is old or has changed and was not published just now.
    fn publish(&mut self, now: Duration) {
        let wait = if self.dirty { SOON } else { SECOND };
        if self.published.is_none_or(|at| now >= at + wait) {
            self.publish_at_once();
        }
    }

    pub(super) fn publish_at_once(&mut self) {
        let now = self.now();
        self.status.store(Arc::new(VrrpStatus {
            routers: self.election.status(now),
            groups: self.election.groups(),
            tracked: self.conditions.status(),
            refused: self.election.refused().into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
            realtime: self.realtime.clone(),
        }));
        self.published = Some(now);
        self.dirty = false;
    }

    /// Says that the status is an old one.
    pub(super) fn changed(&mut self) {
        self.dirty = true;
    }
}
