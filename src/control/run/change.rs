//! Changes of what the running engine shall do: by its file, by commands, and back to the file.
//!
//! Owns the one way of a new configuration into force, and what is said of it. Never judges a configuration.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tracing::{error, info, warn};

use super::{Engine, RunError, servers};
use crate::control::check::summary;
use crate::control::config::{self, Loaded, Problem, Refused, Severity};
use crate::control::edit::save::{self, SaveError};
use crate::control::edit::{self, Running};
use crate::control::nexthop::tracker::Tracker;
use crate::control::nexthop::{Path as Way, Reason};
use crate::control::plan::{self, Loads, Plan};
use crate::control::socket::server::{ClientId, Reply};
use crate::control::socket::{Answer, Code};
use crate::control::startup;
use crate::control::unix_time;
use crate::model::{self, Desired, Service};

/// How long a reload waits for the Ethernet addresses of new servers.
const RELOAD_RESOLUTION: Duration = Duration::from_millis(100);

/// How long a change by command waits for them: whoever makes hundreds, one after the other, must not wait for dead servers.
const EDIT_RESOLUTION: Duration = Duration::from_millis(20);

/// A text on its way to the file.
pub(super) struct Saving {
    client: ClientId,
    text: String,
    done: Receiver<Result<(), SaveError>>,
}

/// Why a file is not taken, in one line.
fn refusal(name: &str, problems: &[Problem]) -> String {
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    format!("{name}: refused: {errors} error{}", if errors == 1 { "" } else { "s" })
}

impl Engine {
    /// The command `reload`: reads the file again, or says what that would change.
    pub(super) fn asked_to_reload(&mut self, options: &Map<String, Value>, now: Instant) -> Answer {
        match options.get("dry_run") {
            None | Some(Value::Bool(false)) => self.reload(now),
            Some(Value::Bool(true)) => self.rehearse(),
            Some(_) => Answer::refused("`dry_run` is `true` or `false`"),
        }
    }

    /// What a reload would change. Nothing is changed, and nothing is logged.
    fn rehearse(&self) -> Answer {
        let name = self.file.display().to_string();
        let Loaded { desired, warnings, .. } = match config::load(&self.file) {
            Ok(loaded) => loaded,
            Err(Refused { problems, .. }) => {
                return Answer::Refused { error: refusal(&name, &problems), code: Code::Invalid, problems };
            }
        };
        let plan = self.plan_of_file(&desired);
        let warnings: Vec<String> =
            warnings.iter().map(|warning| warning.render(&name).trim_end().to_owned()).collect();
        Answer::Done(json!({ "dry_run": true, "summary": plan::summary(&plan), "plan": plan, "warnings": warnings }))
    }

    /// What a configuration would change, with the flows that there are.
    fn plan(&self, desired: &Desired) -> Plan {
        let snapshot = self.shared.snapshot.load();
        let mut plan = plan::plan(&self.desired, desired, &Loads::of(&snapshot));
        if !plan.forgotten.is_empty() {
            let mut clients: HashMap<_, u64> = HashMap::new();
            for template in self.workers.director.templates.list(self.shared.clock(Instant::now())) {
                *clients.entry(template.unit).or_default() += 1;
            }
            let units: HashMap<_, _> = snapshot.services.iter().map(|known| (*known.key(), known.unit)).collect();
            for lost in &mut plan.forgotten {
                let unit = lost.service.and_then(|key| units.get(&key));
                lost.clients = unit.map(|unit| clients.get(unit).copied().unwrap_or_default());
            }
        }
        plan
    }

    /// What the file would change, and which changes by command it would undo.
    fn plan_of_file(&self, desired: &Desired) -> Plan {
        let mut plan = self.plan(desired);
        if self.running.unsaved() > 0
            && let Some(mut file) = config::load_text(self.running.file()).desired
        {
            startup::needs_restart(&self.desired, &mut file);
            plan.mark_unsaved(&plan::plan(&file, &self.desired, &Loads::default()));
        }
        plan
    }

    /// Reads the file again. What is wrong with it changes nothing.
    pub(super) fn reload(&mut self, now: Instant) -> Answer {
        self.notify.reloading();
        let answer = self.read_again(now);
        let line = self.state_line();
        self.notify.ready(&line);
        answer
    }

    fn read_again(&mut self, now: Instant) -> Answer {
        let name = self.file.display().to_string();
        let Loaded { desired, warnings, text } = match config::load(&self.file) {
            Ok(loaded) => loaded,
            Err(Refused { problems, .. }) => {
                let text = refusal(&name, &problems);
                error!("{text}; nothing changed\n{}", config::render_all(&name, &problems).trim_end());
                self.last_error = Some(text.clone());
                return Answer::Refused { error: text, code: Code::Invalid, problems };
            }
        };
        let plan = self.plan_of_file(&desired);
        let generation = match self.take(desired, RELOAD_RESOLUTION, now) {
            Ok(generation) => generation,
            Err(why) => {
                let text = format!("{name}: refused: {why}");
                error!("{text}; nothing changed");
                self.last_error = Some(text.clone());
                return Answer::refused_as(Code::Failed, text);
            }
        };
        let lost = self.running.unsaved();
        self.running = Running::new(text);
        self.loaded_at = unix_time();
        let said = format!("{name}: reloaded: {}", summary(&self.desired, warnings.len()).trim_start_matches("fine: "));
        info!("{said}, generation {generation}");
        let mut all: Vec<String> = warnings.iter().map(|warning| warning.render(&name).trim_end().to_owned()).collect();
        all.extend(self.restart.iter().cloned());
        if lost > 0 {
            let changes = if lost == 1 { "one change" } else { "changes" };
            all.push(format!(
                "{changes} by command had not been saved, and {} gone",
                if lost == 1 { "is" } else { "are" }
            ));
        }
        all.iter().for_each(|warning| warn!("{warning}"));
        let said = format!("{said}\n{}", plan::summary(&plan));
        let text = all.iter().fold(said, |text, warning| format!("{text}\nwarning: {warning}"));
        Answer::Done(json!({ "summary": text, "generation": generation, "warnings": all, "plan": plan }))
    }

    /// The command `edit`: what it changes is in force when it is answered.
    pub(super) fn edit(&mut self, options: &Map<String, Value>, now: Instant) -> Answer {
        let question = match edit::Question::read(options) {
            Ok(question) => question,
            Err(why) => return Answer::refused(why),
        };
        let draft = match self.running.draft(&question.edits) {
            Ok(draft) => draft,
            Err(refused) => return Answer::refused_as(refused.code, refused.text),
        };
        let outcome = config::load_text(&draft.text);
        let warnings: Vec<String> = outcome.warnings().map(|problem| edit::explain([problem])).collect();
        let Some(desired) = outcome.desired else {
            let errors: Vec<Problem> =
                outcome.problems.into_iter().filter(|problem| problem.severity == Severity::Error).collect();
            return Answer::refused(edit::explain(&errors));
        };
        if question.dry_run {
            let plan = self.plan(&desired);
            return Answer::Done(json!({ "changed": desired != *self.desired, "warnings": warnings, "plan": plan }));
        }
        if desired == *self.desired {
            // A comment's neighbour, a default that is written now: the text is new all the same.
            self.running.take(draft);
            return Answer::Done(json!({ "changed": false, "warnings": warnings, "unsaved": self.running.unsaved() }));
        }
        let plan = self.plan(&desired);
        match self.take(desired, EDIT_RESOLUTION, now) {
            Ok(generation) => {
                self.running.take(draft);
                info!("changed by command: {}, generation {generation}", edit::summary(&question.edits));
                let unsaved = self.running.unsaved();
                let mut warnings = warnings;
                warnings.extend(self.restart.iter().cloned());
                Answer::Done(json!({
                    "changed": true, "generation": generation, "warnings": warnings, "unsaved": unsaved, "plan": plan,
                }))
            }
            Err(why) => Answer::refused_as(Code::Failed, format!("{why}; nothing changed")),
        }
    }

    /// Puts a configuration into force. Its generation, or why everything is as it was.
    fn take(&mut self, mut desired: Desired, patience: Duration, now: Instant) -> Result<u64, String> {
        let restart = startup::needs_restart(&self.desired, &mut desired);
        if let Err(failure) = self.tracker.watch(&desired, now) {
            return Err(self.back(&failure, now));
        }
        self.await_new_servers(&desired, patience);
        if let Some(why) = startup::kernel_in_the_way(&desired, &self.report.modes, &self.tracker.facts().addresses) {
            return Err(self.back(&RunError::KernelInTheWay(why), now));
        }
        self.people.look(&desired);
        let (tracker, people) = (&self.tracker, &self.people);
        let reach = |service: &Service, server: &model::Server| tracker.reach(service, server);
        let prospect = self.watch.look(&desired, now, reach, |prospect| people.prepare(&desired, prospect));
        let generation = match self.change(&desired, Some(&prospect)) {
            Ok(generation) => generation,
            Err(failure) => return Err(self.back(&failure, now)),
        };
        self.restart = restart;
        self.desired = Arc::new(desired);
        self.last_error = None;
        let name = self.file.display();
        if let Err(failure) = self.watch.take(prospect) {
            // As for VRRP: there were none before either.
            self.last_error = Some(format!("{name}: {}", startup::chain(&failure)));
            error!("{name}: {}", startup::chain(&failure));
        }
        self.tell();
        if let Err(failure) = self.configure_routers() {
            // The configuration is in force but for VRRP, which did not run before either.
            let name = self.file.display();
            self.last_error = Some(format!("{name}: no VRRP: {}", startup::chain(&failure)));
            error!("{name}: no VRRP: {}", startup::chain(&failure));
        }
        self.hops_changed = true;
        Ok(generation)
    }

    /// Everything that was prepared is as before. The failure in words.
    fn back(&mut self, failure: &dyn std::error::Error, now: Instant) -> String {
        let before = self.desired.clone();
        let _ = self.tracker.watch(&before, now);
        self.people.look(&before);
        startup::chain(failure)
    }

    /// Waits a moment for the Ethernet addresses of servers that were not there before: a service whose servers are all
    /// replaced would else have none for the time of an ARP exchange.
    fn await_new_servers(&mut self, desired: &Desired, patience: Duration) {
        let start = Instant::now();
        let known: HashSet<(IpAddr, Way)> = servers(&self.desired).collect();
        let new: Vec<(IpAddr, Way)> = servers(desired).filter(|server| !known.contains(server)).collect();
        let pending = |tracker: &Tracker| {
            new.iter().any(|(address, path)| tracker.hop(*address, *path) == Some(&Err(Reason::Unresolved)))
        };
        while start.elapsed() < patience && pending(&self.tracker) {
            self.tracker.turn(patience.saturating_sub(start.elapsed()));
        }
    }

    /// The command `save`. The disk may take its time, or hang: a thread waits for it.
    pub(super) fn save(&mut self, client: ClientId, options: &Map<String, Value>) -> Reply {
        let question = match save::Question::read(options) {
            Ok(question) => question,
            Err(why) => return Answer::refused(why).into(),
        };
        if question.print {
            let answer = json!({ "text": self.running.text(), "unsaved": self.running.unsaved() });
            return Answer::Done(answer).into();
        }
        if self.saving.is_some() {
            return Answer::refused_as(Code::Failed, "the file is being written for somebody else; try again").into();
        }
        let (file, known, text) = (self.file.clone(), self.running.file().to_owned(), self.running.text().to_owned());
        let ((sender, done), wake, saved) = (channel(), self.people.wake(), text.clone());
        let write = move || {
            // Nobody waits for it any more where the engine has ended.
            let _ = sender.send(save::save(&file, &known, &saved, question.force));
            wake();
        };
        match std::thread::Builder::new().name("save".to_owned()).spawn(write) {
            Ok(_) => {
                self.saving = Some(Saving { client, text, done });
                Reply::Later
            }
            Err(error) => Answer::refused_as(Code::Failed, format!("no thread: {error}")).into(),
        }
    }

    /// What became of the command `save`, once that is known.
    pub(super) fn saved(&mut self) -> Option<(ClientId, Answer)> {
        let result = match self.saving.as_ref()?.done.try_recv() {
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err("the thread that wrote the file died".to_owned()),
            Ok(result) => result.map_err(|error| error.to_string()),
        };
        let Saving { client, text, .. } = self.saving.take()?;
        let name = self.file.display().to_string();
        let answer = match result {
            Ok(()) => {
                let saved = self.running.unsaved();
                self.running.saved(text);
                info!("{name}: saved");
                Answer::Done(json!({ "file": name, "saved": saved, "unsaved": self.running.unsaved() }))
            }
            Err(why) => {
                error!("save: {why}");
                Answer::refused_as(Code::Failed, why)
            }
        };
        Some((client, answer))
    }
}
