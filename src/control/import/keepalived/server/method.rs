//! `lvs_method`, which was `lb_kind`: how packets reach a server.
//!
//! Owns its words. Pure.

use super::super::desk::Desk;
use super::super::tree::Statement;
use crate::control::import::report::Note;

/// A method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// Its name in Evenkeel.
    pub name: &'static str,
    /// The port of GUE.
    pub gue_port: Option<u16>,
}

impl Method {
    /// keepalived's default.
    pub fn nat() -> Method {
        Method { name: "nat", gue_port: None }
    }

    /// `NAT`, `DR`, or `TUN` with its kind.
    pub fn read(statement: &Statement, desk: &mut Desk, notes: &mut Vec<Note>) -> Option<Method> {
        let mut method = match statement.word(1) {
            "NAT" => Method::nat(),
            "DR" => Method { name: "dr", gue_port: None },
            "TUN" => Method { name: "ipip", gue_port: None },
            _ => {
                desk.left_out(statement, "it is none of NAT, DR and TUN", notes);
                return None;
            }
        };
        if method.name != "ipip" {
            desk.taken(statement, 2, notes);
            return Some(method);
        }
        statement.taken();
        let mut words = statement.arguments().iter().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                // No checksum in the outer header is what there is.
                "type" | "nocsum" | "ipip" => {}
                "gue" => method.name = "gue",
                "gre" => method.name = "gre",
                "port" => match words.next().and_then(|port| port.parse().ok()).filter(|port| *port > 0) {
                    Some(port) => method.gue_port = Some(port),
                    None => desk.drop_words(&statement.at, "port".to_owned(), "it is no port from 1 to 65535", notes),
                },
                "csum" | "remcsum" => {
                    let reason = "the outer header has no checksum: servers take it without, as RFC 6935 has it";
                    desk.drop_words(&statement.at, word.clone(), reason, notes);
                }
                _ => desk.drop_words(&statement.at, word.clone(), "keepalived reads no more words here", notes),
            }
        }
        Some(method)
    }
}
