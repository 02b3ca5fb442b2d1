//! DNS as clients speak it: `dig`, and questions with numbers in them.
//!
//! Owns the names that are asked for, in the zones of [`crate::lab::server::unbound`].

use std::net::SocketAddr;
use std::process::Command;
use std::str::FromStr;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};

use crate::lab::error::LabError;
use crate::lab::process::require;
use crate::lab::server::unbound::{NAMES, WHO};
use crate::lab::site::{CLIENT, Site};

/// A question for who answers, whose name has a number in it.
pub fn question(number: usize) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    if let Ok(name) = Name::from_str(&format!("n{number}.{WHO}.")) {
        message.add_query(Query::query(name, RecordType::TXT));
    }
    message.to_vec().unwrap_or_default()
}

/// Who answered which number.
pub fn answer(datagram: &[u8]) -> Option<(String, usize)> {
    let message = Message::from_vec(datagram).ok()?;
    let record = message.answers.first()?;
    let name = record.name.to_string();
    let number = name.strip_prefix('n')?.split('.').next()?.parse().ok()?;
    match &record.data {
        RData::TXT(text) => Some((text.to_string(), number)),
        _ => None,
    }
}

/// What `dig` on the client says when it asks `target` once, for an address; `Err` has its words.
pub fn dig(site: &Site, target: SocketAddr, tcp: bool) -> Result<String, LabError> {
    let mut command = Command::new(require("dig", "bind9-dnsutils")?);
    command.arg(format!("@{}", target.ip())).args(["-p", &target.port().to_string()]);
    command.args(["+short", "+tries=1", "+timeout=2", if tcp { "+tcp" } else { "+notcp" }]);
    command.args([&format!("www.{}", NAMES.0), "A"]);
    site.lab.output(CLIENT, &command)
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::TXT;

    use super::*;

    #[test]
    fn a_question_finds_its_answer() {
        let mut message = Message::from_vec(&question(17)).expect("a message");
        let name = message.queries.first().expect("a question").name().clone();
        assert_eq!(answer(&question(17)), None);
        message.add_answer(Record::from_rdata(name, 0, RData::TXT(TXT::new(vec!["server2".into()]))));
        assert_eq!(answer(&message.to_vec().expect("bytes")), Some(("server2".into(), 17)));
    }
}
