//! The one list of reasons: counter index, event field, metric label, word on the command line.
//!
//! Each packet that enters a data interface ends in exactly one reason, which is counted. Numbers are never
//! reused: they are stored in logs and dashboards.

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $class:ident;)*) => {
        /// Why a packet met the verdict it met.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word used on the command line, in events and as metric label.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether the packet went on (forwarded, delivered, handed to the kernel) or ended here.
            #[must_use]
            pub const fn is_drop(self) -> bool {
                match self { $(Self::$variant => reasons!(@drop $class),)* }
            }

            /// The reason with this number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
    (@drop pass) => { false };
    (@drop drop) => { true };
}

reasons! {
    /// Packet of an established session, forwarded.
    Established = 0, "established", pass;
    /// First packet of a session that a policy permits, forwarded.
    SessionCreated = 1, "session_created", pass;
    /// Packet of a session that is not established yet (half-open, one-way), forwarded.
    HalfOpen = 2, "half_open", pass;
    /// ICMP error that belongs to a session, forwarded.
    RelatedIcmp = 3, "related_icmp", pass;
    /// ARP, handed to the kernel.
    Arp = 4, "arp", pass;
    /// Neighbour or router discovery, handed to the kernel.
    NeighbourDiscovery = 5, "neighbour_discovery", pass;
    /// Addressed to the firewall itself and permitted by `hostInbound`, or the answer to its own connection.
    ToHost = 6, "to_host", pass;
    /// Sent by the firewall itself.
    FromHost = 7, "from_host", pass;
    /// Forwarded by XDP (established sessions only).
    EstablishedXdp = 8, "established_xdp", pass;
    /// Answer written by the slow path (ICMP error, TCP reset), on its way out.
    SlowPathAnswer = 9, "slow_path_answer", pass;

    /// ARP request or neighbour solicitation for an address of translation's that is on no interface, answered.
    NeighbourAnswered = 10, "neighbour_answered", pass;

    /// Wire mode: ARP or neighbour discovery, passed across.
    WireArp = 12, "wire_arp", pass;
    /// Wire mode: neither IP nor ARP, passed across.
    WireNonIp = 13, "wire_non_ip", pass;
    /// Wire mode: multicast or broadcast that a policy names, passed across.
    WireGroup = 14, "wire_group", pass;

    /// Shorter than its own headers say.
    Truncated = 32, "truncated", drop;
    /// Neither IPv4, IPv6 nor ARP.
    EtherTypeUnsupported = 33, "ethertype_unsupported", drop;
    /// IPv4 header with a wrong version, header length or total length.
    Ipv4HeaderInvalid = 34, "ipv4_header_invalid", drop;
    /// IPv6 header with a wrong version or payload length.
    Ipv6HeaderInvalid = 35, "ipv6_header_invalid", drop;
    /// IPv6 extension chain longer than the parser follows, repeated where it may not, or out of order.
    Ipv6ExtensionInvalid = 36, "ipv6_extension_invalid", drop;
    /// TCP header with a data offset below 5 or beyond the packet.
    TcpHeaderInvalid = 37, "tcp_header_invalid", drop;
    /// TCP flags that no stack sends: none, SYN+FIN, SYN+RST, FIN without ACK.
    TcpFlagsInvalid = 38, "tcp_flags_invalid", drop;
    /// UDP length below 8 or beyond the packet.
    UdpHeaderInvalid = 39, "udp_header_invalid", drop;
    // 40 was `fragment`, every IP fragment, until they were tracked: see 200 and on. Numbers are not used again.
    /// IPv4 source route option or IPv6 routing header: never followed.
    SourceRoute = 41, "source_route", drop;
    /// IPv4 header checksum wrong.
    Ipv4ChecksumInvalid = 42, "ipv4_checksum_invalid", drop;
    /// 802.1Q tag on an interface that is itself a data interface: guard the VLAN's own interface instead.
    VlanTagged = 43, "vlan_tagged", drop;

    /// Source address that must not be forwarded or delivered (loopback, multicast, unspecified, broadcast, our own).
    SourceAddressInvalid = 48, "source_address_invalid", drop;
    /// Destination address that is never forwarded (loopback, link-local, unspecified, multicast, broadcast).
    DestinationAddressInvalid = 49, "destination_address_invalid", drop;
    /// Frame addressed to another station.
    NotForUs = 50, "not_for_us", drop;

    /// Wire mode: ARP or neighbour discovery on a wire that is told not to pass it.
    WireArpDenied = 51, "wire_arp_denied", drop;
    /// Wire mode: the other end is not there.
    WireBroken = 52, "wire_broken", drop;

    /// No policy matched: denied by default.
    DefaultDeny = 64, "default_deny", drop;
    /// A policy says deny.
    PolicyDeny = 65, "policy_deny", drop;
    /// A policy says reject, and an answer was asked for.
    PolicyReject = 66, "policy_reject", drop;
    /// Addressed to the firewall itself and not permitted by the zone's `hostInbound`.
    HostInboundDeny = 67, "host_inbound_deny", drop;
    /// A live session that the configuration in force no longer permits.
    PolicyChanged = 68, "policy_changed", drop;
    /// The interface is in no zone, or no configuration is loaded yet.
    NotConfigured = 69, "not_configured", drop;
    /// Forwarded by the kernel out of a data interface from one that this firewall does not guard.
    UnguardedIngress = 70, "unguarded_ingress", drop;

    /// TCP packet without a session that is not a SYN.
    TcpNoSession = 80, "tcp_no_session", drop;
    /// TCP reset outside the receiver's window: does not end the session, is not forwarded.
    TcpResetOutOfWindow = 81, "tcp_reset_out_of_window", drop;
    /// TCP packet that the session's state does not allow.
    TcpStateInvalid = 82, "tcp_state_invalid", drop;
    /// ICMP error whose embedded packet belongs to no session.
    IcmpNoSession = 83, "icmp_no_session", drop;
    /// ICMP reply or other ICMP message that opens no session.
    IcmpNotRequest = 84, "icmp_not_request", drop;
    /// Packet of a session that arrived on an interface of another zone.
    WrongZone = 85, "wrong_zone", drop;
    /// Packet after the session was closed.
    SessionClosed = 86, "session_closed", drop;
    /// TCP segment with a sequence or acknowledgement number that its connection cannot have.
    TcpOutOfWindow = 87, "tcp_out_of_window", drop;
    /// SYN inside the window of an open connection: none that is sent in good faith, and old stacks end the connection.
    TcpSynInWindow = 88, "tcp_syn_in_window", drop;
    /// ICMP error that quotes a TCP segment its session cannot have sent lately (RFC 5927, section 4.1).
    IcmpQuoteOutOfWindow = 89, "icmp_quote_out_of_window", drop;
    /// ICMP error that quotes an IPv4 header with a wrong checksum (RFC 5508, REQ-3a).
    IcmpQuoteInvalid = 90, "icmp_quote_invalid", drop;

    /// The session table is full.
    SessionTableFull = 96, "session_table_full", drop;
    /// No free port on the translated address.
    NatPortsExhausted = 97, "nat_ports_exhausted", drop;
    /// Neither the egress interface nor the pool has an address of the packet's family to translate to.
    NatNoAddress = 98, "nat_no_address", drop;
    /// The packet cannot be translated: a protocol without ports behind an address already in use, a destination that is
    /// the firewall itself, a subnet that RFC 6296 cannot map.
    NatUnsupported = 99, "nat_unsupported", drop;
    /// Addressed to an address that translation owns, without a session, a mapping or a rule.
    NatNoMapping = 100, "nat_no_mapping", drop;
    /// Addressed to a persistent mapping by somebody its inside has not sent to.
    NatFiltered = 101, "nat_filtered", drop;
    /// The table of persistent mappings is full.
    NatMappingsFull = 102, "nat_mappings_full", drop;

    /// No route to the destination.
    NoRoute = 112, "no_route", drop;
    /// The route leads out of an interface that this firewall does not guard.
    EgressNotGuarded = 113, "egress_not_guarded", drop;
    /// Larger than the egress interface's MTU; the sender is told.
    MtuExceeded = 114, "mtu_exceeded", drop;
    /// Hop limit used up; the sender is told.
    TtlExceeded = 115, "ttl_exceeded", drop;
    /// Writing the packet failed in the kernel.
    RewriteFailed = 116, "rewrite_failed", drop;
    /// The program could not reach one of its own tables: a defect, never traffic's fault.
    Internal = 117, "internal", drop;
    /// An FTP control packet that user space could not be given, or that came in fragments: repeated by its sender.
    GatewayLost = 118, "gateway_lost", drop;
    /// A translated FTP control connection whose shifts of sequence numbers were the daemon's before a restart, ended. Said of
    /// sessions, never of packets.
    GatewayForgotten = 119, "gateway_forgotten", drop;

    /// A session that was idle while the session table was nearly full, ended before its time. Said of sessions, never of
    /// packets.
    EarlyAged = 210, "early_aged", drop;
    /// The source has as many sessions as the zone's screen lets it have.
    SessionLimitSource = 211, "session_limit_source", drop;
    /// The destination has as many sessions as the zone's screen lets it have.
    SessionLimitDestination = 212, "session_limit_destination", drop;
    /// The source has as many TCP sessions as the zone's screen lets it have.
    SynAckAck = 213, "syn_ack_ack", drop;

    // Screens: 160 and a screen's number. See `Screen`, which says more. Those of sessions' limits stand above.
    /// Screen: ICMP packets to one destination, per second.
    ScreenIcmpFlood = 160, "screen_icmp_flood", drop;
    /// Screen: hosts pinged by one source within an interval.
    ScreenIcmpSweep = 161, "screen_icmp_sweep", drop;
    /// Screen: fragmented ICMP.
    ScreenIcmpFragment = 162, "screen_icmp_fragment", drop;
    /// Screen: ICMP messages of more than 1,024 bytes.
    ScreenIcmpLarge = 163, "screen_icmp_large", drop;
    /// Screen: fragments that would reassemble to more than an IP packet can be.
    ScreenPingOfDeath = 164, "screen_ping_of_death", drop;
    /// Screen: IPv4 options that are malformed or unknown.
    ScreenIpBadOption = 165, "screen_ip_bad_option", drop;
    /// Screen: any fragment.
    ScreenIpFragment = 166, "screen_ip_fragment", drop;
    /// Screen: source route options, routing headers.
    ScreenIpSourceRoute = 167, "screen_ip_source_route", drop;
    /// Screen: record route option.
    ScreenIpRecordRoute = 168, "screen_ip_record_route", drop;
    /// Screen: timestamp option.
    ScreenIpTimestamp = 169, "screen_ip_timestamp", drop;
    /// Screen: security options (RFC 1108, and CIPSO).
    ScreenIpSecurity = 170, "screen_ip_security", drop;
    /// Screen: stream identifier option.
    ScreenIpStream = 171, "screen_ip_stream", drop;
    /// Screen: sources whose way back does not lead into the zone they come from.
    ScreenIpSpoofing = 172, "screen_ip_spoofing", drop;
    /// Screen: overlapping fragments.
    ScreenTeardrop = 173, "screen_teardrop", drop;
    /// Screen: protocol numbers from 143 on.
    ScreenUnknownProtocol = 174, "screen_unknown_protocol", drop;
    /// Screen: IPv6 extension headers other than AH, ESP and fragments.
    ScreenExtensionHeaders = 175, "screen_extension_headers", drop;
    /// Screen: TCP from an address to itself.
    ScreenLand = 176, "screen_land", drop;
    /// Screen: TCP without flags.
    ScreenTcpNoFlags = 177, "screen_tcp_no_flags", drop;
    /// Screen: TCP with SYN and FIN.
    ScreenTcpSynFin = 178, "screen_tcp_syn_fin", drop;
    /// Screen: TCP with FIN and no ACK.
    ScreenTcpFinNoAck = 179, "screen_tcp_fin_no_ack", drop;
    /// Screen: urgent data to TCP port 139.
    ScreenWinnuke = 180, "screen_winnuke", drop;
    /// Screen: a SYN in a fragment.
    ScreenSynFragment = 181, "screen_syn_fragment", drop;
    /// Screen: TCP ports tried by one source within an interval.
    ScreenTcpPortScan = 182, "screen_tcp_port_scan", drop;
    /// Screen: hosts tried by one source over TCP within an interval.
    ScreenTcpSweep = 183, "screen_tcp_sweep", drop;
    /// Screen: SYNs to one destination, per second, above which the firewall answers in its place.
    ScreenSynFlood = 184, "screen_syn_flood", drop;
    /// Screen: SYNs to one destination, per second, above which an alarm is raised. Never drops.
    ScreenSynFloodAlarm = 185, "screen_syn_flood_alarm", drop;
    /// Screen: SYNs from one source, per second.
    ScreenSynFloodSource = 186, "screen_syn_flood_source", drop;
    /// Screen: SYNs to one destination, per second.
    ScreenSynFloodDestination = 187, "screen_syn_flood_destination", drop;
    /// Screen: UDP packets to one destination, per second.
    ScreenUdpFlood = 189, "screen_udp_flood", drop;
    /// Screen: UDP ports tried by one source within an interval.
    ScreenUdpPortScan = 190, "screen_udp_port_scan", drop;
    /// Screen: hosts tried by one source over UDP within an interval.
    ScreenUdpSweep = 191, "screen_udp_sweep", drop;

    /// SYN to a destination under attack, answered with a SYN cookie; no state is kept.
    SynCookieSent = 196, "syn_cookie_sent", pass;
    /// TCP packet with IP options or extension headers where a SYN cookie would have to be made or answered: the cookie is
    /// made over plain headers only.
    SynCookieImpossible = 197, "syn_cookie_impossible", drop;
    /// Packet of a client whose SYN cookie was accepted, before its server has answered; the client repeats it.
    SynProxyWaiting = 198, "syn_proxy_waiting", drop;
    /// Server's packet of an older connection in answer to the SYN sent for a client; it was told to forget it (RFC 9293,
    /// 3.10.7.3).
    SynProxyReset = 199, "syn_proxy_reset", drop;

    // Fragments.
    /// First fragment without the whole layer 4 header, or a TCP fragment that begins inside it (RFC 1858, 3128, 7112).
    FragmentTiny = 200, "fragment_tiny", drop;
    /// Fragment that is not the last and whose length is no multiple of eight, or of no length at all.
    FragmentInvalid = 201, "fragment_invalid", drop;
    /// Fragment that covers bytes already seen; nothing more of its datagram goes on (RFC 5722, RFC 8200 4.5).
    FragmentOverlap = 202, "fragment_overlap", drop;
    /// Fragment beyond what is remembered: more than eight gaps in a datagram, or too many waiting for their first.
    FragmentLimit = 203, "fragment_limit", drop;
    /// Fragment whose first did not come in time.
    FragmentTimeout = 204, "fragment_timeout", drop;
    /// Fragment that would make its datagram longer than one can be ("ping of death").
    FragmentOversize = 205, "fragment_oversize", drop;
    /// Too large for its way out and free to be fragmented: handed to user space, whose fragments arrive as packets of
    /// their own.
    Fragmented = 206, "fragmented", pass;
    /// Later fragment of a datagram whose session is no more.
    FragmentNoSession = 207, "fragment_no_session", drop;
}

impl Reason {
    /// Slots in the per-CPU counter array; every reason's number is below it.
    pub const SLOTS: u32 = 256;
    /// Counter of events that did not fit into the ring buffer.
    pub const SLOT_EVENTS_LOST: u32 = 128;
    /// Counter of denial events held back by the rate limit.
    pub const SLOT_EVENTS_SUPPRESSED: u32 = 129;
    /// Counter of slow-path requests held back by the rate limit.
    pub const SLOT_SLOW_PATH_SUPPRESSED: u32 = 130;
    /// Counter of slow-path requests that did not fit into the ring buffer.
    pub const SLOT_SLOW_PATH_LOST: u32 = 131;
    /// Counter of checksums completed in XDP before a redirect.
    pub const SLOT_CHECKSUMS_REPAIRED: u32 = 132;
    /// Counter of sessions removed by ageing.
    pub const SLOT_SESSIONS_EXPIRED: u32 = 133;
    /// Counter of sessions promoted from half-open to established.
    pub const SLOT_SESSIONS_ESTABLISHED: u32 = 134;
    /// Counter of translated ports that had to change because the original was taken.
    pub const SLOT_NAT_PORTS_CHANGED: u32 = 135;
    /// Counter of new sessions settled by the decision cache.
    pub const SLOT_DECISION_CACHE_HITS: u32 = 136;
    /// Counter of new sessions that walked the rule vectors.
    pub const SLOT_DECISION_CACHE_MISSES: u32 = 137;
    /// Counter of sessions ended by early ageing.
    pub const SLOT_SESSIONS_AGED_EARLY: u32 = 158;
    /// Counter of new sessions over a limit that only raises an alarm.
    pub const SLOT_SESSION_LIMIT_ALARMS: u32 = 159;
    /// Counter of acknowledgements that proved a SYN cookie.
    pub const SLOT_SYN_COOKIES_ACCEPTED: u32 = 148;
    /// Counter of acknowledgements without a session, to a destination under attack, that proved none.
    pub const SLOT_SYN_COOKIES_REFUSED: u32 = 149;

    // Frames put back and fragments.
    /// Counter of fragments handed to user space, to wait there for the first of their datagram.
    pub const SLOT_FRAGMENTS_HELD: u32 = 142;
    /// Counter of frames that user space put back onto the interface they came from.
    pub const SLOT_FRAMES_INJECTED: u32 = 143;
    /// Counter of persistent mappings made.
    pub const SLOT_NAT_MAPPINGS_CREATED: u32 = 138;
    /// Counter of persistent mappings removed.
    pub const SLOT_NAT_MAPPINGS_REMOVED: u32 = 139;
    /// Counter of persistent mappings used for another session.
    pub const SLOT_NAT_MAPPINGS_USED: u32 = 140;

    /// Names of the counters that are not packet reasons, by slot.
    pub const EXTRA: &'static [(u32, &'static str)] = &[
        (Self::SLOT_EVENTS_LOST, "events_lost"),
        (Self::SLOT_EVENTS_SUPPRESSED, "events_suppressed"),
        (Self::SLOT_SLOW_PATH_SUPPRESSED, "slow_path_suppressed"),
        (Self::SLOT_SLOW_PATH_LOST, "slow_path_lost"),
        (Self::SLOT_CHECKSUMS_REPAIRED, "checksums_repaired"),
        (Self::SLOT_SESSIONS_EXPIRED, "sessions_expired"),
        (Self::SLOT_SESSIONS_ESTABLISHED, "sessions_established"),
        (Self::SLOT_NAT_PORTS_CHANGED, "nat_ports_changed"),
        (Self::SLOT_DECISION_CACHE_HITS, "decision_cache_hits"),
        (Self::SLOT_DECISION_CACHE_MISSES, "decision_cache_misses"),
        (Self::SLOT_FRAGMENTS_HELD, "fragments_held"),
        (Self::SLOT_FRAMES_INJECTED, "frames_injected"),
        (Self::SLOT_SESSIONS_AGED_EARLY, "sessions_aged_early"),
        (Self::SLOT_SESSION_LIMIT_ALARMS, "session_limit_alarms"),
        (Self::SLOT_SYN_COOKIES_ACCEPTED, "syn_cookies_accepted"),
        (Self::SLOT_SYN_COOKIES_REFUSED, "syn_cookies_refused"),
        (Self::SLOT_NAT_MAPPINGS_CREATED, "nat_mappings_created"),
        (Self::SLOT_NAT_MAPPINGS_REMOVED, "nat_mappings_removed"),
        (Self::SLOT_NAT_MAPPINGS_USED, "nat_mappings_used"),
    ];
}
