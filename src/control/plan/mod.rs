//! What a change of the configuration would do: which services, servers, virtual routers and settings come, go and become
//! otherwise, and what that means for flows and persistent clients.
//!
//! Owns the comparison of two configurations, key by key as the file has them, and its words for people and programs. What
//! becomes of flows follows [`crate::control::compile`], and a property test holds it to that. Never changes anything. Pure.

mod compare;
mod flows;
mod text;

pub use flows::{Flows, Forgotten, Loads};
pub use text::{render, summary};

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::config::render;
use crate::model::{Desired, Fate, Service, ServiceKey};
use compare::{Matched, changed, matched};

/// What a change would do. Equal configurations have no changes, and only they.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What comes, goes and becomes otherwise, in the order of the reference page; servers follow their service.
    pub changes: Vec<Change>,
    /// What becomes of the flows that there are.
    pub flows: Flows,
    /// Whose persistent clients are forgotten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forgotten: Vec<Forgotten>,
}

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// `[engine]`.
    Engine,
    /// `[timeouts]`.
    Timeouts,
    /// `[access]`.
    Access,
    /// `[control]`.
    Control,
    /// `[[interface]]`.
    Interface,
    /// `[[neighbor]]`.
    Neighbor,
    /// `[[address]]`.
    Address,
    /// `[[service]]`.
    Service,
    /// `[[service.server]]`.
    Server,
    /// `[vrrp]`.
    Vrrp,
    /// `[[track_script]]`.
    TrackScript,
    /// `[[track_file]]`.
    TrackFile,
    /// `[[track_process]]`.
    TrackProcess,
    /// `[[virtual_router]]`.
    VirtualRouter,
    /// `[[sync_group]]`.
    SyncGroup,
    /// `[web]`.
    Web,
}

/// How it is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// It was not there.
    Added,
    /// It is there no more.
    Removed,
    /// Some of its keys have other values.
    Changed,
    /// All of its sort are there as before, in another order.
    Reordered,
}

/// A key with another value. Secrets are not shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// The key, with those of inner tables behind dots, such as `check.0.interval`.
    pub key: String,
    /// Its value before, as TOML; absent: it had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// Its value after; absent: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

/// What becomes of the flows of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affected {
    /// How many there are.
    pub flows: u64,
    /// What becomes of them.
    pub fate: Fate,
}

/// One thing that is changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What it is.
    pub what: What,
    /// Its name; empty for what is there once. For a server, its address with the port.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// A server's service, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// How it is changed.
    pub how: How,
    /// What is added or removed, in a few words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub words: String,
    /// Keys with other values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyChange>,
    /// What becomes of a server's flows, where they do not just stay; of all of a service that goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affected: Option<Affected>,
    /// Only a restart brings it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restart: bool,
    /// It takes back what a command changed and nobody saved.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsaved: bool,
}

impl Change {
    fn new(what: What, how: How, name: impl Into<String>) -> Change {
        Change {
            what,
            name: name.into(),
            service: None,
            how,
            words: String::new(),
            keys: Vec::new(),
            affected: None,
            restart: false,
            unsaved: false,
        }
    }
}

impl Plan {
    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Marks what takes back a change that only the running configuration has: `running` is the plan from the file, as it was
    /// last read or saved, to what runs.
    pub fn mark_unsaved(&mut self, running: &Plan) {
        let id = |change: &Change| (change.what, change.name.clone(), change.service.clone());
        let mut made: HashMap<_, Vec<&Change>> = HashMap::new();
        running.changes.iter().for_each(|change| made.entry(id(change)).or_default().push(change));
        let touches = |mine: &Change, theirs: &Change| {
            let key = |one: &KeyChange| theirs.keys.iter().any(|other| other.key == one.key);
            mine.how != How::Changed || theirs.how != How::Changed || mine.keys.iter().any(key)
        };
        for change in &mut self.changes {
            let all = made.get(&id(change)).into_iter().flatten();
            change.unsaved = all.into_iter().any(|theirs| touches(change, theirs));
        }
    }
}

/// Compares a configuration with another one. `loads`: the flows that there are now, none where that is not known.
pub fn plan(old: &Desired, new: &Desired, loads: &Loads) -> Plan {
    let mut changes = Vec::new();
    if old != new {
        once(&mut changes, What::Engine, true, render::engine(&old.engine), render::engine(&new.engine));
        once(&mut changes, What::Timeouts, false, render::timeouts(old.timeouts), render::timeouts(new.timeouts));
        changes.extend(compare::access(&old.access, &new.access));
        changes.extend(compare::control(old, new));
        let name = |one: &crate::model::Interface| one.name.clone();
        let before = changes.len();
        many(&mut changes, What::Interface, &old.interfaces, &new.interfaces, name, render::interface);
        changes[before..].iter_mut().for_each(|change| change.restart = true);
        let address = |one: &crate::model::Neighbor| one.address.to_string();
        many(&mut changes, What::Neighbor, &old.neighbors, &new.neighbors, address, render::neighbor);
        many(&mut changes, What::Address, &old.addresses, &new.addresses, ToString::to_string, |_| Vec::new());
        services(&mut changes, old, new, loads);
        let web = compare::web(old.web.as_deref(), new.web.as_deref());
        let (old, new) = (&old.vrrp, &new.vrrp);
        let settings = [&old.settings, &new.settings].map(render::vrrp_settings);
        let [before, after] = settings;
        once(&mut changes, What::Vrrp, false, before, after);
        let named = |change: &mut Vec<Change>| {
            many(change, What::TrackScript, &old.scripts, &new.scripts, |one| one.name.clone(), render::track_script);
            many(change, What::TrackFile, &old.files, &new.files, |one| one.name.clone(), render::track_file);
            let process = render::track_process;
            many(change, What::TrackProcess, &old.processes, &new.processes, |one| one.name.clone(), process);
            let router = render::virtual_router;
            many(change, What::VirtualRouter, &old.routers, &new.routers, |one| one.name.clone(), router);
            many(change, What::SyncGroup, &old.groups, &new.groups, |one| one.name.clone(), render::sync_group);
        };
        named(&mut changes);
        changes.extend(web);
    }
    Plan { changes, flows: Flows::of(old, new, loads), forgotten: flows::forgotten(old, new) }
}

/// A table that is there once.
fn once(changes: &mut Vec<Change>, what: What, restart: bool, old: render::Keys, new: render::Keys) {
    let keys = changed(compare::plain(old), compare::plain(new));
    if !keys.is_empty() {
        changes.push(Change { keys, restart, ..Change::new(what, How::Changed, "") });
    }
}

/// Tables that are there often, each with a name of its own.
fn many<T: PartialEq>(
    changes: &mut Vec<Change>,
    what: What,
    old: &[T],
    new: &[T],
    name: impl Fn(&T) -> String,
    keys: impl Fn(&T) -> render::Keys,
) {
    let Matched { removed, added, both, reordered } = matched(old, new, &name);
    changes.extend(removed.iter().map(|one| Change::new(what, How::Removed, name(one))));
    changes.extend(added.iter().map(|one| Change::new(what, How::Added, name(one))));
    for (before, after) in both.into_iter().filter(|(before, after)| before != after) {
        let keys = changed(compare::plain(keys(before)), compare::plain(keys(after)));
        changes.push(Change { keys, ..Change::new(what, How::Changed, name(after)) });
    }
    if reordered {
        changes.push(Change::new(what, How::Reordered, ""));
    }
}

fn services(changes: &mut Vec<Change>, old: &Desired, new: &Desired, loads: &Loads) {
    let key = |service: &Service| service.key;
    let Matched { removed, added, both, reordered } = matched::<_, ServiceKey>(&old.services, &new.services, key);
    for service in removed {
        let flows = loads.of_service(&service.key);
        let affected = (flows > 0).then_some(Affected { flows, fate: Fate::Reset });
        let words = compare::service_words(service);
        changes.push(Change { words, affected, ..Change::new(What::Service, How::Removed, &service.name) });
    }
    for service in added {
        let words = compare::service_words(service);
        changes.push(Change { words, ..Change::new(What::Service, How::Added, &service.name) });
    }
    for (before, after) in both.into_iter().filter(|(before, after)| before != after) {
        // With the common timeouts of their own configuration: who follows them changes nothing.
        let keys = changed(
            compare::plain(render::service(before, old.timeouts)),
            compare::plain(render::service(after, new.timeouts)),
        );
        if !keys.is_empty() {
            changes.push(Change { keys, ..Change::new(What::Service, How::Changed, &after.name) });
        }
        compare::servers(changes, before, after, loads);
    }
    if reordered {
        changes.push(Change::new(What::Service, How::Reordered, ""));
    }
}

#[cfg(test)]
mod tests;
