//! Counters of services and servers start from zero, and rates are estimated, while the engine runs.
//!
//! Owns whose counters are meant. What they are is known to [`crate::control::counters`].

use serde_json::json;

use super::Engine;
use crate::control::apply::totals;
use crate::control::counters::Question;
use crate::control::naming::{cut, end, is_key};
use crate::control::socket::{Answer, Code};
use crate::dataplane::snapshot::ServiceEntry;

/// Whether a service is the one of this name.
fn is_named(service: &ServiceEntry, name: &str) -> bool {
    service.config.name == name || is_key(service.key(), name)
}

impl Engine {
    /// Sets counters to zero.
    pub(super) fn zero(&mut self, question: &Question) -> Answer {
        let snapshot = self.shared.snapshot.load_full();
        let (workers, counters) = (&self.workers, &mut self.applied.counters);
        let counted = |id| totals(workers, id);
        let Some(name) = &question.service else {
            snapshot.services.iter().for_each(|service| counters.zero_service(service, counted));
            return Answer::Done(json!({ "services": snapshot.services.len() }));
        };
        let Some(service) = snapshot.services.iter().find(|service| is_named(service, name)) else {
            return Answer::refused_as(Code::NoService, format!("there is no service `{}`", cut(name)));
        };
        let Some(server) = &question.server else {
            counters.zero_service(service, counted);
            return Answer::Done(json!({ "services": 1 }));
        };
        let Some((address, port)) = end(server) else {
            return Answer::refused(format!(
                "`server` is {:?}; expected an address, or an address and a port such as 10.0.0.11:80",
                cut(server)
            ));
        };
        let meant = service.members.iter().filter(|m| m.address == address && port.is_none_or(|port| port == m.port));
        let ids: Vec<u32> = meant.map(|member| member.id).collect();
        if ids.is_empty() {
            let text = format!("there is no server {} in the service `{}`", cut(server), cut(name));
            return Answer::refused_as(Code::NoServer, text);
        }
        ids.iter().for_each(|id| counters.zero_server(*id, counted));
        Answer::Done(json!({ "servers": ids.len() }))
    }

    /// Estimates rates, when it is time.
    pub(super) fn estimate(&mut self) {
        let snapshot = self.shared.snapshot.load();
        let workers = &self.workers;
        self.applied.counters.estimate(&snapshot, self.started.elapsed(), |id| totals(workers, id));
    }
}
