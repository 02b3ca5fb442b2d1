//! What keeps other web sites out: whose name a request was sent to, and which page sent it.
//!
//! Owns the judgement by headers. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};

/// What every answer has that says nothing else.
const USUAL: [(HeaderName, &str); 6] = [
    (CACHE_CONTROL, "no-store"),
    (CONTENT_SECURITY_POLICY, "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"),
    (REFERRER_POLICY, "no-referrer"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Completes the headers of an answer.
pub(super) fn complete(headers: &mut HeaderMap) {
    for (name, value) in USUAL {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// Name and port of a `Host` header or an origin, such as `[::1]:80`.
fn name_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    authority.split(':').next().unwrap_or_default()
}

/// Why the name that a request was sent to is none of this machine, if so: a page of another site can have its own name point
/// here (DNS rebinding), and would then read what it gets. `machine`: this machine's name.
pub(super) fn foreign_host(headers: &HeaderMap, machine: &str) -> Option<String> {
    let host = headers.get(HOST)?;
    let host = host.to_str().unwrap_or_default();
    let name = name_of(host).trim_end_matches('.').to_ascii_lowercase();
    let is_address = name.parse::<Ipv4Addr>().is_ok() || name.parse::<Ipv6Addr>().is_ok();
    let is_local = name == "localhost" || name.ends_with(".localhost");
    let first = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let is_own = !first(machine).is_empty() && first(&name) == first(machine);
    if is_address || is_local || is_own {
        return None;
    }
    Some(format!(
        "this listener is asked under the name {:?}, which is none of this machine; ask for its address, `localhost` or its own \
         name, or give it `users` in `[web]`",
        crate::control::naming::cut(host)
    ))
}

/// Why a request that changes something is another site's, if it is.
pub(super) fn foreign_page(headers: &HeaderMap) -> Option<&'static str> {
    let other = "the page that asks is of another site";
    if let Some(site) = headers.get("sec-fetch-site") {
        // `none`: a person, not a page.
        return (!matches!(site.as_bytes(), b"same-origin" | b"none")).then_some(other);
    }
    let origin = headers.get(ORIGIN)?.to_str().unwrap_or_default();
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")).unwrap_or_default();
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    (authority.is_empty() || !authority.eq_ignore_ascii_case(host)).then_some(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_names_of_this_machine_are_answered() {
        for own in [
            "127.0.0.1",
            "127.0.0.1:9112",
            "[::1]",
            "[fd00::1]:9112",
            "192.0.2.1:80",
            "localhost:9112",
            "LOCALHOST",
            "a.localhost",
            "lb1",
            "LB1:9112",
            "lb1.example.org:9112",
            "lb1.",
        ] {
            assert_eq!(foreign_host(&headers(&[("host", own)]), "lb1.example.net"), None, "{own}");
        }
        assert_eq!(foreign_host(&HeaderMap::new(), "lb1"), None);
        for other in
            ["evil.example", "evil.example:9112", "127.0.0.1.evil.example", "[evil", "", ".", "lb11", "localhost.evil"]
        {
            let why = foreign_host(&headers(&[("host", other)]), "lb1").expect("is refused");
            assert!(why.contains("none of this machine"), "{why}");
            assert!(foreign_host(&headers(&[("host", other)]), "").is_some(), "{other}");
        }
    }

    #[test]
    fn pages_of_others_change_nothing() {
        for own in [
            &[][..],
            &[("sec-fetch-site", "same-origin"), ("origin", "https://proxy.example"), ("host", "10.0.0.1:9112")],
            &[("sec-fetch-site", "none")],
            &[("origin", "http://10.0.0.1:9112"), ("host", "10.0.0.1:9112")],
            &[("origin", "https://LB1:9112"), ("host", "lb1:9112")],
        ] {
            assert_eq!(foreign_page(&headers(own)), None, "{own:?}");
        }
        for other in [
            &[("sec-fetch-site", "cross-site")][..],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "cross-site"), ("origin", "http://a"), ("host", "a")],
            &[("origin", "null"), ("host", "a")],
            &[("origin", "http://a")],
            &[("origin", "http://evil.example"), ("host", "10.0.0.1:9112")],
            &[("origin", "http://10.0.0.1:80"), ("host", "10.0.0.1:9112")],
        ] {
            assert!(foreign_page(&headers(other)).is_some(), "{other:?}");
        }
    }

    #[test]
    fn answers_get_what_they_lack() {
        let mut all = headers(&[("cache-control", "max-age=60")]);
        complete(&mut all);
        assert_eq!(all["cache-control"], "max-age=60");
        assert_eq!(all["x-content-type-options"], "nosniff");
        assert!(all["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'none'"));
    }
}
