//! What is permitted in a lab, in the language of each firewall: the same addresses and ports, in the same order.
//!
//! Owns the texts for `nft`, `iptables-restore` and `ipset restore`; what Bulkhead is told is in `bulkhead.rs`. Rules are
//! of the kind that policies consist of: one destination, one service, permit. Traffic that no rule names is denied by
//! each, which the labs check.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use crate::lab::{SINK_PORT, TARGETS};

/// What is permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Everything from the source's side to the sink's: what is established first, then one rule.
    Simple,
    /// So many rules, each for one destination; target `i` is rule `i`'s.
    Rules(u32),
    /// One rule for a group of so many destinations.
    Group(u32),
}

impl Policy {
    /// Destinations that are permitted; `None`: all.
    #[must_use]
    pub const fn targets(self) -> Option<u32> {
        match self {
            Self::Simple => None,
            Self::Rules(count) | Self::Group(count) => Some(count),
        }
    }
}

/// The address of a target.
#[must_use]
pub fn target(number: u32) -> Ipv4Addr {
    (u32::from(TARGETS) + number).into()
}

/// How the kernel is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// nftables, a rule after the other; a group is a set.
    Linear,
    /// The same with masquerade.
    Masquerade,
    /// nftables as its documentation would have it: rules as one verdict map.
    Verdicts,
    /// iptables with one `ipset`.
    Ipset,
}

const BOTH: &str = "iifname \"net1\" oifname \"net2\"";

/// The input of `nft -f -`; flushes what was there, so that it also replaces.
#[must_use]
pub fn nft(rules: Rules, policy: Policy) -> String {
    let mut text = String::from("add table inet bench\ndelete table inet bench\ntable inet bench {\n");
    let permit = match (rules, policy) {
        (_, Policy::Simple) => format!("{BOTH} accept\n"),
        (Rules::Verdicts, Policy::Rules(count)) => {
            text += "map verdicts { type ipv4_addr . inet_service : verdict\nelements = {\n";
            for number in 0..count {
                let _infallible = writeln!(text, "{} . {SINK_PORT} : accept,", target(number));
            }
            text += "} }\n";
            format!("{BOTH} meta l4proto udp ip daddr . udp dport vmap @verdicts\n")
        }
        (_, Policy::Rules(count)) => (0..count).fold(String::new(), |mut permit, number| {
            let _infallible = writeln!(
                permit,
                "{BOTH} ip daddr {} udp dport {SINK_PORT} accept",
                target(number)
            );
            permit
        }),
        (_, Policy::Group(count)) => {
            text += "set members { type ipv4_addr\nelements = {\n";
            for number in 0..count {
                let _infallible = writeln!(text, "{},", target(number));
            }
            text += "} }\n";
            format!("{BOTH} ip daddr @members udp dport {SINK_PORT} accept\n")
        }
    };
    text += "chain forward {\ntype filter hook forward priority filter; policy drop;\n";
    text += "ct state established,related accept\nct state invalid drop\n";
    text += &permit;
    text += "}\n";
    if rules == Rules::Masquerade {
        text += "chain postrouting {\ntype nat hook postrouting priority srcnat; policy accept;\n";
        text += "oifname \"net2\" masquerade\n}\n";
    }
    text + "}\n"
}

/// The set that iptables asks.
pub const SET: &str = "bench";

/// The input of `ipset restore` that makes a set in place of [`SET`].
#[must_use]
pub fn ipset_in_place(policy: Policy) -> String {
    ipset(policy, "next") + "swap next bench\ndestroy next\n"
}

/// The input of `ipset restore` that makes a set.
#[must_use]
pub fn ipset(policy: Policy, set: &str) -> String {
    let (kind, count) = match policy {
        Policy::Simple => return String::new(),
        Policy::Rules(count) => ("hash:ip,port", count),
        Policy::Group(count) => ("hash:ip", count),
    };
    let mut text = format!("create {set} {kind} family inet hashsize 65536 maxelem 4194304\n");
    for number in 0..count {
        let address = target(number);
        let _infallible = match policy {
            Policy::Rules(_) => writeln!(text, "add {set} {address},udp:{SINK_PORT}"),
            _ => writeln!(text, "add {set} {address}"),
        };
    }
    text
}

/// The input of `iptables-legacy-restore`.
#[must_use]
pub fn iptables(policy: Policy) -> String {
    let matched = match policy {
        Policy::Simple => String::new(),
        Policy::Rules(_) => " -p udp -m set --match-set bench dst,dst".to_owned(),
        Policy::Group(_) => format!(" -p udp --dport {SINK_PORT} -m set --match-set bench dst"),
    };
    format!(
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n\
         -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n\
         -A FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A FORWARD -i net1 -o net2{matched} -j ACCEPT\nCOMMIT\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_rules_are_three_rules() {
        let text = nft(Rules::Linear, Policy::Simple);
        let rules = text
            .lines()
            .filter(|line| line.ends_with("accept") || line.ends_with(" drop"))
            .count();
        assert_eq!(rules, 3, "{text}");
    }

    #[test]
    fn every_language_names_the_same_destinations() {
        let last = target(999).to_string();
        for text in [
            nft(Rules::Linear, Policy::Rules(1_000)),
            nft(Rules::Verdicts, Policy::Rules(1_000)),
            nft(Rules::Linear, Policy::Group(1_000)),
            ipset(Policy::Rules(1_000), SET),
            ipset(Policy::Group(1_000), SET),
        ] {
            assert_eq!(text.matches(&last).count(), 1);
            assert!(!text.contains(&target(1_000).to_string()));
        }
        assert_eq!(last, "10.192.3.232");
    }

    #[test]
    fn masquerade_is_there_where_it_is_asked_for() {
        for rules in [Rules::Linear, Rules::Masquerade, Rules::Verdicts] {
            let text = nft(rules, Policy::Simple);
            assert_eq!(text.contains("masquerade"), rules == Rules::Masquerade);
        }
    }
}
