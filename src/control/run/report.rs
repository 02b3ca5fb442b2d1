//! What a running engine says of itself: its status, and what the log is told when it changes.
//!
//! Owns no decision: it reads.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::Registry;
use serde_json::{Map, Value, json};
use tracing::{debug, info, warn};

use super::Engine;
use crate::control::nexthop::Reason;
use crate::control::persistence::{self, Action, Question};
use crate::control::socket::Answer;
use crate::control::socket::server::Server;
use crate::control::status::parts::{self, Part};
use crate::control::status::{CheckStatus, ConfigStatus, EngineStatus, Status};
use crate::control::web::Asked;
use crate::control::{collect, counters, startup, unix_time};
use crate::model;

/// How long workers may take to take a change before something is wrong with them.
const WORKERS_TAKE: Duration = Duration::from_secs(5);

impl Engine {
    /// Every server that cannot be reached, and why. One that is this machine is not among them.
    pub(super) fn cut_off(&self) -> BTreeMap<IpAddr, Reason> {
        let mut all = BTreeMap::new();
        for service in &self.desired.services {
            for server in service.all_servers() {
                match self.tracker.reach(service, server) {
                    Ok(_) | Err(Reason::Local) => {}
                    Err(why) => {
                        all.insert(server.address, why);
                    }
                }
            }
        }
        all
    }

    /// Logs servers that cannot be reached, when that changed.
    pub(super) fn note_unreachable(&mut self) {
        let mut now = self.cut_off();
        // Seen for a moment only: it resolves, or fails.
        now.retain(|address, why| {
            if *why == Reason::Unresolved
                && let Some(known) = self.unreachable.get(address)
            {
                why.clone_from(known);
            }
            *why != Reason::Unresolved
        });
        for (address, why) in now.iter().filter(|(address, why)| self.unreachable.get(*address) != Some(*why)) {
            warn!("server {address} cannot be reached: {why}");
        }
        for address in self.unreachable.keys().filter(|address| !now.contains_key(*address)) {
            info!("server {address} can be reached again");
        }
        self.unreachable = now;
        let local = self.misplaced();
        for sentence in local.iter().filter(|sentence| !self.local.contains(sentence)) {
            warn!("{sentence}");
        }
        self.local = local;
    }

    /// Addresses that the kernel should not have, or should: of virtual routers in the engine, and of services with servers that
    /// are this machine.
    fn misplaced(&self) -> Vec<String> {
        let has = &self.tracker.facts().addresses;
        let mut all = startup::kernel_has(&self.desired, has);
        for service in self.desired.services.iter().filter(|service| !has.contains(&service.key.address)) {
            let is_local = |s: &&model::Server| self.tracker.reach(service, s) == Err(Reason::Local);
            let servers = service.all_servers().filter(is_local);
            all.extend(servers.map(|server| startup::local_server(service, server)));
        }
        all
    }

    /// Lists or clears persistent clients.
    pub(super) fn persistence(&self, question: &Question, now: Instant) -> Answer {
        let (director, snapshot) = (&self.workers.director, self.shared.snapshot.load());
        let now = self.shared.clock(now);
        let done = match question.action {
            Action::List => persistence::list(director, &snapshot, question, now)
                .and_then(|listing| serde_json::to_value(listing).map_err(|error| error.to_string())),
            Action::Clear => {
                persistence::clear(director, &snapshot, question, now).map(|count| json!({ "cleared": count }))
            }
        };
        done.map_or_else(Answer::refused, Answer::Done)
    }

    /// Answers a question about the status.
    pub(super) fn status(&self, options: &Map<String, Value>) -> Answer {
        let asked = match parts::Question::read(options) {
            Ok(asked) => asked,
            Err(why) => return Answer::refused(why),
        };
        if let Err((code, why)) = asked.find(&self.desired) {
            return Answer::refused_as(code, why);
        }
        match self.status_of(&asked).written(|part| asked.wants(part)) {
            Ok(text) => Answer::Written(text),
            Err(error) => Answer::refused(error.to_string()),
        }
    }

    /// Answers the web listener.
    pub(super) fn on_web(&mut self, server: &mut Server, registry: &Registry, now: Instant) {
        while let Some(asked) = self.web.next() {
            match asked {
                Asked::Alive(to) => {
                    let _ = to.send(self.alive(now));
                }
                Asked::Client(stream, role) => server.adopt(stream, role, registry, now),
                Asked::Picture(to) => {
                    let picture = self.web.picture(now).unwrap_or_else(|| {
                        let picture = Arc::new(self.status_of(&parts::Question::default()));
                        debug!("a picture for the web listener took {} us", now.elapsed().as_micros());
                        self.web.keep(&picture, now);
                        picture
                    });
                    // Whoever asked may have gone.
                    let _ = to.send(picture);
                }
            }
        }
    }

    /// Whether the workers take what the control loop tells them; `Err`: why not.
    fn alive(&self, now: Instant) -> Result<(), String> {
        if let Some(dead) = self.workers.list.iter().position(|worker| !worker.is_running()) {
            return Err(format!("worker {dead} died"));
        }
        let behind = self.workers.oldest_generation() < self.shared.snapshot.load().generation;
        let since = now.saturating_duration_since(self.changed);
        if behind && since > WORKERS_TAKE {
            return Err(format!("a worker has not taken the last change for {} s", since.as_secs()));
        }
        Ok(())
    }

    /// The parts that are asked for; the others are empty.
    fn status_of(&self, asked: &parts::Question) -> Status {
        let (snapshot, wants) = (self.shared.snapshot.load_full(), |part| asked.wants(part));
        // Warnings are about everything, whatever else is asked for.
        let all = parts::Question::default();
        let of = if wants(Part::Warnings) { &all } else { asked };
        let checks = if [Part::Services, Part::Checks, Part::Warnings].into_iter().any(wants) {
            collect::health::checks(&self.desired, &self.watch, of)
        } else {
            Vec::new()
        };
        let mut status = Status::default();
        if wants(Part::Engine) {
            status.engine = EngineStatus {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                uptime_s: self.started.elapsed().as_secs(),
            };
        }
        if wants(Part::Config) {
            status.config = ConfigStatus {
                file: self.file.display().to_string(),
                generation: snapshot.generation,
                taken_by_all: self.workers.oldest_generation().min(snapshot.generation),
                loaded_at: self.loaded_at,
                last_error: self.last_error.clone(),
                unsaved: self.running.unsaved(),
            };
        }
        if wants(Part::Interfaces) {
            status.interfaces = collect::interfaces(&self.report, self.tracker.facts(), &self.applied);
        }
        if wants(Part::Workers) {
            status.workers = collect::workers(&self.desired, &self.workers, &self.loads);
        }
        if wants(Part::Services) {
            let known = checks.iter().map(|check| (check.id, check)).collect();
            status.services = collect::services(
                &snapshot,
                &self.desired,
                &self.applied,
                &self.workers,
                collect::Now { clock: self.shared.clock(Instant::now()), elapsed: self.started.elapsed() },
                collect::Healths { asked, watch: &self.watch, checks: &known },
                |service, server| self.tracker.reach(service, server),
            );
        }
        if wants(Part::Timeouts) {
            status.timeouts = counters::timeouts(&self.desired.timeouts);
        }
        if wants(Part::LocalPorts) {
            status.local_ports = collect::local_ports(&self.desired, &self.workers);
        }
        if wants(Part::LimitedClients) {
            status.limited_clients = collect::limited_clients(&snapshot, &self.workers);
        }
        if wants(Part::Persistence) {
            status.persistence = collect::persistence(&self.workers);
        }
        if wants(Part::Vrrp) {
            status.vrrp = self.routers.status().map(|status| (*status).clone());
        }
        if wants(Part::Neighbors) {
            status.neighbors = Some(collect::neighbors::all(&self.desired, &self.tracker, asked, Instant::now()));
        }
        if wants(Part::Drops) {
            status.drops = collect::drops(&self.workers);
        }
        if wants(Part::DropsByWorker) {
            status.drops_by_worker = Some(collect::drops_by_worker(&self.workers));
        }
        if wants(Part::Web) {
            status.web = self.web.status();
        }
        if wants(Part::Warnings) {
            status.warnings = self.warnings(&checks);
        }
        if wants(Part::Checks) {
            status.checks = checks;
            if asked.is_narrow() && wants(Part::Warnings) {
                status.checks = collect::health::checks(&self.desired, &self.watch, asked);
            }
        }
        status
    }

    /// What someone should look at.
    fn warnings(&self, checks: &[CheckStatus]) -> Vec<String> {
        let mut warnings: Vec<String> = self.report.warnings.clone();
        warnings.extend(self.cut_off().iter().map(|(address, why)| format!("server {address} is UNREACHABLE: {why}")));
        warnings.extend(self.misplaced());
        warnings.extend(collect::health::warnings(checks));
        warnings.extend(self.alarms.now(&self.workers).into_iter().map(|alarm| alarm.text));
        warnings.extend(self.claim_warnings());
        warnings.extend(self.web.warnings(unix_time()));
        warnings.extend(self.restart.iter().cloned());
        warnings
    }
}
