//! Connection states and their transitions as IPVS sees them: when both halves pass by, and when only the client's does.
//!
//! Pure tables: `ip_vs_proto_tcp.c` and `ip_vs_proto_sctp.c`. Never holds a flow.

use crate::dataplane::parse::{SCTP, TCP, tcp_flag};
use crate::model::Timeouts;

/// State of a flow: TCP states 0-10 and SCTP states 17-30 with IPVS's numbers (SCTP's shifted by 17), UDP 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct State(pub u8);

/// Size of tables that are indexed by [`State`].
pub const STATES: usize = 32;

const SCTP_BASE: u8 = 17;
const SCTP_STATES: usize = 14;
const TCP_STATES: usize = 11;

impl State {
    /// TCP before its first packet was looked at.
    pub const TCP_NONE: State = State(0);
    /// TCP established: the only TCP state that counts as an active connection.
    pub const TCP_ESTABLISHED: State = State(1);
    /// TCP SYN seen.
    pub const TCP_SYN_RECV: State = State(3);
    /// TCP closing, client's FIN seen.
    pub const TCP_FIN_WAIT: State = State(4);
    /// TCP closed by both ends.
    pub const TCP_TIME_WAIT: State = State(5);
    /// TCP closed or picked up in mid-stream.
    pub const TCP_CLOSE: State = State(6);
    /// UDP, which has one state.
    pub const UDP: State = State(16);
    /// SCTP before its first packet was looked at.
    pub const SCTP_NONE: State = State(SCTP_BASE);
    /// SCTP established.
    pub const SCTP_ESTABLISHED: State = State(SCTP_BASE + 8);

    /// The state in which a flow of this protocol starts.
    pub const fn initial(protocol: u8) -> State {
        match protocol {
            TCP => State::TCP_NONE,
            SCTP => State::SCTP_NONE,
            _ => State::UDP,
        }
    }

    /// Whether a flow in this state counts as an active connection (`ActiveConn`); UDP never does.
    pub const fn is_active(self) -> bool {
        self.0 == State::TCP_ESTABLISHED.0 || self.0 == State::SCTP_ESTABLISHED.0
    }

    /// Whether a flow in this state may give way to a new one when the table is full: nobody is using it.
    pub const fn gives_way(self) -> bool {
        self.0 < 16 && self.0 != State::TCP_ESTABLISHED.0
    }

    /// Whether a TCP connection in this state is ending or has ended.
    pub const fn is_closing(self) -> bool {
        matches!(self.0, FW | TW | CL | CW | LA)
    }

    /// Name as `ipvsadm -Lnc` prints it.
    pub const fn name(self) -> &'static str {
        const NAMES: [&str; STATES] = [
            "NONE",
            "ESTABLISHED",
            "SYN_SENT",
            "SYN_RECV",
            "FIN_WAIT",
            "TIME_WAIT",
            "CLOSE",
            "CLOSE_WAIT",
            "LAST_ACK",
            "LISTEN",
            "SYNACK",
            "?",
            "?",
            "?",
            "?",
            "?",
            "UDP",
            "NONE",
            "INIT1",
            "INIT",
            "C-SENT",
            "C-REPLIED",
            "C-WAIT",
            "COOKIE",
            "C-ECHOED",
            "ESTABLISHED",
            "S-SENT",
            "S-RECEIVED",
            "S-ACK-SENT",
            "REJECTED",
            "CLOSED",
            "?",
        ];
        NAMES[self.0 as usize & (STATES - 1)]
    }
}

const ES: u8 = 1;
const SS: u8 = 2;
const SR: u8 = 3;
const FW: u8 = 4;
const TW: u8 = 5;
const CL: u8 = 6;
const CW: u8 = 7;
const LA: u8 = 8;
const LI: u8 = 9;

/// Which half of a connection a packet belongs to, and whether the other one is seen at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Side {
    /// From the client, whose server's answers do not pass by (direct routing, tunnels).
    Only = 0,
    /// From the client, where both halves pass by (NAT).
    Client = 1,
    /// From the server.
    Server = 2,
}

/// `ip_vs_proto_tcp.c`: INPUT-ONLY, INPUT, OUTPUT; rows are SYN, FIN, ACK, RST.
#[rustfmt::skip]
const TCP_TABLE: [[[u8; TCP_STATES]; 4]; 3] = [
    [
        //NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
        [ SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR ],
        [ CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW ],
        [ CL, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES ],
        [ CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL ],
    ],
    [
        [ SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR ],
        [ CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW ],
        [ CL, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES ],
        [ CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR ],
    ],
    [
        [ SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR ],
        [ TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW ],
        [ ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES ],
        [ CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL ],
    ],
];

/// The row of [`TCP_TABLE`] for each combination of the low five flag bits; 4 means "no known flag": CLOSE.
const TCP_ROW: [u8; 32] = {
    let mut rows = [4u8; 32];
    let mut flags = 0;
    while flags < 32 {
        rows[flags] = if flags as u8 & tcp_flag::RST != 0 {
            3
        } else if flags as u8 & tcp_flag::SYN != 0 {
            0
        } else if flags as u8 & tcp_flag::FIN != 0 {
            1
        } else if flags as u8 & tcp_flag::ACK != 0 {
            2
        } else {
            4
        };
        flags += 1;
    }
    rows
};

/// The TCP table, by side, row and state, padded so that an index of masked values cannot be out of range.
static TCP_NEXT: [[[u8; 16]; 8]; 4] = {
    let mut next = [[[CL; 16]; 8]; 4];
    let mut side = 0;
    while side < 3 {
        let mut row = 0;
        while row < 4 {
            let mut state = 0;
            while state < TCP_STATES {
                next[side][row][state] = TCP_TABLE[side][row][state];
                state += 1;
            }
            row += 1;
        }
        side += 1;
    }
    next
};

/// The TCP state after a packet with these flags (`set_tcp_state`: RST before SYN before FIN before ACK).
#[inline]
pub fn tcp_next(side: Side, state: State, flags: u8) -> State {
    let row = TCP_ROW[usize::from(flags & 31)];
    State(TCP_NEXT[side as usize & 3][usize::from(row & 7)][usize::from(state.0 & 15)])
}

/// Whether a client's packet, not its first one, shows that its flow is one: who only pretends to be somebody gets no answers,
/// and so has nothing to confirm. `after` is the state that the packet leads to.
pub fn proves(protocol: u8, after: State, tcp_flags: u8) -> bool {
    match protocol {
        TCP => tcp_flags & (tcp_flag::SYN | tcp_flag::RST) == 0,
        SCTP => after.is_active(),
        _ => true,
    }
}

/// Rows of the SCTP table.
const SCTP_DATA: u8 = 0;

/// `ip_vs_proto_sctp.c`: INPUT-ONLY, INPUT, OUTPUT. Rows: data, INIT, INIT-ACK, COOKIE-ECHO, COOKIE-ACK, SHUTDOWN,
/// SHUTDOWN-ACK, SHUTDOWN-COMPLETE, ERROR, ABORT. Columns: NONE, INIT1, INIT, C-SENT, C-REPLIED, C-WAIT, COOKIE,
/// C-ECHOED, ESTABLISHED, S-SENT, S-RECEIVED, S-ACK-SENT, REJECTED, CLOSED.
#[rustfmt::skip]
const SCTP_TABLE: [[[u8; SCTP_STATES]; 10]; 3] = [
    [
        [  8,  1,  2,  3,  4,  8,  6,  7,  8,  9, 10, 11, 12, 13 ],
        [  1,  2,  2,  2,  2,  2,  6,  7,  8,  9, 10, 11,  2,  2 ],
        [  7,  7,  7,  7,  7,  7,  6,  7,  8,  9, 10, 11, 12, 13 ],
        [  8,  8,  8,  8,  8,  8,  6,  7,  8,  9, 10, 11, 12, 13 ],
        [  8,  1,  2,  8,  8,  5,  8,  8,  8,  9, 10, 11, 12, 13 ],
        [ 10,  1,  2,  3,  4,  5,  6,  7, 10,  9, 10, 11, 12, 13 ],
        [ 13,  2,  2,  3,  4,  5,  6,  7, 13, 13, 10, 13, 12, 13 ],
        [ 13, 13, 13, 13, 13,  5,  6,  7,  8,  9, 13, 13, 12, 13 ],
        [ 13,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11, 12, 13 ],
        [ 13, 13, 13, 13, 13, 12, 13, 13, 13, 13, 13, 13, 13, 13 ],
    ],
    [
        [  8,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11, 12, 13 ],
        [  1,  2,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11,  2,  2 ],
        [  5,  5,  5,  3,  4,  6,  6,  7,  8,  9, 10, 11, 12, 13 ],
        [  4,  2,  2,  4,  4,  5,  6,  7,  8,  9, 10, 11, 12, 13 ],
        [  8,  1,  2,  3,  4,  5,  6,  8,  8,  9, 10, 11, 12, 13 ],
        [ 10,  1,  2,  3,  4,  5,  6,  7, 10,  9, 10, 11, 12, 13 ],
        [ 13,  2,  2,  3,  4,  5,  6,  7,  8, 13, 10, 13, 12, 13 ],
        [ 13, 13, 13,  3,  4,  5,  6,  7,  8,  9, 10, 13, 12, 13 ],
        [ 13,  1,  2,  3,  4,  5,  6, 13,  8,  9, 10, 11, 12, 13 ],
        [ 13, 13, 13, 13, 13, 12, 13, 13, 13, 13, 13, 13, 13, 13 ],
    ],
    [
        [  8,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11, 12, 13 ],
        [  5,  5,  5,  5,  5,  5,  5,  5,  8,  5,  5,  5,  5,  5 ],
        [  3,  3,  3,  3,  4,  5,  6,  7,  8,  9, 10, 11, 12, 13 ],
        [  7,  7,  7,  7,  7,  7,  7,  7,  8,  9, 10, 11, 12, 13 ],
        [  8,  8,  8,  8,  8,  8,  8,  8,  8,  9, 10, 11, 12, 13 ],
        [  9,  9,  9,  9,  9,  9,  9,  9,  9,  9, 10, 11, 12, 13 ],
        [ 11, 11, 11, 11, 11,  5,  6,  7,  8, 11, 11, 11, 12, 13 ],
        [ 13,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11, 12, 13 ],
        [ 13, 13, 13, 13, 13,  5,  6,  7,  8,  9, 10, 11, 12, 13 ],
        [ 13, 12, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13 ],
    ],
];

/// The event of an SCTP packet: its first chunk, or an ABORT behind a leading COOKIE-ECHO or COOKIE-ACK
/// (`set_sctp_state`; RFC 9260 section 6.10 on bundling). `segment` starts at the common header.
fn sctp_event(segment: &[u8]) -> u8 {
    const ABORT: u8 = 6;
    let Some(&[kind, _, hi, lo]) = segment.get(12..).and_then(|c| c.first_chunk::<4>()) else {
        return SCTP_DATA;
    };
    let mut chunk = kind;
    if kind == 10 || kind == 11 {
        let len = usize::from(u16::from_be_bytes([hi, lo]));
        if len >= 4 && segment.get(12 + len.next_multiple_of(4)) == Some(&ABORT) {
            chunk = ABORT;
        }
    }
    match chunk {
        1 => 1,
        2 => 2,
        6 => 9,
        7 => 5,
        8 => 6,
        9 => 8,
        10 => 3,
        11 => 4,
        14 => 7,
        _ => SCTP_DATA,
    }
}

/// The SCTP state after a packet; `segment` starts at the SCTP common header.
pub fn sctp_next(side: Side, state: State, segment: &[u8]) -> State {
    let index = usize::from(state.0.wrapping_sub(SCTP_BASE));
    let row = usize::from(sctp_event(segment));
    SCTP_TABLE[side as usize].get(row).and_then(|r| r.get(index)).map_or(state, |next| State(next + SCTP_BASE))
}

/// Whether an SCTP packet may start an association here: anything but an ABORT (`sctp_conn_schedule`).
pub fn sctp_opens(segment: &[u8]) -> bool {
    sctp_event(segment) != 9
}

/// Milliseconds without a packet after which a flow ends, by state.
pub fn timeouts_ms(timeouts: &Timeouts) -> [u32; STATES] {
    let t = timeouts;
    let mut table = [2; STATES];
    table[1..TCP_STATES].copy_from_slice(&[
        t.tcp_established,
        t.tcp_syn_sent,
        t.tcp_syn_recv,
        t.tcp_fin_wait,
        t.tcp_time_wait,
        t.tcp_close,
        t.tcp_close_wait,
        t.tcp_last_ack,
        t.tcp_listen,
        t.tcp_synack,
    ]);
    table[usize::from(State::UDP.0)] = t.udp;
    table[usize::from(SCTP_BASE)..usize::from(SCTP_BASE) + SCTP_STATES].copy_from_slice(&[
        t.sctp_none,
        t.sctp_init1,
        t.sctp_init,
        t.sctp_cookie_sent,
        t.sctp_cookie_replied,
        t.sctp_cookie_wait,
        t.sctp_cookie,
        t.sctp_cookie_echoed,
        t.sctp_established,
        t.sctp_shutdown_sent,
        t.sctp_shutdown_received,
        t.sctp_shutdown_ack_sent,
        t.sctp_rejected,
        t.sctp_closed,
    ]);
    table.map(|seconds| seconds.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcp_flag::{ACK, FIN, RST, SYN};

    #[test]
    fn a_tcp_connection_as_its_client_half() {
        let mut state = State::initial(TCP);
        let mut seen = Vec::new();
        for flags in [SYN, ACK, ACK | 0x08, FIN | ACK, ACK] {
            state = tcp_next(Side::Only, state, flags);
            seen.push(state.name());
        }
        // DR and TUN show FIN_WAIT after closing: only one direction is seen.
        assert_eq!(seen, ["SYN_RECV", "ESTABLISHED", "ESTABLISHED", "FIN_WAIT", "FIN_WAIT"]);
    }

    #[test]
    fn tcp_connections_with_both_halves() {
        use Side::{Client, Server};
        let names = |packets: &[(Side, u8)]| -> Vec<&str> {
            let mut state = State::initial(TCP);
            let step = |(side, flags): &(Side, u8)| {
                state = tcp_next(*side, state, *flags);
                state.name()
            };
            packets.iter().map(step).collect()
        };
        let open = [(Client, SYN), (Server, SYN | ACK), (Client, ACK)];
        assert_eq!(names(&open), ["SYN_RECV", "SYN_RECV", "ESTABLISHED"]);
        // The client closes first, then the server does, and the other way round: TIME_WAIT in the end.
        let by_client = [&open[..], &[(Client, FIN | ACK), (Server, FIN | ACK), (Client, ACK)]].concat();
        assert_eq!(names(&by_client)[3..], ["CLOSE_WAIT", "TIME_WAIT", "TIME_WAIT"]);
        let by_server = [&open[..], &[(Server, FIN | ACK), (Client, FIN | ACK), (Server, ACK)]].concat();
        assert_eq!(names(&by_server)[3..], ["FIN_WAIT", "TIME_WAIT", "TIME_WAIT"]);
        assert_eq!(names(&[(Client, SYN), (Server, RST | ACK)]), ["SYN_RECV", "CLOSE"]);
    }

    #[test]
    fn full_tcp_table() {
        let sides = [Side::Only, Side::Client, Side::Server];
        for (side, state) in sides.into_iter().flat_map(|side| (0..TCP_STATES as u8).map(move |state| (side, state))) {
            for flags in 0..=255u8 {
                let row = match flags {
                    f if f & RST != 0 => 3,
                    f if f & SYN != 0 => 0,
                    f if f & FIN != 0 => 1,
                    f if f & ACK != 0 => 2,
                    _ => {
                        assert_eq!(tcp_next(side, State(state), flags), State::TCP_CLOSE);
                        continue;
                    }
                };
                assert_eq!(tcp_next(side, State(state), flags).0, TCP_TABLE[side as usize][row][usize::from(state)]);
            }
        }
    }

    #[test]
    fn only_established_is_active() {
        let active: Vec<u8> = (0..STATES as u8).filter(|s| State(*s).is_active()).collect();
        assert_eq!(active, [1, 25]);
        assert_eq!(State(25).name(), "ESTABLISHED");
    }

    fn chunk(kind: u8) -> [u8; 16] {
        let mut packet = [0; 16];
        packet[12] = kind;
        packet[15] = 4;
        packet
    }

    #[test]
    fn an_sctp_association_as_its_client_half() {
        let mut state = State::initial(SCTP);
        let mut seen = Vec::new();
        for kind in [1, 10, 0, 7, 14] {
            state = sctp_next(Side::Only, state, &chunk(kind));
            seen.push(state.name());
        }
        assert_eq!(seen, ["INIT1", "ESTABLISHED", "ESTABLISHED", "S-RECEIVED", "CLOSED"]);
        assert!(!sctp_opens(&chunk(6)));
        assert_eq!(sctp_next(Side::Only, State::SCTP_ESTABLISHED, &[]), State::SCTP_ESTABLISHED);
    }

    #[test]
    fn an_sctp_association_with_both_halves() {
        use Side::{Client, Server};
        let mut state = State::initial(SCTP);
        let mut seen = Vec::new();
        let packets =
            [(Client, 1), (Server, 2), (Client, 10), (Server, 11), (Client, 0), (Client, 7), (Server, 8), (Client, 14)];
        for (side, kind) in packets {
            state = sctp_next(side, state, &chunk(kind));
            seen.push(state.name());
        }
        let expected =
            ["INIT1", "C-SENT", "C-REPLIED", "ESTABLISHED", "ESTABLISHED", "S-RECEIVED", "S-ACK-SENT", "CLOSED"];
        assert_eq!(seen, expected);
    }

    #[test]
    fn sctp_abort_behind_a_cookie_counts() {
        let mut packet = chunk(10).to_vec();
        packet.extend_from_slice(&[6, 0, 0, 4]);
        assert_eq!(sctp_next(Side::Only, State::SCTP_ESTABLISHED, &packet).name(), "CLOSED");
    }

    #[test]
    fn ipvs_default_timeouts() {
        let table = timeouts_ms(&Timeouts::default());
        assert_eq!(table[..11], [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120].map(|s: u32| s * 1000));
        assert_eq!((table[16], table[18], table[25]), (300_000, 4_000, 900_000));
    }
}
