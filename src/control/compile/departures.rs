//! Servers whose flows count for persistent clients of a unit that the snapshot does not tell any more: their service went,
//! left its group, or tells its clients apart in another way.
//!
//! Owns how long that is remembered: until no worker can have a snapshot from before. Pure.

use std::sync::Arc;
use std::time::Duration;

use super::{Record, ServiceRecord};
use crate::dataplane::persist::Departure;
use crate::model::{PersistBy, Persistence};

/// How long a departure is told: far longer than a worker takes to see a new snapshot.
const MEMORY: Duration = Duration::from_secs(3600);

/// What tells the clients of a service apart, as far as templates are concerned; `None`: it has none.
type Way = Option<(bool, u8, u8)>;

fn way(persistence: Option<&Persistence>) -> Way {
    let persistence = persistence.filter(|persistence| persistence.seconds > 0)?;
    Some((persistence.by == PersistBy::SipCallId, persistence.prefix_v4, persistence.prefix_v6))
}

/// The unit of a service's clients, and how they are told apart.
pub(super) type Clients = (u32, Option<Persistence>);

/// All departures of the last time.
#[derive(Debug, Default)]
pub(super) struct Departures {
    list: Vec<(Duration, Departure)>,
    shared: Arc<[Departure]>,
    changed: bool,
}

impl Departures {
    /// Notes servers of a service that had these clients before, from the snapshot of this generation on.
    fn note<'r>(&mut self, records: impl Iterator<Item = &'r Record>, before: &Clients, since: u64, now: Duration) {
        let (unit, Some(persistence)) = before else { return };
        self.list.extend(records.map(|known| {
            let persistence = persistence.clone();
            (now, Departure { server: known.id, since, unit: *unit, persistence })
        }));
        self.changed = true;
    }

    /// Notes a service that goes, or goes on with these clients. `gone`: servers that were forgotten, sorted.
    pub fn compare(
        &mut self,
        record: &ServiceRecord,
        after: Option<&Clients>,
        gone: &[u32],
        since: u64,
        now: Duration,
    ) {
        let before = &record.clients;
        if way(before.1.as_ref()).is_none() {
            return;
        }
        let same = after.is_some_and(|after| after.0 == before.0 && way(after.1.as_ref()) == way(before.1.as_ref()));
        let left = |known: &&Record| !same || gone.binary_search(&known.id).is_ok() && known.load.total() > 0;
        let mut records = record.servers.iter().chain(&record.ghosts).filter(left).peekable();
        if records.peek().is_some() {
            self.note(records, before, since, now);
        }
    }

    /// All of them, by server and generation, without those that no worker can want.
    pub fn list(&mut self, now: Duration) -> Arc<[Departure]> {
        let before = self.list.len();
        self.list.retain(|(noted, _)| now.saturating_sub(*noted) <= MEMORY);
        if std::mem::take(&mut self.changed) || self.list.len() != before {
            let mut all: Vec<Departure> = self.list.iter().map(|(_, departure)| departure.clone()).collect();
            all.sort_unstable_by_key(|departure| (departure.server, departure.since));
            self.shared = Arc::from(all);
        }
        Arc::clone(&self.shared)
    }
}
