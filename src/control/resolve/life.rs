//! The life of a service's flows: timeouts, limits, thresholds, fates, drains. What fits together, and with what.
//!
//! Owns the rules of these keys within one `[[service]]`. Pure.

use crate::control::config::problem::Collector;
use crate::control::config::raw::{At, Entry};
use crate::dataplane::limits::MOST_BURST_SECONDS;
use crate::model::{Fate, Fates, Limits, Rate, Server, Service, Timeouts};

/// The keys of `[timeouts]`, or of one service's; `others` where nothing is written.
pub(super) fn timeouts(entry: &Entry, others: Timeouts) -> Timeouts {
    let mut timeouts = others;
    for (key, seconds) in timeouts.each_mut() {
        if let Some(written) = entry.integer(key) {
            *seconds = written.value;
        }
    }
    timeouts
}

/// Fills in what a service says about the life of its flows. `has_nat`: it, or one of its servers, has NAT or full NAT.
pub(super) fn of_service(entry: &Entry, service: Service, has_nat: bool, out: &mut Collector<'_>) -> Service {
    let own = entry.tables("timeouts").first();
    let one_packet = one_packet(entry, has_nat, out);
    let limits = limits(entry, one_packet, out);
    let drain_deadline = entry.integer_or("drain_deadline").and_then(|deadline| deadline.value);
    let defaults = Fates::DEFAULT;
    let fates = Fates {
        removed: fate(entry, "flows_of_removed", defaults.removed),
        down: fate(entry, "flows_of_down", defaults.down),
        drained: fate(entry, "flows_of_drained", defaults.drained),
    };
    if let Some(deadline) = entry.integer_or("drain_deadline")
        && deadline.value.is_some()
        && fates.drained == Fate::Keep
    {
        out.warning(
            deadline.at,
            entry.key("drain_deadline"),
            "nothing happens at the deadline: `flows_of_drained` is `keep`",
        )
        .help("remove the key, or have these flows `reset` or `reschedule`");
    }
    if one_packet {
        thresholds_of_nothing(entry, out);
    }
    let timeouts = own.map_or(service.timeouts, |own| timeouts(own, service.timeouts));
    Service { timeouts, one_packet, limits, fates, drain_deadline, ..service }
}

fn fate(entry: &Entry, key: &str, default: Fate) -> Fate {
    match entry.word(key).map(|word| word.value) {
        Some("keep") => Fate::Keep,
        Some("reschedule") => Fate::Reschedule,
        Some("reset") => Fate::Reset,
        _ => default,
    }
}

fn one_packet(entry: &Entry, has_nat: bool, out: &mut Collector<'_>) -> bool {
    let Some(At { value: true, at, .. }) = entry.boolean("one_packet") else { return false };
    let key = entry.key("one_packet");
    let protocol = entry.word("protocol").map_or("tcp", |protocol| protocol.value);
    if protocol != "udp" {
        out.error(at, key, format!("only UDP can be scheduled packet by packet, and the service is {protocol}"))
            .expected("`false`, or a service over UDP")
            .help("remove the key");
    } else if has_nat {
        out.error(at, key, "a server has NAT: its answers belong to no flow then, and cannot be translated back")
            .expected("direct routing or a tunnel for every server")
            .help("remove the key, or choose the method `dr` or a tunnel");
    }
    true
}

/// Where no flow is remembered none can be counted.
fn thresholds_of_nothing(entry: &Entry, out: &mut Collector<'_>) {
    for server in entry.tables("server") {
        if let Some(upper) = server.integer("upper_threshold") {
            out.error(upper.at, server.key("upper_threshold"), "with `one_packet` a server has no flows to count")
                .expected("this key only without `one_packet`")
                .help("remove one of them");
        }
    }
}

fn limits(entry: &Entry, one_packet: bool, out: &mut Collector<'_>) -> Limits {
    let number = |key| entry.integer(key);
    let (connections, client_connections) = (number("max_connections"), number("client_max_connections"));
    for (key, limit) in [("max_connections", connections), ("client_max_connections", client_connections)] {
        if let Some(limit) = limit.filter(|_| one_packet) {
            out.error(limit.at, entry.key(key), "with `one_packet` the service has no flows to count")
                .expected("this key only without `one_packet`")
                .help("remove one of them; rates count packets then");
        }
    }
    if let (Some(all), Some(each)) = (connections, client_connections)
        && each.value > all.value
    {
        let text = format!("a client network may have {} flows, and the whole service {}", each.value, all.value);
        out.error(each.at, entry.key("client_max_connections"), text)
            .expected(format!("at most {}: `max_connections`", all.value))
            .help("lower one, or raise the other");
    }
    let limits = Limits {
        connections: connections.map(|limit| limit.value),
        rate: rate(entry, "max_rate", "max_rate_burst", out),
        client_connections: client_connections.map(|limit| limit.value),
        client_rate: rate(entry, "client_max_rate", "client_max_rate_burst", out),
        client_prefix_v4: prefix(entry, "client_prefix_ipv4", Limits::NONE.client_prefix_v4),
        client_prefix_v6: prefix(entry, "client_prefix_ipv6", Limits::NONE.client_prefix_v6),
    };
    if limits.client_connections.is_none() && limits.client_rate.is_none() {
        for key in ["client_prefix_ipv4", "client_prefix_ipv6"] {
            let refused = ["client_max_connections", "client_max_rate"].iter().any(|limit| entry.was_refused(limit));
            if let Some(written) = number(key).filter(|number| number.written && !refused) {
                out.error(written.at, entry.key(key), "the service has no limits for client networks")
                    .expected("this key only with `client_max_connections` or `client_max_rate`")
                    .help("add one of them, or remove the key");
            }
        }
    }
    limits
}

fn prefix(entry: &Entry, key: &str, default: u8) -> u8 {
    entry.integer(key).and_then(|bits| u8::try_from(bits.value).ok()).unwrap_or(default)
}

fn rate(entry: &Entry, key: &str, burst_key: &str, out: &mut Collector<'_>) -> Option<Rate> {
    let (rate, burst) = (entry.integer(key), entry.integer(burst_key));
    let Some(rate) = rate else {
        if let Some(burst) = burst.filter(|_| !entry.was_refused(key)) {
            out.error(burst.at, entry.key(burst_key), format!("there is no `{key}`"))
                .expected(format!("this key only with `{key}`"))
                .help(format!("add `{key}`, or remove the key"));
        }
        return None;
    };
    let per_second = rate.value;
    if let Some(burst) = burst {
        let seconds = burst.value / per_second;
        if seconds > MOST_BURST_SECONDS {
            let text =
                format!("a burst of {} takes {seconds} seconds to come back at {per_second} a second", burst.value);
            out.error(burst.at, entry.key(burst_key), text)
                .expected(format!("at most {MOST_BURST_SECONDS} times `{key}`: a day's worth"))
                .help(format!("lower it, or raise `{key}`"));
        }
    }
    Some(Rate { per_second, burst: burst.map_or(per_second, |burst| burst.value) })
}

/// Fills in what a server says about its thresholds and its drain.
pub(super) fn of_server(entry: &Entry, server: Server, out: &mut Collector<'_>) -> Server {
    let (upper, lower) = (entry.integer("upper_threshold"), entry.integer("lower_threshold"));
    if let Some(lower) = lower {
        let key = entry.key("lower_threshold");
        match upper {
            Some(upper) if lower.value > upper.value => {
                out.error(lower.at, key, format!("{} is above the upper threshold, {}", lower.value, upper.value))
                    .expected(format!("at most {}", upper.value))
                    .help("the server takes new flows again once it has fewer than the lower threshold");
            }
            None if !entry.was_refused("upper_threshold") => {
                out.error(lower.at, key, "there is no upper threshold")
                    .expected("this key only with `upper_threshold`")
                    .help("add `upper_threshold`, or remove the key");
            }
            _ => {}
        }
    }
    Server {
        drain: entry.boolean("drain").is_some_and(|drain| drain.value),
        upper: upper.map(|upper| upper.value),
        lower: lower.map(|lower| lower.value),
        ..server
    }
}
