//! VRRP as part of a configuration file.
//!
//! Owns the text form of virtual routers, their groups and what they track. Pure.

use std::time::Duration;

use super::super::value::decimals;
use super::{Keys, addresses, table, text};
use crate::model::{
    Notify, Place, SyncGroup, Track, TrackFile, TrackProcess, TrackScript, Tracked, VirtualAddress, VirtualRouter,
    Vrrp, VrrpChecksum, VrrpSettings, VrrpVersion,
};

/// All tables of VRRP, the settings always.
pub(super) fn vrrp(out: &mut String, vrrp: &Vrrp) {
    table(out, "[vrrp]", &settings(&vrrp.settings));
    vrrp.scripts.iter().for_each(|one| table(out, "[[track_script]]", &script(one)));
    vrrp.files.iter().for_each(|one| table(out, "[[track_file]]", &file(one)));
    vrrp.processes.iter().for_each(|one| table(out, "[[track_process]]", &process(one)));
    vrrp.routers.iter().for_each(|one| table(out, "[[virtual_router]]", &router(one)));
    vrrp.groups.iter().for_each(|one| table(out, "[[sync_group]]", &group(one)));
}

/// The keys of a `[[track_script]]`.
pub(in crate::control) fn script(script: &TrackScript) -> Keys {
    let mut keys = vec![
        ("name", text(&script.name)),
        ("script", texts(&script.command)),
        ("interval", seconds(script.interval)),
        ("timeout", seconds(script.timeout)),
        ("rise", script.rise.to_string()),
        ("fall", script.fall.to_string()),
        ("starts_good", script.starts_good.to_string()),
    ];
    keys.extend(script.user.as_deref().map(|user| ("user", text(user))));
    keys
}

/// The keys of a `[[track_file]]`.
pub(in crate::control) fn file(file: &TrackFile) -> Keys {
    vec![("name", text(&file.name)), ("path", text(&file.path.to_string_lossy()))]
}

/// The keys of a `[[track_process]]`.
pub(in crate::control) fn process(process: &TrackProcess) -> Keys {
    vec![
        ("name", text(&process.name)),
        ("process", text(&process.process)),
        ("quorum", process.quorum.to_string()),
        ("delay", seconds(process.delay)),
    ]
}

/// The keys of `[vrrp]`.
pub(in crate::control) fn settings(settings: &VrrpSettings) -> Keys {
    let mut keys = vec![
        ("realtime", settings.realtime.to_string()),
        ("stall", seconds(settings.stall)),
        ("handover", seconds(settings.handover)),
    ];
    keys.extend(settings.fifo.as_ref().map(|path| ("fifo", text(&path.to_string_lossy()))));
    keys.extend(settings.notify_user.as_deref().map(|user| ("notify_user", text(user))));
    keys
}

/// The keys of a `[[virtual_router]]`.
pub(in crate::control) fn router(router: &VirtualRouter) -> Keys {
    let mut keys = vec![
        ("name", text(&router.name)),
        ("interface", text(&router.interface)),
        ("vrid", router.vrid.to_string()),
        ("version", if router.version == VrrpVersion::V2 { "2" } else { "3" }.to_owned()),
        ("priority", router.priority.to_string()),
        ("state", text(if router.starts_as_master { "master" } else { "backup" })),
        ("interval", seconds(router.interval)),
        ("place", text(if router.place == Place::Kernel { "kernel" } else { "engine" })),
        ("address", virtual_addresses(&router.addresses)),
        ("excluded", virtual_addresses(&router.excluded)),
    ];
    if let Some(password) = &router.password {
        let end = password.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        keys.push(("password", text(&String::from_utf8_lossy(&password[..end]))));
    }
    // The other forms of adverts have no choice.
    if router.version == VrrpVersion::V3 && !router.is_v6() {
        let word = if router.checksum == VrrpChecksum::Message { "message" } else { "pseudo-header" };
        keys.push(("checksum", text(word)));
    }
    keys.extend(router.source.map(|source| ("source", text(&source.to_string()))));
    if let Some(unicast) = &router.unicast {
        keys.push(("peers", addresses(unicast.peers.iter())));
        if let Some((least, most)) = unicast.ttl {
            keys.extend([("peers_min_ttl", least.to_string()), ("peers_max_ttl", most.to_string())]);
        }
    }
    keys.extend([
        ("preempt", router.preempt.to_string()),
        ("preempt_delay", seconds(router.preempt_delay)),
        ("down_adverts", router.down_adverts.to_string()),
        ("accept", router.accept.to_string()),
        ("virtual_mac", router.virtual_mac.to_string()),
        ("announce_repeat", router.announcements.repeat.to_string()),
        ("announce_delay", seconds(router.announcements.delay)),
        ("announce_refresh", seconds(router.announcements.refresh)),
        ("announce_refresh_repeat", router.announcements.refresh_repeat.to_string()),
    ]);
    keys.extend(tracks(&router.tracks));
    keys.extend(notify(&router.notify));
    keys
}

/// The keys of a `[[sync_group]]`.
pub(in crate::control) fn group(group: &SyncGroup) -> Keys {
    let mut keys = vec![("name", text(&group.name)), ("routers", texts(&group.routers))];
    keys.extend(tracks(&group.tracks));
    keys.extend(notify(&group.notify));
    keys
}

fn virtual_addresses(all: &[VirtualAddress]) -> String {
    let one = |known: &VirtualAddress| {
        let host = text(&format!("{}/{}", known.address, known.prefix));
        let more = [("device", &known.device), ("label", &known.label)];
        let more: String =
            more.iter().filter_map(|(key, value)| Some(format!(", {key} = {}", text(value.as_deref()?)))).collect();
        if more.is_empty() { host } else { format!("{{ address = {host}{more} }}") }
    };
    format!("[{}]", all.iter().map(one).collect::<Vec<_>>().join(", "))
}

fn tracks(all: &[Track]) -> Keys {
    let list = |kind: &str| -> Option<String> {
        let of_kind = all.iter().filter(|track| track.what.words().0 == kind);
        let one = |track: &Track| format!("{{ name = {}, weight = {} }}", text(track.what.words().1), track.weight);
        let items: Vec<String> = of_kind.map(one).collect();
        (!items.is_empty()).then(|| format!("[{}]", items.join(", ")))
    };
    let lists = [
        ("track_interface", list("interface")),
        ("track_script", list("script")),
        ("track_file", list("file")),
        ("track_process", list("process")),
        ("track_service", list("service")),
    ];
    let engine = all.iter().any(|track| track.what == Tracked::Engine);
    let lists = lists.into_iter().filter_map(|(key, list)| Some((key, list?)));
    lists.chain([("track_engine", engine.to_string())]).collect()
}

fn notify(notify: &Notify) -> Keys {
    let programs = [
        ("notify_master", &notify.master),
        ("notify_backup", &notify.backup),
        ("notify_fault", &notify.fault),
        ("notify_stop", &notify.stop),
        ("notify", &notify.any),
    ];
    programs.into_iter().filter_map(|(key, program)| Some((key, texts(program.as_deref()?)))).collect()
}

fn texts(all: &[String]) -> String {
    format!("[{}]", all.iter().map(|one| text(one)).collect::<Vec<_>>().join(", "))
}

fn seconds(duration: Duration) -> String {
    decimals(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
