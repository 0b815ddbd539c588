//! Who is measured, and what each stands for.

use serde::Serialize;

use crate::policy::Rules;

/// Something that carries packets from the source to the sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// The packet source alone: frames are dropped where the firewall would begin.
    Source,
    /// A redirect in XDP and nothing else.
    BareXdp,
    /// The same with a lookup in the kernel's routing table.
    BareXdpFib,
    /// The same with one lookup in a table like Bulkhead's of sessions.
    BareXdpLookup,
    /// Bulkhead with XDP forced, no NAT.
    BulkheadXdp,
    /// Bulkhead with XDP forced and source NAT.
    BulkheadXdpNat,
    /// A redirect in TCX and nothing else.
    BareTcx,
    /// The same straight into the peer's namespace.
    BareTcxPeer,
    /// Bulkhead on TCX, no NAT.
    BulkheadTcx,
    /// Bulkhead on TCX with source NAT.
    BulkheadTcxNat,
    /// The kernel's own forwarding, without any firewall.
    Kernel,
    /// nftables: connection tracking, and rules one after the other.
    Nftables,
    /// The same with masquerade.
    NftablesMasquerade,
    /// nftables at its own best: rules as one verdict map.
    NftablesVerdicts,
    /// iptables with one ipset.
    IptablesIpset,
}

/// What carries a contender's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// Nothing: an XDP program drops them.
    Nothing,
    /// A redirect program at XDP.
    BareXdp(&'static str),
    /// A redirect program at TCX.
    BareTcx(&'static str),
    /// The kernel, with rules or without.
    Kernel(Option<Rules>),
    /// Bulkhead.
    Bulkhead {
        /// With XDP on the veths.
        xdp: bool,
        /// With source NAT.
        nat: bool,
    },
}

impl Contender {
    /// All of them, in the order in which a round runs them: who is compared runs close together.
    pub const ALL: [Self; 15] = [
        Self::Source,
        Self::BareXdp,
        Self::BareXdpFib,
        Self::BareXdpLookup,
        Self::BulkheadXdp,
        Self::BulkheadXdpNat,
        Self::BareTcx,
        Self::BareTcxPeer,
        Self::BulkheadTcx,
        Self::BulkheadTcxNat,
        Self::Kernel,
        Self::Nftables,
        Self::NftablesMasquerade,
        Self::NftablesVerdicts,
        Self::IptablesIpset,
    ];

    /// Those that carry established packets in ways of their own: of the kernel's firewalls those that find a session
    /// first are alike.
    pub const ESTABLISHED: [Self; 13] = [
        Self::Source,
        Self::BareXdp,
        Self::BareXdpFib,
        Self::BulkheadXdp,
        Self::BulkheadXdpNat,
        Self::BareTcx,
        Self::BareTcxPeer,
        Self::BulkheadTcx,
        Self::BulkheadTcxNat,
        Self::Kernel,
        Self::Nftables,
        Self::NftablesMasquerade,
        Self::IptablesIpset,
    ];

    /// Those that carry bulk TCP and conversations of sockets. A bare redirect in XDP is not among them: it hands over
    /// checksums that the sender left to its interface unfinished, and no socket takes such packets.
    pub const SOCKETS: [Self; 9] = [
        Self::BulkheadXdp,
        Self::BareTcx,
        Self::BareTcxPeer,
        Self::BulkheadTcx,
        Self::BulkheadTcxNat,
        Self::Kernel,
        Self::Nftables,
        Self::NftablesMasquerade,
        Self::IptablesIpset,
    ];

    /// Name in reports and on the command line.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::BareXdp => "bare-xdp",
            Self::BareXdpFib => "bare-xdp-fib",
            Self::BareXdpLookup => "bare-xdp-lookup",
            Self::BulkheadXdp => "bulkhead-xdp",
            Self::BulkheadXdpNat => "bulkhead-xdp-nat",
            Self::BareTcx => "bare-tcx",
            Self::BareTcxPeer => "bare-tcx-peer",
            Self::BulkheadTcx => "bulkhead-tcx",
            Self::BulkheadTcxNat => "bulkhead-tcx-nat",
            Self::Kernel => "kernel",
            Self::Nftables => "nftables",
            Self::NftablesMasquerade => "nftables-masquerade",
            Self::NftablesVerdicts => "nftables-verdicts",
            Self::IptablesIpset => "iptables-ipset",
        }
    }

    /// The contender of this name.
    #[must_use]
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|contender| contender.id() == id)
    }

    /// What it is, for people.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::Source => "packet source alone, dropped in XDP at the ingress",
            Self::BareXdp => "bare XDP bpf_redirect",
            Self::BareXdpFib => "bare XDP bpf_fib_lookup and bpf_redirect",
            Self::BareXdpLookup => "bare XDP lookup in an equal table and bpf_redirect",
            Self::BulkheadXdp => "Bulkhead, XDP",
            Self::BulkheadXdpNat => "Bulkhead, XDP, source NAT",
            Self::BareTcx => "bare TCX bpf_redirect",
            Self::BareTcxPeer => "bare TCX bpf_redirect_peer",
            Self::BulkheadTcx => "Bulkhead, TCX",
            Self::BulkheadTcxNat => "Bulkhead, TCX, source NAT",
            Self::Kernel => "kernel forwarding, no firewall",
            Self::Nftables => "nftables, conntrack",
            Self::NftablesMasquerade => "nftables, conntrack and masquerade",
            Self::NftablesVerdicts => "nftables, verdict map",
            Self::IptablesIpset => "iptables and ipset, conntrack",
        }
    }

    /// What carries its packets.
    #[must_use]
    pub const fn carrier(self) -> Carrier {
        match self {
            Self::Source => Carrier::Nothing,
            Self::BareXdp => Carrier::BareXdp("bench_bare_xdp"),
            Self::BareXdpFib => Carrier::BareXdp("bench_bare_xdp_fib"),
            Self::BareXdpLookup => Carrier::BareXdp("bench_bare_xdp_lookup"),
            Self::BareTcx => Carrier::BareTcx("bench_bare_tcx"),
            Self::BareTcxPeer => Carrier::BareTcx("bench_bare_tcx_peer"),
            Self::Kernel => Carrier::Kernel(None),
            Self::Nftables => Carrier::Kernel(Some(Rules::Linear)),
            Self::NftablesMasquerade => Carrier::Kernel(Some(Rules::Masquerade)),
            Self::NftablesVerdicts => Carrier::Kernel(Some(Rules::Verdicts)),
            Self::IptablesIpset => Carrier::Kernel(Some(Rules::Ipset)),
            Self::BulkheadXdp => Carrier::Bulkhead {
                xdp: true,
                nat: false,
            },
            Self::BulkheadXdpNat => Carrier::Bulkhead { xdp: true, nat: true },
            Self::BulkheadTcx => Carrier::Bulkhead {
                xdp: false,
                nat: false,
            },
            Self::BulkheadTcxNat => Carrier::Bulkhead {
                xdp: false,
                nat: true,
            },
        }
    }

    /// Whether the sink sees the firewall's address as the source.
    #[must_use]
    pub const fn translates(self) -> bool {
        matches!(
            self,
            Self::NftablesMasquerade | Self::BulkheadXdpNat | Self::BulkheadTcxNat
        )
    }

    /// Whether the kernel must be willing to forward: where it does, and where its routing table is asked.
    #[must_use]
    pub const fn kernel_forwarding(self) -> bool {
        matches!(
            self,
            Self::Kernel
                | Self::Nftables
                | Self::NftablesMasquerade
                | Self::NftablesVerdicts
                | Self::IptablesIpset
                | Self::BareXdpFib
        )
    }

    /// Whether the kernel tracks its connections.
    #[must_use]
    pub const fn tracks(self) -> bool {
        matches!(self.carrier(), Carrier::Kernel(Some(_)))
    }

    /// Whether the replies to frames find their way, too: only then can sessions be established beforehand.
    #[must_use]
    pub const fn two_way(self) -> bool {
        matches!(self.carrier(), Carrier::Kernel(_) | Carrier::Bulkhead { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for contender in Contender::ALL {
            assert_eq!(Contender::from_id(contender.id()), Some(contender));
            assert_eq!(serde_json::to_value(contender).expect("a name"), contender.id());
        }
        assert_eq!(Contender::from_id("iptables"), None);
    }

    #[test]
    fn what_masquerades_says_so() {
        for contender in Contender::ALL {
            if let Carrier::Kernel(rules) = contender.carrier() {
                assert_eq!(
                    rules == Some(Rules::Masquerade),
                    contender.translates(),
                    "{}",
                    contender.id()
                );
            }
        }
    }
}
