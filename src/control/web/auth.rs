//! Who a client of the web listener is: name and password (HTTP basic authentication, RFC 7617) against the users' hashes.
//!
//! Owns what is remembered of right passwords, and which attempts are looked at. Never shows a password or a hash.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use siphasher::sip128::{Hasher128, SipHasher24};
use tokio::sync::Semaphore;
use tracing::warn;

use super::limits::{Attempts, Noise, Tally};
use crate::control::naming::cut;
use crate::model::{Role, WebUser, WebUsers};

/// Most right passwords that are remembered.
const MOST_REMEMBERED: usize = 1024;

/// Most attempts that wait for their turn: one is looked at at a time.
const MOST_WAITING: usize = 32;

/// Somebody who may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Visitor {
    /// The name, where there was a password.
    pub name: Option<String>,
    /// What is allowed.
    pub role: Role,
    /// Where from.
    pub address: IpAddr,
}

impl fmt::Display for Visitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} at {}", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no password.
    None,
    /// It is none of a user.
    Wrong,
    /// Too many were wrong: try again after so many seconds.
    Later(u64),
}

/// The users, and what is known of their passwords.
pub(super) struct Door {
    users: Option<WebUsers>,
    /// A hash that no password has, which costs what the dearest of the users' costs.
    nobody: String,
    keys: (u64, u64),
    /// Users by what their right passwords hash to, by a key that nobody knows.
    remembered: Mutex<HashMap<u128, usize>>,
    waiting: Semaphore,
    one: Semaphore,
}

impl Door {
    /// For the users of a configuration; `None`: everybody is a reader.
    pub fn new(users: Option<WebUsers>) -> Door {
        let costs = users.iter().flat_map(|users| &users.list).filter_map(|user| user.hash.get(4..6));
        let cost = costs.max().unwrap_or("05").to_owned();
        let random = || RandomState::new().hash_one(0);
        Door {
            users,
            nobody: format!("$2y${cost}${}", ".".repeat(53)),
            keys: (random(), random()),
            remembered: Mutex::default(),
            waiting: Semaphore::new(MOST_WAITING),
            one: Semaphore::new(1),
        }
    }

    /// Whether there are users.
    pub const fn asks(&self) -> bool {
        self.users.is_some()
    }

    /// Lets somebody in, or not.
    pub async fn enter(
        &self,
        headers: &HeaderMap,
        address: IpAddr,
        attempts: &Mutex<Attempts>,
        noise: &Mutex<Noise>,
        tally: &Tally,
    ) -> Result<Visitor, Refusal> {
        let Some(users) = &self.users else { return Ok(Visitor { name: None, role: Role::Reader, address }) };
        let Some((name, password)) = headers.get(AUTHORIZATION).and_then(|value| credentials(value.as_bytes())) else {
            return Err(Refusal::None);
        };
        let welcome = |user: &WebUser| Visitor { name: Some(user.name.clone()), role: user.role, address };
        let key = self.key(&name, &password);
        if let Some(user) = lock(&self.remembered).get(&key).and_then(|at| users.list.get(*at)) {
            return Ok(welcome(user));
        }
        // Before the work, and given back where the password is right.
        if let Err(seconds) = lock(attempts).take(address, Instant::now()) {
            tally.limited.add();
            return Err(Refusal::Later(seconds));
        }
        let Ok(_queued) = self.waiting.try_acquire() else {
            tally.limited.add();
            return Err(Refusal::Later(2));
        };
        let at = users.list.iter().position(|user| user.name == name);
        let hash = at.and_then(|at| users.list.get(at)).map_or(&self.nobody, |user| &user.hash).clone();
        let turn = self.one.acquire().await;
        // Milliseconds to seconds of work: on a thread of its own, so that nobody else waits for it.
        let right = tokio::task::spawn_blocking(move || bcrypt::verify(&password, &hash).unwrap_or(false)).await;
        drop(turn);
        match at.and_then(|at| users.list.get(at).map(|user| (at, user))) {
            Some((at, user)) if right.unwrap_or(false) => {
                lock(attempts).give_back(address);
                let mut remembered = lock(&self.remembered);
                if remembered.len() >= MOST_REMEMBERED {
                    remembered.clear();
                }
                remembered.insert(key, at);
                Ok(welcome(user))
            }
            _ => {
                tally.wrong_passwords.add();
                if let Some(more) = lock(noise).say(address, Instant::now()) {
                    let more =
                        if more > 0 { format!(" (and {more} more since it was last said)") } else { String::new() };
                    warn!("web: wrong name or password: {:?} at {address}{more}", cut(&name));
                }
                Err(Refusal::Wrong)
            }
        }
    }

    fn key(&self, name: &str, password: &[u8]) -> u128 {
        let mut hasher = SipHasher24::new_with_keys(self.keys.0, self.keys.1);
        hasher.write_usize(name.len());
        hasher.write(name.as_bytes());
        hasher.write(password);
        hasher.finish128().as_u128()
    }
}

/// A lock whose holder never panics with it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Name and password of an `Authorization` header.
fn credentials(value: &[u8]) -> Option<(String, Vec<u8>)> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let pair = STANDARD.decode(rest.trim_ascii()).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    let name = std::str::from_utf8(pair.get(..colon)?).ok()?;
    Some((name.to_owned(), pair.get(colon + 1..)?.to_vec()))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn users() -> WebUsers {
        let user = |name: &str, password: &str, role| WebUser {
            name: name.to_owned(),
            hash: bcrypt::hash(password, 4).expect("a hash"),
            role,
        };
        let list = vec![user("alice", "geheim", Role::Admin), user("bob", "", Role::Reader)];
        WebUsers { file: "/nowhere".into(), list }
    }

    fn with(pair: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let value = format!("Basic {}", STANDARD.encode(pair));
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&value).expect("a header"));
        headers
    }

    #[test]
    fn credentials_are_read_or_not() {
        let read = |text: &str| credentials(text.as_bytes());
        let of = |name: &str, password: &str| Some((name.to_owned(), password.as_bytes().to_vec()));
        assert_eq!(read("Basic YTpi"), of("a", "b"));
        assert_eq!(read("bAsIc  YTpi "), of("a", "b"));
        assert_eq!(read(&format!("Basic {}", STANDARD.encode("a:b:c"))), of("a", "b:c"));
        assert_eq!(read(&format!("Basic {}", STANDARD.encode(":"))), of("", ""));
        for wrong in ["", "Basic", "Basic ", "Basic YTpi=", "Bearer YTpi", "Basic YWI=", "Basic /zph", "Basic \u{7f}"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn passwords_are_judged_and_remembered() {
        let (door, attempts, noise, tally) =
            (Door::new(Some(users())), Mutex::default(), Mutex::default(), Tally::default());
        let from: IpAddr = "192.0.2.1".parse().unwrap();
        let enter = async |headers: &HeaderMap| door.enter(headers, from, &attempts, &noise, &tally).await;
        assert_eq!(enter(&HeaderMap::new()).await, Err(Refusal::None));
        // A right one never counts against anybody.
        for _ in 0..100 {
            let alice = enter(&with("alice:geheim")).await.expect("is let in");
            assert_eq!((alice.name.as_deref(), alice.role), (Some("alice"), Role::Admin));
        }
        assert_eq!(enter(&with("bob:")).await.map(|bob| bob.role), Ok(Role::Reader));
        assert_eq!(lock(&door.remembered).len(), 2);
        for wrong in ["alice:", "alice:geheim2", "Alice:geheim", "carol:geheim", ":", "bob:geheim"] {
            assert_eq!(enter(&with(wrong)).await, Err(Refusal::Wrong), "{wrong}");
        }
        assert_eq!(tally.wrong_passwords.get(), 6);
        let mut later = 0;
        for _ in 0..50 {
            match enter(&with("alice:guess")).await {
                Err(Refusal::Later(seconds)) => {
                    assert!((1..=60).contains(&seconds));
                    later += 1;
                }
                other => assert_eq!(other, Err(Refusal::Wrong)),
            }
        }
        assert!(later > 30, "{later}");
        assert_eq!(tally.limited.get(), later);
        // Who is known is not kept out by those who guess.
        assert!(enter(&with("alice:geheim")).await.is_ok());
        // Others are judged for themselves.
        let other = door.enter(&with("alice:x"), "192.0.2.2".parse().unwrap(), &attempts, &noise, &tally).await;
        assert_eq!(other, Err(Refusal::Wrong));
    }

    #[tokio::test]
    async fn an_unknown_name_costs_what_a_known_one_costs() {
        let door = Door::new(Some(users()));
        assert_eq!(door.nobody.len(), 60);
        assert_eq!(door.nobody.get(..7), Some("$2y$04$"));
        // It is a hash indeed, or the comparison would end at once.
        assert!(matches!(bcrypt::verify("x", &door.nobody), Ok(false)));
        let nobody = Door::new(None);
        let headers = with("alice:wrong");
        let tally = Tally::default();
        let anybody =
            nobody.enter(&headers, "::1".parse().unwrap(), &Mutex::default(), &Mutex::default(), &tally).await;
        assert_eq!(anybody.map(|visitor| (visitor.name, visitor.role)), Ok((None, Role::Reader)));
    }
}
