//! What the running engine does for people and their programs: decisions by hand, drain files, events, notify scripts.
//!
//! Owns when these are asked and told. What they mean is decided in [`crate::control::health`].

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value, json};
use tracing::error;

use super::Engine;
use crate::control::health::Change;
use crate::control::health::admin::{Decisions, Question};
use crate::control::health::drain_files::DrainFiles;
use crate::control::health::events::Events;
use crate::control::health::notify::{Notifier, task};
use crate::control::health::watch::{Prospect, Wake};
use crate::control::socket::Answer;
use crate::control::unix_time;
use crate::model::Desired;

/// What is known of what people want, and who is told what happens.
pub(super) struct People {
    decisions: Decisions,
    files: DrainFiles,
    pub events: Events,
    /// Once there was anything to run.
    notifier: Option<Notifier>,
    wake: Wake,
}

impl People {
    /// Reads what was decided before (`state_file`). `wake` calls the control loop.
    pub fn open(state_file: &Path, wake: Wake) -> People {
        let (decisions, files) = (Decisions::open(state_file), DrainFiles::new(Arc::clone(&wake)));
        People { decisions, files, events: Events::default(), notifier: None, wake }
    }

    /// What calls the control loop.
    pub fn wake(&self) -> Wake {
        Arc::clone(&self.wake)
    }

    /// Looks at the drain files of a configuration that is about to be in force, or is again.
    pub fn look(&mut self, desired: &Desired) {
        self.files.configure(desired);
    }

    /// Tells a configuration that is about to be in force what people want of its servers.
    pub fn prepare(&self, desired: &Desired, prospect: &mut Prospect) {
        for (key, admin) in self.decisions.each() {
            // One that is not configured is remembered for when it is.
            let _ = prospect.set_admin(key, admin);
        }
        for (key, exists) in self.files.each(desired) {
            prospect.set_drain_file(&key, exists);
        }
    }

    /// Tells the log, who asks for events, and the programs.
    pub fn tell(&mut self, desired: &Desired, changes: &[Change]) {
        self.events.note(changes);
        if self.notifier.is_none() && changes.iter().any(|change| task(desired, change).is_some()) {
            self.notifier = Notifier::start()
                .inspect_err(|error| {
                    error!("the notify scripts of these events are not run, there is no thread: {error}")
                })
                .ok();
        }
        if let Some(notifier) = &self.notifier {
            notifier.tell(desired, changes);
        }
    }

    /// Whether the threads run that should.
    pub fn are_running(&self) -> bool {
        self.notifier.as_ref().is_none_or(Notifier::is_running)
    }
}

impl Engine {
    /// Hears which drain files came and went.
    pub(super) fn on_drain_files(&mut self) {
        if self.people.files.news() {
            for (key, exists) in self.people.files.each(&self.desired) {
                self.watch.set_drain_file(&key, exists);
            }
        }
    }

    /// The command `server`: what is decided is in force when it is answered.
    pub(super) fn server(&mut self, options: &Map<String, Value>, now: Instant) -> Answer {
        let question = match Question::read(options) {
            Ok(question) => question,
            Err(why) => return Answer::refused(why),
        };
        let mut decided = Vec::new();
        let apply = |key: &_, admin| decided.push((*key, admin));
        let listing = match self.people.decisions.answer(&question, &self.desired, unix_time(), apply) {
            Ok(listing) => listing,
            Err(why) => return Answer::refused(why),
        };
        if !decided.is_empty() {
            for (key, admin) in decided {
                self.watch.set_admin(&key, admin);
            }
            self.on_health(now);
        }
        let (meaning, elapsed) = (self.watch.meaning(), self.watch.moment(now).now);
        Answer::Done(json!(listing.with_states(|key| Some(meaning.view(key, elapsed)?.state))))
    }
}
