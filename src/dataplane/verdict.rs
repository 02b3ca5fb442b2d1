//! What the pipeline decides for a frame, and every reason for which a frame can be dropped.
//!
//! Owns the names: counters, replay, captures and documentation all use [`DropReason::name`]. Never acts on a verdict.

use super::io::PortIndex;

/// What to do with one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Rewritten for its real server: transmit on this port.
    Tx(PortIndex),
    /// Turned into an answer to its sender: transmit on this port.
    Reply(PortIndex),
    /// Not for a service or an owned address: the kernel's.
    Pass,
    /// Another worker's flow: hand it to that worker.
    Hand(u8),
    /// A fragment that waits for its first one: it was copied, its frame is free again.
    Kept,
    /// Dropped and counted.
    Drop(DropReason),
}

/// "No such index" in [`Outcome`].
pub const NONE: u16 = u16::MAX;

/// A verdict, and what led to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What to do.
    pub verdict: Verdict,
    /// Index of the service in the snapshot, or [`NONE`].
    pub service: u16,
    /// Slot of the real server, or [`NONE`].
    pub server: u16,
    /// Whether this packet created the flow.
    pub new_flow: bool,
}

impl Outcome {
    /// An outcome that concerns no service.
    pub const fn plain(verdict: Verdict) -> Self {
        Outcome { verdict, service: NONE, server: NONE, new_flow: false }
    }

    /// A drop that concerns no service.
    pub const fn drop(reason: DropReason) -> Self {
        Outcome::plain(Verdict::Drop(reason))
    }
}

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a frame was dropped. The name is the metric's label, the trace's word and the capture's filter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)+];

            /// How many reasons there are.
            pub const COUNT: usize = DropReason::ALL.len();

            /// Stable name, lower case with hyphens.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)+ }
            }

            /// One sentence on what it means, for the person on call.
            pub fn describe(self) -> &'static str {
                match self { $(DropReason::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

drop_reasons! {
    /// The frame ends before the headers that it announces.
    Truncated = "truncated",
    /// Length fields contradict each other.
    BadLength = "bad-length",
    /// IP version or header length is impossible.
    BadIpHeader = "bad-ip-header",
    /// The IPv4 header checksum is wrong.
    BadIpChecksum = "bad-ip-checksum",
    /// IPv4 options are malformed.
    BadIpOptions = "bad-ip-options",
    /// IPv6 extension headers are malformed, out of order or too many.
    BadExtensionHeader = "bad-extension-header",
    /// The packet asks for source routing (IPv4 LSRR/SSRR, IPv6 routing header type 0, RFC 5095).
    SourceRoute = "source-route",
    /// The TCP, UDP or SCTP header is impossible.
    BadTransportHeader = "bad-transport-header",
    /// The TCP, UDP or SCTP checksum is wrong.
    BadTransportChecksum = "bad-transport-checksum",
    /// The sender left the checksum to its network card: a virtual interface with TX checksum offload on.
    PartialChecksum = "partial-checksum",
    /// TCP flags that no sane client sends (SYN with FIN or RST, or none at all) for an unknown flow.
    BadTcpFlags = "bad-tcp-flags",
    /// A TCP reset for a flow that is not known.
    NoFlow = "no-flow",
    /// The first packet of a conversation has no Call-ID, and the service tells its clients apart by that.
    NoCallId = "no-call-id",
    /// A fragment that cannot be forwarded: of a protocol without ports, or of SCTP where NAT changes the port.
    Fragment = "fragment",
    /// Fragments of one packet overlap, which no sane sender makes (RFC 5722): the whole packet is refused.
    FragmentOverlap = "fragment-overlap",
    /// A first fragment without its whole transport header, or one that begins inside it (RFC 1858, RFC 7112).
    FragmentTiny = "fragment-tiny",
    /// A fragment whose first one did not come in time.
    FragmentTimeout = "fragment-timeout",
    /// Too many fragmented packets, or too many fragments that wait, at once.
    FragmentLimit = "fragment-limit",
    /// The source address cannot be a client (unspecified, loopback, multicast, broadcast).
    MartianSource = "martian-source",
    /// The source address is one of the appliance's own service addresses.
    OwnSource = "own-source",
    /// The client's address is on the deny list, or not on the allow list.
    Denied = "denied",
    /// The address belongs to a virtual router of which another appliance is master now.
    NotMaster = "not-master",
    /// The frame was sent by the appliance itself: a loop in the network.
    Loop = "loop",
    /// The frame is addressed to another host's or a group's MAC.
    WrongMac = "wrong-mac",
    /// TTL or hop limit is used up.
    TtlExpired = "ttl-expired",
    /// The service has no server that can take a new flow.
    NoServer = "no-server",
    /// The flow's server has no resolved next hop.
    NoNextHop = "no-next-hop",
    /// The flow's server was removed, is down or has drained, and its service keeps such flows or nobody could be told.
    ServerGone = "server-gone",
    /// The service has as many flows as it may have.
    ServiceConnections = "service-connections",
    /// The service gets new flows faster than it may.
    ServiceRate = "service-rate",
    /// The client's network has as many flows with the service as it may have.
    ClientConnections = "client-connections",
    /// The client's network opens flows with the service faster than it may.
    ClientRate = "client-rate",
    /// The packet is larger than the MTU on its way, and the sender was not told (ICMP is limited in rate).
    TooBig = "too-big",
    /// No room before the frame for the outer header of a tunnel.
    NoHeadroom = "no-headroom",
    /// No free frame for a packet that has to be sent in pieces.
    NoFrame = "no-frame",
    /// Full NAT: every port of the service's local addresses is in use.
    NoLocalPort = "no-local-port",
    /// NAT: the client's address and port lead to this server already, by way of another service.
    TupleTaken = "tuple-taken",
    /// NAT: the way back to the client is not known any more, or too many different ones are.
    NoReturnHop = "no-return-hop",
    /// The worker that has the flow does not keep up with what others hand to it.
    PeerBusy = "peer-busy",
    /// The flow table has no room and nothing in it can give way.
    FlowTableFull = "flow-table-full",
    /// While SYN cookies are in force: a packet of no known flow that does not bring back a good one (forged, or too old).
    BadCookie = "bad-cookie",
    /// Out of turn in a handshake by SYN cookie: the server has not answered yet (the client sends it again), or the client's
    /// SYN comes late.
    HandshakePending = "handshake-pending",
    /// More flows that were opened by SYN cookies than `engine.cookie_flows`.
    CookieTableFull = "cookie-table-full",
    /// More VLAN tags than are supported, or no room to push one.
    BadVlan = "bad-vlan",
    /// An ARP packet for an owned address that is malformed.
    BadArp = "bad-arp",
    /// A neighbour discovery message for an owned address that is malformed (RFC 4861, section 7.1.1).
    BadNd = "bad-nd",
    /// Another host claims an owned address (ARP or ND announcement).
    AddressConflict = "address-conflict",
    /// An ICMP message for an owned address that is malformed or has a wrong checksum, or one about a tunnel's packet that
    /// names an MTU that cannot be.
    BadIcmp = "bad-icmp",
    /// An ICMP error about a flow that is not known.
    IcmpNoFlow = "icmp-no-flow",
    /// An ICMP message for an owned address of a kind that is not answered.
    IcmpIgnored = "icmp-ignored",
    /// The filter took a frame that is the kernel's, and the kernel could not be given it back.
    NotOurs = "not-ours",
    /// The transmit ring stayed full.
    TxFull = "tx-full",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_well_formed() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert!(names.iter().all(|n| n.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::COUNT);
        for (i, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
            assert!(reason.describe().ends_with('.'), "{reason:?}");
        }
    }

    #[test]
    fn outcome_stays_small() {
        assert!(std::mem::size_of::<Outcome>() <= 8);
    }
}
