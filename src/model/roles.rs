//! Who may speak with the running engine, and what they may ask of it.
//!
//! Owns the lists as the operator wrote them, with the numbers that they stood for when they were read, and the decision who
//! is in them. Never asks the machine. Pure.

use std::fmt;

/// What a client of the control socket may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Ask, and change nothing.
    Reader,
    /// Ask for everything.
    Admin,
}

/// Somebody on a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Whoever can open the socket.
    Anyone,
    /// A user.
    User {
        /// As written: a name or a number.
        word: String,
        /// The number.
        id: u32,
    },
    /// A group: its members, and those whose own group it is.
    Group {
        /// As written, with the `@`: a name or a number.
        word: String,
        /// The number.
        id: u32,
        /// Users who are its members.
        members: Vec<u32>,
    },
}

impl Who {
    /// As written.
    pub fn word(&self) -> &str {
        match self {
            Who::Anyone => "*",
            Who::User { word, .. } | Who::Group { word, .. } => word,
        }
    }

    /// Whether a process is meant.
    fn is(&self, peer: Peer) -> bool {
        match self {
            Who::Anyone => true,
            Who::User { id, .. } => *id == peer.uid,
            Who::Group { id, members, .. } => *id == peer.gid || members.contains(&peer.uid),
        }
    }
}

/// The process at the other end of a socket, as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// Its number; 0 where it is in another PID namespace.
    pub pid: i32,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {}, pid {}", self.uid, self.pid)
    }
}

/// Who may do what. Root and the engine's own user are admins in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Admins besides root and the engine's own user.
    pub admins: Vec<Who>,
    /// Those who may ask, and change nothing.
    pub readers: Vec<Who>,
}

/// Whom the socket's file must let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The engine's own user and group.
    Own,
    /// This group besides the engine's own user.
    Group(u32),
    /// Everybody: who may stay is decided by who they are.
    Open,
}

impl Roles {
    /// What a process may do; `None`: nothing. `own`: the user that the engine runs as.
    pub fn role(&self, peer: Peer, own: u32) -> Option<Role> {
        let listed = |list: &[Who]| list.iter().any(|who| who.is(peer));
        if peer.uid == 0 || peer.uid == own || listed(&self.admins) {
            Some(Role::Admin)
        } else {
            listed(&self.readers).then_some(Role::Reader)
        }
    }

    /// Whom the socket's file must let in.
    pub fn door(&self) -> Door {
        let mut all = self.admins.iter().chain(&self.readers);
        match (all.next(), all.next()) {
            (None, _) => Door::Own,
            (Some(Who::Group { id, .. }), None) => Door::Group(*id),
            _ => Door::Open,
        }
    }

    /// The admins in words.
    pub fn admins_in_words(&self) -> String {
        let more: String = self.admins.iter().map(|who| format!(", {}", who.word())).collect();
        format!("root, the engine's own user{more}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn peer(uid: u32, gid: u32) -> Peer {
        Peer { uid, gid, pid: 1 }
    }

    fn user(id: u32) -> Who {
        Who::User { word: id.to_string(), id }
    }

    fn group(id: u32, members: &[u32]) -> Who {
        Who::Group { word: format!("@{id}"), id, members: members.to_vec() }
    }

    #[test]
    fn users_members_and_own_groups_have_their_roles() {
        let roles = Roles { admins: vec![user(1000), group(50, &[1001])], readers: vec![group(60, &[1001, 1002])] };
        for (uid, gid, role) in [
            (0, 0, Some(Role::Admin)),
            (999, 999, Some(Role::Admin)),
            (1000, 7, Some(Role::Admin)),
            (1001, 7, Some(Role::Admin)),
            (1003, 50, Some(Role::Admin)),
            (1002, 7, Some(Role::Reader)),
            (1003, 60, Some(Role::Reader)),
            (1003, 0, None),
            (50, 7, None),
        ] {
            assert_eq!(roles.role(peer(uid, gid), 999), role, "uid {uid}, gid {gid}");
        }
        let nobody = Roles::default();
        assert_eq!((nobody.role(peer(1, 0), 0), nobody.role(peer(0, 5), 7)), (None, Some(Role::Admin)));
        let anyone = Roles { readers: vec![Who::Anyone], ..Roles::default() };
        assert_eq!((anyone.role(peer(1, 1), 0), anyone.role(peer(0, 5), 7)), (Some(Role::Reader), Some(Role::Admin)));
    }

    #[test]
    fn the_door_is_as_wide_as_the_lists() {
        let of = |admins: Vec<Who>, readers: Vec<Who>| Roles { admins, readers }.door();
        assert_eq!(of(vec![], vec![]), Door::Own);
        assert_eq!(of(vec![group(50, &[])], vec![]), Door::Group(50));
        assert_eq!(of(vec![], vec![group(60, &[])]), Door::Group(60));
        assert_eq!(of(vec![group(50, &[])], vec![group(60, &[])]), Door::Open);
        assert_eq!(of(vec![user(1)], vec![]), Door::Open);
        assert_eq!(of(vec![], vec![Who::Anyone]), Door::Open);
    }
}
