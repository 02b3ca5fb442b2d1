//! Which checks there are: each distinct one once, whoever asked for it. Pure.
//!
//! Owns their ids. Equal checks of several services have one id and run once; a check that stays over a reload keeps it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::health::{CheckId, Plan};
use crate::model::{Check, Desired, Server};

/// The checks of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    known: HashMap<Arc<Check>, CheckId>,
    last: u64,
}

/// Every check of a configuration; those that several servers have come several times.
fn all(desired: &Desired) -> impl Iterator<Item = &Check> {
    desired.services.iter().flat_map(|service| &service.servers).flat_map(|server| &server.health.checks)
}

impl Checks {
    /// Takes over a configuration.
    pub fn assign(&mut self, desired: &Desired) {
        let mut before = std::mem::take(&mut self.known);
        for check in all(desired) {
            if self.known.contains_key(check) {
                continue;
            }
            let (check, id) = before.remove_entry(check).unwrap_or_else(|| {
                self.last += 1;
                (Arc::new(check.clone()), CheckId(self.last))
            });
            self.known.insert(check, id);
        }
    }

    /// What shall run, in the order of the ids.
    pub fn plan(&self) -> Plan {
        let mut checks: Vec<_> = self.known.iter().map(|(check, id)| (*id, Arc::clone(check))).collect();
        checks.sort_unstable_by_key(|(id, _)| *id);
        Plan { checks }
    }

    /// Whether nothing is to be checked.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The ids of a server's checks, in the order of the file.
    pub fn of<'a>(&'a self, server: &'a Server) -> impl Iterator<Item = (CheckId, &'a Check)> {
        server.health.checks.iter().filter_map(|check| Some((*self.known.get(check)?, check)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{desired, tcp};
    use super::*;

    #[test]
    fn equal_checks_are_one_and_those_that_stay_keep_their_id() {
        let mut config = desired(&[1, 2, 3]);
        let target = |n: u8| [10, 0, 0, n].into();
        let with = |config: &mut Desired, ports: [&[u16]; 3]| {
            for (server, ports) in config.services[0].servers.iter_mut().zip(ports) {
                server.health.checks = ports.iter().map(|port| tcp(target(1), *port)).collect();
            }
        };
        let ids = |checks: &Checks, config: &Desired| -> Vec<Vec<u64>> {
            config.services[0].servers.iter().map(|server| checks.of(server).map(|(id, _)| id.0).collect()).collect()
        };
        let mut checks = Checks::default();
        with(&mut config, [&[80], &[80, 81], &[]]);
        checks.assign(&config);
        assert_eq!(ids(&checks, &config), [vec![1], vec![1, 2], vec![]]);
        assert_eq!(
            checks.plan().checks.iter().map(|(id, check)| (id.0, check.target.port)).collect::<Vec<_>>(),
            [(1, 80), (2, 81)]
        );
        // Port 80's goes, 81's stays; what comes back is another one.
        with(&mut config, [&[81], &[], &[82]]);
        checks.assign(&config);
        assert_eq!(ids(&checks, &config), [vec![2], vec![], vec![3]]);
        with(&mut config, [&[80], &[81], &[82]]);
        checks.assign(&config);
        assert_eq!(ids(&checks, &config), [[4], [2], [3]]);
        with(&mut config, [&[], &[], &[]]);
        checks.assign(&config);
        assert!(checks.is_empty() && checks.plan().checks.is_empty());
    }
}
