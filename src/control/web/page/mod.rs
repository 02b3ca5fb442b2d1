//! The status page: its files, and the compact picture that it asks for.
//!
//! Owns what a browser gets under `/` and `/api/page`, and how long it may keep it. Changes nothing: the page sends what an admin
//! decides to `/api`, as everybody does. [`query`] reads what is asked, [`view`] makes the answer.
//!
//! `query <- view <- mod <- routes`

mod query;
mod view;

use std::sync::LazyLock;

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::api::{refused, refused_as};
use super::routes::{Body, Site, of_type};
use crate::control::socket::Code;
use crate::control::unix_time;
use query::Query;

/// A file of the page.
struct Asset {
    path: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

const ASSETS: [Asset; 4] = [
    Asset { path: "/", kind: "text/html; charset=utf-8", bytes: include_bytes!("page.html") },
    Asset { path: "/page.css", kind: "text/css; charset=utf-8", bytes: include_bytes!("page.css") },
    Asset { path: "/page.js", kind: "text/javascript; charset=utf-8", bytes: include_bytes!("page.js") },
    Asset { path: "/page.svg", kind: "image/svg+xml", bytes: include_bytes!("page.svg") },
];

/// What a browser may do with the page: run its own script, ask its own origin, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A name for the files as they are in this program: FNV-1a of all of them.
static EDITION: LazyLock<String> = LazyLock::new(|| {
    let all = ASSETS.iter().flat_map(|asset| asset.bytes);
    let hash =
        all.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
});

/// A file of the page, if there is one under this path. A browser asks each time whether the file is still the same: after an
/// upgrade nobody has the page of before.
pub fn asset(path: &str, asked: &HeaderMap) -> Option<Response<Body>> {
    let asset = ASSETS.iter().find(|asset| asset.path == path)?;
    let tag = format!("\"{}\"", *EDITION);
    let known = asked.get(IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    let is_known = known.is_some_and(|tags| tags.split(',').any(|one| one.trim().trim_start_matches("W/") == tag));
    let mut response = match is_known {
        true => of_type(StatusCode::NOT_MODIFIED, asset.kind, Bytes::new()),
        false => of_type(StatusCode::OK, asset.kind, Bytes::from_static(asset.bytes)),
    };
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    Some(response)
}

/// The answer with what tells a page that it is of another program.
#[derive(Serialize)]
struct Whole<'s> {
    edition: &'static str,
    #[serde(flatten)]
    view: view::View<'s>,
}

/// Answers `/api/page`; `asked`: what stands behind the `?`.
pub async fn picture(site: &Site, asked: &str) -> Response<Body> {
    let query = match Query::read(asked) {
        Ok(query) => query,
        Err(why) => return refused(Code::Invalid, &why),
    };
    let Some(status) = site.picture().await else {
        return refused_as(StatusCode::SERVICE_UNAVAILABLE, Code::Failed, "the control loop does not answer");
    };
    let now = unix_time();
    match serde_json::to_vec(&Whole { edition: &EDITION, view: view::view(&status, &query, now) }) {
        Ok(bytes) => of_type(StatusCode::OK, "application/json", bytes.into()),
        Err(error) => refused_as(StatusCode::INTERNAL_SERVER_ERROR, Code::Failed, &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_small_and_kept_until_they_change() {
        assert!(ASSETS.iter().map(|asset| asset.bytes.len()).sum::<usize>() < 60_000);
        let first = asset("/", &HeaderMap::new()).expect("is there");
        assert_eq!(first.status(), StatusCode::OK);
        let policy = first.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let again = |tag: &str| {
            let mut asked = HeaderMap::new();
            asked.insert(IF_NONE_MATCH, HeaderValue::from_str(tag).unwrap());
            asset("/page.js", &asked).expect("is there").status()
        };
        let tag = first.headers()[ETAG].to_str().unwrap();
        assert_eq!(again(tag), StatusCode::NOT_MODIFIED);
        assert_eq!(again(&format!("\"x\", W/{tag}")), StatusCode::NOT_MODIFIED);
        assert_eq!(again("\"x\""), StatusCode::OK);
        assert!(asset("/page.html", &HeaderMap::new()).is_none());
    }

    #[test]
    fn files_name_no_other_place_and_hold_nothing_inline() {
        for asset in &ASSETS {
            let text = std::str::from_utf8(asset.bytes).expect("UTF-8");
            let text = text.replace("http://www.w3.org/2000/svg", "");
            for word in
                ["http:", "https:", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "style=\"", " onclick="]
            {
                assert!(!text.contains(word), "{}: {word}", asset.path);
            }
        }
        let html = std::str::from_utf8(ASSETS[0].bytes).unwrap();
        assert_eq!(html.matches("<script").count(), html.matches("<script src=\"/page.js\" defer></script>").count());
        assert!(!html.contains("<style"));
    }
}
