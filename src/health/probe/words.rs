//! What went wrong below the protocols, in words. Pure.
//!
//! Owns the line between a server that is not good and a machine that cannot ask. Never opens anything.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use crate::health::{Failure, Outcome, Reason};
use crate::model::{CheckTarget, Through};

/// A span for people: `2 s`, `1.5 s`, `250 ms`.
pub fn span(time: Duration) -> String {
    let ms = time.as_millis();
    match ms {
        0 => format!("{} us", time.as_micros()),
        1..1000 => format!("{ms} ms"),
        _ => format!("{} s", ms as f64 / 1000.0),
    }
}

/// What the network said of a packet or a connection after it was sent.
pub fn told(error: &io::Error) -> Outcome {
    let Some(number) = error.raw_os_error() else {
        return Outcome::bad(Reason::Closed, error.to_string());
    };
    let (reason, words) = match number {
        libc::ECONNREFUSED => (Reason::Refused, "connection refused"),
        libc::ECONNRESET => (Reason::Closed, "connection reset"),
        libc::EPIPE | libc::ECONNABORTED => (Reason::Closed, "connection closed"),
        libc::EHOSTUNREACH | libc::EHOSTDOWN => (Reason::Unreachable, "no route to host"),
        libc::ENETUNREACH => (Reason::Unreachable, "network unreachable, a router says"),
        libc::EACCES | libc::EPERM => (Reason::Unreachable, "prohibited, a router says"),
        libc::ENOPROTOOPT | libc::EPROTO => (Reason::Refused, "protocol unreachable"),
        libc::EMSGSIZE => (Reason::Unreachable, "a packet is too large for the path"),
        libc::ETIMEDOUT => (Reason::Timeout, "connection timed out"),
        _ => return unable("ask", error),
    };
    Outcome::bad(reason, words)
}

/// What this machine said at once to a call that asks the server: only a refusal is the server's own.
pub fn refused_here(to: IpAddr, error: &io::Error) -> Outcome {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::ECONNRESET) => told(error),
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => Outcome::Unable(format!("this machine has no route to {to}")),
        Some(libc::EADDRNOTAVAIL) => {
            Outcome::Unable(format!("this machine has no address or port free to ask {to} from"))
        }
        Some(libc::EACCES | libc::EPERM) => Outcome::Unable(format!("this machine may not send to {to} ({error})")),
        _ => unable("ask", error),
    }
}

/// This machine could not do `what`.
pub fn unable(what: &str, error: &io::Error) -> Outcome {
    match error.raw_os_error() {
        Some(libc::EMFILE) => {
            Outcome::Unable(format!("cannot {what}: this process has no descriptors left (LimitNOFILE)"))
        }
        Some(libc::ENFILE) => {
            Outcome::Unable(format!("cannot {what}: this machine has no descriptors left (fs.file-max)"))
        }
        Some(libc::EACCES | libc::EPERM) => {
            Outcome::Unable(format!("cannot {what}: not permitted; CAP_NET_RAW and CAP_NET_ADMIN are needed"))
        }
        _ => Outcome::Unable(format!("cannot {what}: {error}")),
    }
}

/// What it means that a check on that very server came to nothing before anything answered: whether the server has the
/// service's address at all.
pub fn through(failure: Failure, target: &CheckTarget, through: &Through) -> Failure {
    let (server, service, port) = (through.server, target.address, target.port);
    let meaning = match failure.reason {
        Reason::Timeout | Reason::Unreachable => {
            format!("{server} does not answer for {service}: is the address on its lo, and does it reach us?")
        }
        Reason::Refused => format!(
            "the server has {service}, but nothing listens on port {port} there: the daemon may be bound to another address"
        ),
        _ => return failure,
    };
    Failure { words: format!("{}: {meaning}", failure.words), ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Method, TunnelSettings};

    #[test]
    fn spans() {
        for (time, expected) in [
            (Duration::from_micros(40), "40 us"),
            (Duration::from_millis(1), "1 ms"),
            (Duration::from_millis(999), "999 ms"),
            (Duration::from_secs(2), "2 s"),
            (Duration::from_millis(1500), "1.5 s"),
            (Duration::from_millis(61_001), "61.001 s"),
        ] {
            assert_eq!(span(time), expected);
        }
    }

    #[test]
    fn the_server_is_told_from_this_machine() {
        let to = IpAddr::from([10, 0, 0, 11]);
        let reason = |outcome| match outcome {
            Outcome::Bad(failure) => Some(failure.reason),
            Outcome::Unable(words) => {
                assert!(!words.is_empty());
                None
            }
            Outcome::Good { .. } => panic!("an error is never good"),
        };
        for (number, network, here) in [
            (libc::ECONNREFUSED, Some(Reason::Refused), Some(Reason::Refused)),
            (libc::ECONNRESET, Some(Reason::Closed), Some(Reason::Closed)),
            (libc::EHOSTUNREACH, Some(Reason::Unreachable), None),
            (libc::ENETUNREACH, Some(Reason::Unreachable), None),
            (libc::EPERM, Some(Reason::Unreachable), None),
            (libc::ETIMEDOUT, Some(Reason::Timeout), None),
            (libc::EMFILE, None, None),
            (libc::ENFILE, None, None),
            (libc::ENOBUFS, None, None),
            (libc::ENOMEM, None, None),
            (libc::EADDRNOTAVAIL, None, None),
            (libc::EADDRINUSE, None, None),
            (libc::ENETDOWN, None, None),
        ] {
            let error = io::Error::from_raw_os_error(number);
            assert_eq!(reason(told(&error)), network, "{error}");
            assert_eq!(reason(refused_here(to, &error)), here, "{error}");
            assert_eq!(reason(unable("open a socket", &error)), None, "{error}");
        }
    }

    #[test]
    fn a_server_without_the_address_is_told_from_one_whose_daemon_is_elsewhere() {
        let target = CheckTarget { address: [192, 0, 2, 10].into(), port: 80, source: None, through: None };
        let way = Through { server: [10, 0, 0, 11].into(), method: Method::Dr, tunnel: TunnelSettings::default() };
        let words = |reason, words: &str| through(Failure { reason, words: words.into() }, &target, &way).words;
        assert_eq!(
            words(Reason::Timeout, "no connection in 2 s"),
            "no connection in 2 s: 10.0.0.11 does not answer for 192.0.2.10: is the address on its lo, and does it reach us?"
        );
        assert_eq!(
            words(Reason::Refused, "connection refused"),
            "connection refused: the server has 192.0.2.10, but nothing listens on port 80 there: the daemon may be bound to \
             another address"
        );
        assert_eq!(words(Reason::Answer, "status 503, wanted 200-299"), "status 503, wanted 200-299");
    }
}
