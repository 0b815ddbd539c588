//! The one table of what each attack ends in.
//!
//! A reason that must not move for an attack is simply not listed for it. `must`: at least one frame ended there;
//! `may`: some did, or none, as chance and the hosts' own answers had it.

use std::collections::BTreeSet;

use bulkhead_testkit::Account;

/// What the frames of an attack end in.
pub struct Ends {
    /// Each of these moved.
    pub must: &'static [&'static str],
    /// These may have moved.
    pub may: &'static [&'static str],
}

/// What goes on beside every attack: the held connections, and the hosts' discovery of each other.
const BESIDE: &[&str] = &["established", "established_xdp", "arp", "neighbour_discovery"];

/// SYNs from anywhere to an open port: some sources must not be, some belong elsewhere, the rest are half-open sessions
/// whose answers go where the source pretended to be.
pub const SYN_FLOOD: Ends = Ends {
    must: &["session_created"],
    may: &[
        "half_open",
        "source_address_invalid",
        "destination_address_invalid",
        "policy_changed",
        "tcp_no_session",
        "tcp_state_invalid",
        "session_table_full",
        "host_inbound_deny",
        "default_deny",
        "icmp_no_session",
        "related_icmp",
    ],
};

/// The same with the firewall answering in the server's place.
pub const SYN_FLOOD_PROXIED: Ends = Ends {
    must: &["syn_cookie_sent"],
    may: &[
        "session_created",
        "half_open",
        "syn_proxy_waiting",
        "syn_proxy_reset",
        "syn_cookie_impossible",
        "screen_syn_flood",
        "screen_syn_flood_alarm",
        "source_address_invalid",
        "destination_address_invalid",
        "policy_changed",
        "tcp_no_session",
        "tcp_state_invalid",
        "tcp_out_of_window",
        "session_closed",
        "host_inbound_deny",
        "default_deny",
        "related_icmp",
        "icmp_no_session",
    ],
};

/// From a zone that may not speak for the client.
pub const WRONG_ZONE: Ends = Ends {
    must: &["wrong_zone"],
    may: &[],
};

/// Guessed resets from a place where the client's packets may come from.
pub const BLIND_RESET: Ends = Ends {
    must: &["tcp_reset_out_of_window"],
    may: &["tcp_out_of_window"],
};

/// Guessed SYNs, data and FINs from such a place: passed on to be challenged by the endpoint (RFC 5961, sections 4 and
/// 5), or refused.
pub const BLIND_SEGMENT: Ends = Ends {
    must: &[],
    may: &["tcp_out_of_window", "tcp_syn_in_window", "tcp_state_invalid"],
};

/// ICMP errors about the connection and about others.
pub const ICMP_ERROR: Ends = Ends {
    must: &["icmp_no_session"],
    may: &[
        "related_icmp",
        "icmp_quote_out_of_window",
        "wrong_zone",
        "truncated",
        "icmp_not_request",
        "host_inbound_deny",
        "default_deny",
        "source_address_invalid",
    ],
};

/// The same from a zone that the connection does not touch.
pub const STRANGERS_ICMP_ERROR: Ends = Ends {
    must: &["icmp_no_session", "wrong_zone"],
    may: &[
        "icmp_quote_out_of_window",
        "truncated",
        "icmp_not_request",
        "host_inbound_deny",
        "default_deny",
        "source_address_invalid",
    ],
};

/// Fragments that fit nowhere.
pub const BAD_FRAGMENTS: Ends = Ends {
    must: &[
        "fragment_tiny",
        "fragment_invalid",
        "fragment_overlap",
        "fragment_oversize",
    ],
    may: &[
        "fragment_no_session",
        "fragment_limit",
        "fragment_timeout",
        // The first of an overlapping pair is an honest beginning; what it opens is a session of its own.
        "session_created",
        "half_open",
        "default_deny",
        "related_icmp",
    ],
};

/// First fragments of packets that never become whole.
pub const FIRST_FRAGMENTS: Ends = Ends {
    must: &["session_created"],
    may: &[
        "half_open",
        "related_icmp",
        // Identifications are 16 bits long and drawn at random: some come twice.
        "fragment_overlap",
        "fragment_limit",
    ],
};

/// Later fragments whose first never comes.
pub const LATER_FRAGMENTS: Ends = Ends {
    must: &["fragment_limit", "fragment_timeout"],
    may: &["fragment_overlap"],
};

/// Fragments as a stack cuts them; the same one again is an overlap.
pub const HONEST_FRAGMENTS: Ends = Ends {
    must: &["session_created"],
    may: &[
        "half_open",
        "fragment_overlap",
        "fragment_limit",
        "fragment_timeout",
    ],
};

/// Scans of ports and protocols, by the one tool everybody has.
pub const SCAN: Ends = Ends {
    must: &[],
    may: &[
        "session_created",
        "half_open",
        "session_closed",
        "default_deny",
        "policy_reject",
        "tcp_no_session",
        "tcp_flags_invalid",
        "tcp_state_invalid",
        "tcp_reset_out_of_window",
        "icmp_not_request",
        "host_inbound_deny",
        "related_icmp",
        "icmp_no_session",
    ],
};

/// Packets from a host to itself.
pub const LAND: Ends = Ends {
    must: &["source_address_invalid"],
    may: &[],
};

/// Addresses that are never forwarded.
pub const MARTIANS: Ends = Ends {
    must: &[
        "source_address_invalid",
        "destination_address_invalid",
        "not_for_us",
    ],
    may: &[
        "no_route",
        "default_deny",
        "host_inbound_deny",
        "egress_not_guarded",
    ],
};

/// Routes chosen by the sender.
pub const SOURCE_ROUTES: Ends = Ends {
    must: &["source_route"],
    may: &["ipv6_extension_invalid"],
};

/// Tags where none belong.
pub const VLANS: Ends = Ends {
    must: &["vlan_tagged"],
    may: &[],
};

/// Headers that end early.
pub const TRUNCATED: Ends = Ends {
    must: &["truncated", "tcp_header_invalid"],
    may: &[
        "udp_header_invalid",
        "ipv4_header_invalid",
        "ipv4_checksum_invalid",
        "ipv6_header_invalid",
        "ipv6_extension_invalid",
        "tcp_flags_invalid",
        "icmp_no_session",
        "session_created",
        "half_open",
        "default_deny",
        "tcp_no_session",
    ],
};

/// Two zones, some addresses, and every way to be wrong.
pub const GARBAGE: Ends = Ends {
    must: &["ethertype_unsupported", "vlan_tagged", "truncated"],
    may: &[
        "ipv4_header_invalid",
        "ipv4_checksum_invalid",
        "ipv6_header_invalid",
        "ipv6_extension_invalid",
        "tcp_header_invalid",
        "tcp_flags_invalid",
        "tcp_no_session",
        "tcp_state_invalid",
        "udp_header_invalid",
        "fragment_tiny",
        "fragment_invalid",
        "fragment_overlap",
        "fragment_oversize",
        "fragment_no_session",
        "fragment_limit",
        "fragment_timeout",
        "source_route",
        "source_address_invalid",
        "destination_address_invalid",
        "not_for_us",
        "default_deny",
        "host_inbound_deny",
        "icmp_no_session",
        "icmp_not_request",
        "session_created",
        "half_open",
        "session_closed",
        "no_route",
        "ttl_exceeded",
        "mtu_exceeded",
    ],
};

/// Datagrams that nobody answers, each a session of its own.
pub const UDP_FLOOD: Ends = Ends {
    must: &["session_created"],
    may: &["related_icmp", "half_open"],
};

/// Floods and scans of a zone with screens.
pub const SCREENED: Ends = Ends {
    must: &[],
    may: &[
        "screen_icmp_flood",
        "screen_udp_flood",
        "screen_tcp_port_scan",
        "session_limit_source",
        "session_created",
        "half_open",
        "session_closed",
        "default_deny",
        "tcp_no_session",
        "related_icmp",
        "icmp_no_session",
    ],
};

/// More sources than a translated port has room for.
pub const PORT_EXHAUSTION: Ends = Ends {
    must: &["session_created"],
    may: &[
        "related_icmp",
        "half_open",
        "nat_ports_exhausted",
        "session_table_full",
    ],
};

impl Ends {
    /// Checks that every reason that moved is listed, and that each that must move did.
    pub fn check(&self, account: &Account) -> Result<(), String> {
        let listed: BTreeSet<&str> = [self.must, self.may, BESIDE].concat().into_iter().collect();
        let surprises: Vec<&String> = account
            .reasons
            .keys()
            .filter(|name| !listed.contains(name.as_str()))
            .collect();
        let missing: Vec<&&str> = self.must.iter().filter(|name| account.of(name) == 0).collect();
        if surprises.is_empty() && missing.is_empty() {
            return Ok(());
        }
        Err(format!(
            "frames ended in {surprises:?}, which this attack does not; none ended in {missing:?}: {account:#?}"
        ))
    }
}
