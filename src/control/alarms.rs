//! What the workers' counters say that someone should look at.
//!
//! Owns the sentences, and what was said already. Never changes anything.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::workers::Workers;
use crate::dataplane::stats::WorkerStats;
use crate::dataplane::verdict::DropReason;
use crate::model::SynCookies;

/// Something that a worker saw and someone should look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// Same key, same alarm: it is logged once.
    pub key: String,
    /// What it is and what to do.
    pub text: String,
}

/// Counters whose growth is an alarm for as long as it goes on.
type Growing = [u64; 5];

/// How long such an alarm stays after the last growth.
const RECENT: Duration = Duration::from_secs(60);

/// The alarms over time.
#[derive(Debug, Default)]
pub struct Alarms {
    /// The counters at ticks of the last minute, oldest first.
    history: VecDeque<(Instant, Growing)>,
    /// Those that were logged and go on.
    logged: HashSet<String>,
}

impl Alarms {
    /// Looks at the counters, once a second or so. Gives the alarms that are new.
    pub fn tick(&mut self, workers: &Workers, now: Instant) -> Vec<Alarm> {
        self.note(growing(workers), now);
        let mut all = self.now(workers);
        self.logged.retain(|key| all.iter().any(|alarm| alarm.key == *key));
        all.retain(|alarm| self.logged.insert(alarm.key.clone()));
        all
    }

    fn note(&mut self, counters: Growing, now: Instant) {
        self.history.push_back((now, counters));
        // The newest that is a minute old stays: growth is counted from there.
        while self.history.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= RECENT) {
            self.history.pop_front();
        }
    }

    /// What grew in the last minute, and by how much.
    fn grown(&self) -> Growing {
        match (self.history.front(), self.history.back()) {
            (Some((_, then)), Some((_, now))) => [0, 1, 2, 3, 4].map(|at: usize| now[at].saturating_sub(then[at])),
            _ => [0; 5],
        }
    }

    /// What someone should look at now.
    pub fn now(&self, workers: &Workers) -> Vec<Alarm> {
        let mut all = seen(workers);
        let [no_port, peer_busy, directory_full, flood, no_cookie_flow] = self.grown();
        let mut alarm = |count: u64, key: &str, text: String| {
            if count > 0 {
                all.push(Alarm { key: key.to_owned(), text });
            }
        };
        alarm(
            no_port,
            "no local port",
            format!(
                "full NAT had no local port for {no_port} packets in the last minute (no-local-port): add \
                 `local_addresses`, or widen `engine.local_ports`"
            ),
        );
        alarm(
            peer_busy,
            "peer busy",
            format!(
                "{peer_busy} packets could not be handed to the worker that has their flow in the last minute (peer-busy): \
                 their queues should be that worker's; look at the RSS of the interfaces, or add cores"
            ),
        );
        alarm(
            directory_full,
            "directory full",
            format!(
                "{directory_full} flows found no room in the directory of all workers in the last minute: their packets \
                 are not found when they arrive at another worker; raise `engine.flows`"
            ),
        );
        alarm(
            flood,
            "flood",
            format!(
                "a flood: in the last minute {flood} packets that open connections were let in without state or answered by \
                 cookies, because unproven flows came faster than there is room for them; established ones are not \
                 concerned. `deny` in `[access]` keeps out sources that can be told, and a larger `engine.unproven_flows` \
                 takes more before that happens"
            ),
        );
        alarm(
            no_cookie_flow,
            "cookie table full",
            format!(
                "{no_cookie_flow} clients that brought back a good SYN cookie were refused in the last minute, since as many \
                 flows opened that way are there as there is room for (cookie-table-full): raise `engine.cookie_flows`"
            ),
        );
        all.sort();
        all
    }
}

fn growing(workers: &Workers) -> Growing {
    let drops =
        |stats: &WorkerStats, reason: DropReason| stats.drops.get(reason as usize).map_or(0, |drops| drops.get());
    // Where they are sent always, cookies tell of no flood.
    let cookies = |stats: &WorkerStats| match workers.director.syn_cookies {
        SynCookies::Flood => stats.cookies_sent.get(),
        SynCookies::Always | SynCookies::Off => 0,
    };
    workers.list.iter().map(|worker| &worker.stats).fold([0; 5], |[no_port, peer_busy, full, flood, cookie], stats| {
        [
            no_port + drops(stats, DropReason::NoLocalPort),
            peer_busy + drops(stats, DropReason::PeerBusy),
            full + stats.directory_full.get(),
            flood + stats.stateless.get() + cookies(stats),
            cookie + drops(stats, DropReason::CookieTableFull),
        ]
    })
}

/// What the workers saw since their start that someone should look at.
fn seen(workers: &Workers) -> Vec<Alarm> {
    let mut all = Vec::new();
    for worker in &workers.list {
        if worker.stats.drops.get(DropReason::PartialChecksum as usize).is_some_and(|drops| drops.get() > 0) {
            all.push(Alarm {
                key: "partial checksums".to_owned(),
                text: "packets with incomplete checksums are dropped (partial-checksum): a virtual interface leaves \
                       them to nobody; on its sender's end, `ethtool -K DEVICE tx off`"
                    .to_owned(),
            });
        }
    }
    all.sort();
    all.dedup_by(|a, b| a.key == b.key);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_an_alarm_for_a_minute() {
        let start = Instant::now();
        let mut alarms = Alarms::default();
        let mut grown = |second: u64, counter: u64| {
            alarms.note([counter, 0, 1, 0, 0], start + Duration::from_secs(second));
            alarms.grown()
        };
        assert_eq!(grown(0, 3), [0; 5], "what was before is not counted");
        assert_eq!(grown(1, 5), [2, 0, 0, 0, 0]);
        for second in 2..61 {
            assert_eq!(grown(second, 5), [2, 0, 0, 0, 0], "{second}");
        }
        assert_eq!(grown(61, 5), [0; 5]);
        assert_eq!(grown(62, 6), [1, 0, 0, 0, 0]);
    }
}
