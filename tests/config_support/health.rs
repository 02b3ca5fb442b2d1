//! Any sound health of a service and its servers, for the property tests.

use std::net::IpAddr;
use std::time::Duration;

use evenkeel::model::{
    BodyMatch, Check, CheckKind, CheckTarget, Damping, DnsCheck, FileCheck, FirstState, GrpcCheck, Health, HttpCheck,
    HttpRequest, Method, NoServer, OnFailure, Pace, Passive, Quorum, ScriptCheck, Server, ServerHealth, Service,
    SmtpCheck, Through, TlsCheck, UdpCheck,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

fn millis(least: u64, most: u64) -> impl Strategy<Value = Duration> {
    (least..=most).prop_map(Duration::from_millis)
}

fn command() -> impl Strategy<Value = Vec<String>> {
    ("/[!-~]{0,20}[!-.0-~é]", vec("[^\0]{0,9}", 0..4))
        .prop_map(|(program, arguments)| [program].into_iter().chain(arguments).collect())
}

fn line() -> impl Strategy<Value = String> {
    "[ -~é]{0,20}[!-~]"
}

fn path() -> impl Strategy<Value = std::path::PathBuf> {
    "/[ -~é]{0,20}[!-.0-~]".prop_map(Into::into)
}

fn user() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9_-]{0,9}"
}

fn pace() -> impl Strategy<Value = Pace> {
    let times = (millis(100, 86_400_000), millis(10, 3_600_000), millis(0, 3_600_000), millis(0, 86_400_000));
    let counts = (1u16.., 1u16.., 0u16..=100);
    (times, counts, 0u32..=50, any::<bool>()).prop_map(|(times, counts, jitter, down)| Pace {
        interval: times.0,
        timeout: times.1,
        rise: counts.0,
        fall: counts.1,
        retries: counts.2,
        retry_delay: times.2,
        jitter: Duration::from_millis(u64::try_from(times.0.as_millis()).unwrap() * u64::from(jitter) / 100),
        warmup: times.3,
        first: if down { FirstState::Down } else { FirstState::Up },
    })
}

fn tls() -> impl Strategy<Value = TlsCheck> {
    (of("[a-z0-9.-]{1,20}"), any::<bool>(), of(path()), 0u32..=3650)
        .prop_map(|(name, verify, authorities, expiry_days)| TlsCheck { name, verify, authorities, expiry_days })
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    proptest::collection::btree_map("X-[A-Za-z0-9]{1,9}", "[ -~é]{0,20}", 0..4)
        .prop_map(|all| all.into_iter().collect())
}

fn request() -> impl Strategy<Value = HttpRequest> {
    let body = prop_oneof![
        line().prop_map(BodyMatch::Text),
        "[a-z0-9 ]{1,9}".prop_map(|text| BodyMatch::Regex(format!("^(?i){text}[\"'\\\\]?.*$"))),
        "[a-z0-9 ]{1,9}".prop_map(BodyMatch::NotRegex),
    ];
    let status = (100u16..=599, 100u16..=599).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let asked = (select(vec!["GET", "HEAD", "OPTIONS"]), "/[!\"$-~]{0,20}", of("[a-z0-9.:\\[\\]-]{1,20}"));
    (asked, pairs(), vec(status, 1..4), of(body), of(any::<[u8; 16]>())).prop_map(
        |((method, path, host), headers, status, body, digest)| HttpRequest {
            method: method.to_owned(),
            path,
            host,
            headers,
            status,
            body: body.filter(|_| method != "HEAD"),
            digest: digest.filter(|_| method != "HEAD"),
        },
    )
}

fn kind(script_user: Option<String>) -> impl Strategy<Value = CheckKind> {
    let http = (of(tls()), any::<bool>(), vec(request(), 1..4));
    let dns = (any::<bool>(), "([a-z0-9_-]{1,9}\\.){0,4}", select(vec!["A", "AAAA", "SOA", "TXT"]), any::<bool>());
    let codes = select(vec![vec![], vec!["NOERROR"], vec!["NXDOMAIN", "REFUSED"]]);
    let payload = || vec(any::<u8>(), 1..40);
    let script = (command(), pairs(), of(user()), any::<bool>());
    prop_oneof![
        Just(CheckKind::Tcp),
        Just(CheckKind::HalfOpen),
        Just(CheckKind::Ping),
        http.prop_map(|(tls, version_11, requests)| CheckKind::Http(HttpCheck { tls, version_11, requests })),
        (dns, codes).prop_map(|((tcp, name, kind, answer), codes)| CheckKind::Dns(DnsCheck {
            tcp,
            name: if name.is_empty() { ".".to_owned() } else { name },
            kind: kind.to_owned(),
            codes: codes.into_iter().map(str::to_owned).collect(),
            answer,
        })),
        (of(payload()), of(payload()), any::<bool>()).prop_map(|(payload, reply, require_reply)| {
            CheckKind::Udp(UdpCheck { payload: payload.unwrap_or_default(), reply, require_reply })
        }),
        line().prop_map(|helo| CheckKind::Smtp(SmtpCheck { helo })),
        script.prop_map(move |(command, environment, user, dynamic)| {
            // Nothing says "as this program" where the service names a user.
            let user = user.or_else(|| script_user.clone());
            CheckKind::Script(ScriptCheck { command, environment, user, dynamic })
        }),
        (path(), -253i16..=253).prop_map(|(path, weight)| CheckKind::File(FileCheck { path, weight })),
        (of(tls()), of(line()), of(line())).prop_map(|(tls, service, authority)| {
            CheckKind::Grpc(GrpcCheck { tls, service: service.unwrap_or_default(), authority })
        }),
    ]
}

/// A check of a server, by its own or by the service's address.
fn check(service: &Service, server: &Server, script_user: Option<String>) -> impl Strategy<Value = Check> + use<> {
    let (key, tunnel, server) = (service.key, service.tunnel, server.clone());
    let target = (of(any::<bool>()), of(1u16..), any::<bool>(), any::<bool>());
    (kind(script_user), pace(), target).prop_map(move |(kind, pace, (other, port, sourced, through))| {
        let unicast = |v6: bool, last: u8| match v6 {
            true => IpAddr::from([0x20, 1, 0xd, 0xb8, 0xaa, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]),
            false => IpAddr::from([172, 31, 0, last]),
        };
        let direct = server.method == Method::Dr || server.method.is_tunnel();
        let can = matches!(kind, CheckKind::Tcp | CheckKind::Http(_) | CheckKind::Dns(_) | CheckKind::Udp(_));
        let through =
            (through && direct && can).then_some(Through { server: server.address, method: server.method, tunnel });
        let address = match (&through, other, &kind) {
            (Some(_), ..) => key.address,
            (None, Some(v6), kind) if !matches!(kind, CheckKind::File(_)) => unicast(v6, 7),
            _ => server.address,
        };
        let port = port.or(server.port).or(key.ports.as_single());
        let port = match kind {
            CheckKind::Ping | CheckKind::File(_) => 0,
            CheckKind::Script(_) => port.unwrap_or(0),
            _ => port.unwrap_or(1),
        };
        let asks = !matches!(kind, CheckKind::Script(_) | CheckKind::File(_));
        let source = (sourced && asks).then(|| unicast(address.is_ipv6(), 8));
        Check { kind, target: CheckTarget { address, port, source, through }, pace }
    })
}

fn of_server(service: &Service, server: &Server, script_user: Option<String>) -> BoxedStrategy<ServerHealth> {
    let checks = vec(check(service, server, script_user), 0..3);
    let programs = (of(command()), of(command()));
    (checks, any::<bool>(), of(path()), programs)
        .prop_map(|(mut checks, inhibit, drain_file, (notify_up, notify_down))| {
            let all = std::mem::take(&mut checks);
            all.into_iter().for_each(|check| {
                if !checks.contains(&check) {
                    checks.push(check);
                }
            });
            let on_failure = if inhibit { OnFailure::Inhibit } else { OnFailure::Remove };
            ServerHealth { checks, default_check: false, on_failure, drain_file, notify_up, notify_down }
        })
        .boxed()
}

fn of_service(service: &Service) -> impl Strategy<Value = Health> + use<> {
    let nat = service.servers.iter().any(|server| server.method.is_nat()) || service.method.is_nat();
    let (v6, method) = (service.key.address.is_ipv6(), service.method);
    let quorum = (1u32..1_000_000, 0u32..1000, of(command()), of(command()));
    let damping = (2u16..=1000, millis(1000, 86_400_000), millis(1000, 86_400_000));
    let passive = (1u8..=100, 1u32..=1_000_000, millis(1000, 3_600_000), millis(1000, 86_400_000), 1u8..=100);
    let more = (of(damping), of(passive), of(millis(1000, 86_400_000)), of(user()));
    (quorum, any::<bool>(), any::<bool>(), more).prop_map(move |(quorum, sorry, drop, more)| {
        let (damping, passive, slow_start, script_user) = more;
        let address = match v6 {
            true => IpAddr::from([0x20, 1, 0xd, 0xb8, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]),
            false => IpAddr::from([172, 31, 1, 9]),
        };
        Health {
            quorum: Quorum { least: quorum.0, hysteresis: quorum.1.min(quorum.0 - 1), up: quorum.2, down: quorum.3 },
            // The method of the service: others may need keys that it has not.
            sorry: sorry.then(|| Box::new(Server::new(address, None, 1, method))),
            no_server: if drop { NoServer::Drop } else { NoServer::Refuse },
            slow_start,
            damping: damping.map(|(failures, window, hold)| Damping { failures, window, hold }),
            passive: passive.filter(|_| nat).map(|(failures_percent, least, window, eject, most_percent)| Passive {
                failures_percent,
                least,
                window,
                eject,
                most_percent,
            }),
            script_user,
        }
    })
}

/// The service with any health that fits it.
pub fn with_health(service: Service) -> BoxedStrategy<Service> {
    of_service(&service)
        .prop_flat_map(move |health| {
            let user = health.script_user.clone();
            let servers = service.servers.iter();
            let healths: Vec<_> = servers.map(|server| of_server(&service, server, user.clone())).collect();
            let service = Service { health, ..service.clone() };
            healths.prop_map(move |healths| {
                let mut service = service.clone();
                service.servers.iter_mut().zip(healths).for_each(|(server, health)| server.health = health);
                service
            })
        })
        .boxed()
}
