//! Every conversation of the demo, and what is to come of it.
//!
//! Owns the expected matrix. It is written by hand from what such a network is for: nobody else reaches Financial, the
//! Web Tier only receives, only Applications reach Data. It never asks the firewall, because it is what the firewall is
//! measured against.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::segments::{Family, Segment};

/// What the hosts speak. Every host serves all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Protocol {
    /// An HTTP request, TCP port 80.
    Http,
    /// An exchange with a database, TCP port 5432.
    Sql,
    /// A DNS question, UDP port 53.
    Dns,
    /// An ICMP or ICMPv6 echo.
    Ping,
}

impl Protocol {
    pub(super) const ALL: [Self; 4] = [Self::Http, Self::Sql, Self::Dns, Self::Ping];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Sql => "sql",
            Self::Dns => "dns",
            Self::Ping => "ping",
        }
    }

    /// The server's port; 0 for the protocol that has none.
    pub(super) const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Sql => 5432,
            Self::Dns => 53,
            Self::Ping => 0,
        }
    }

    /// The protocol number of IP.
    pub(super) const fn number(self, family: Family) -> u8 {
        match (self, family) {
            (Self::Http | Self::Sql, _) => 6,
            (Self::Dns, _) => 17,
            (Self::Ping, Family::V4) => 1,
            (Self::Ping, Family::V6) => 58,
        }
    }
}

/// One attempt to talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub(super) struct Conversation {
    pub(super) from: Segment,
    pub(super) to: Segment,
    pub(super) family: Family,
    pub(super) protocol: Protocol,
}

impl Conversation {
    /// Everybody to everybody else, in everything they speak.
    pub(super) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for from in Segment::ALL {
            for to in Segment::ALL.into_iter().filter(|to| *to != from) {
                for family in Family::ALL {
                    for protocol in Protocol::ALL {
                        all.push(Self {
                            from,
                            to,
                            family,
                            protocol,
                        });
                    }
                }
            }
        }
        all
    }

    /// Where the server listens.
    pub(super) const fn server(&self) -> SocketAddr {
        SocketAddr::new(self.to.host(self.family), self.protocol.port())
    }

    /// What has to come of it.
    pub(super) fn expected(&self) -> Fate {
        match MATRIX[self.from as usize][self.to as usize] {
            Reach::Only(protocols) if protocols.contains(&self.protocol) => Fate::Reached,
            Reach::Only(_) => Fate::Silence,
            Reach::Refused => Fate::Refused,
        }
    }

    /// The source address the server has to see.
    pub(super) fn expected_source(&self) -> IpAddr {
        if self.is_translated() {
            self.to.gateway(self.family)
        } else {
            self.from.host(self.family)
        }
    }

    /// Financial and Applications hide behind the firewall's own address on their way to the Internet.
    pub(super) fn is_translated(&self) -> bool {
        self.to == Segment::Internet && matches!(self.from, Segment::Financial | Segment::Applications)
    }
}

impl fmt::Display for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} from {} to {} over {}",
            self.protocol.name(),
            self.from,
            self.to,
            self.family
        )
    }
}

/// What is to come of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Fate {
    /// The server answers.
    Reached,
    /// Nothing comes back.
    Silence,
    /// The sender is told at once that it may not.
    Refused,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Reached => "an answer",
            Self::Silence => "silence",
            Self::Refused => "a refusal",
        })
    }
}

/// What of a segment is open to another one.
#[derive(Clone, Copy)]
enum Reach {
    /// These; on anything else, silence.
    Only(&'static [Protocol]),
    /// Nothing, and whoever tries is told.
    Refused,
}

/// By hand, row by row: the segment that starts; column by column: the one it wants to reach. Nobody's own column
/// is ever asked for.
#[rustfmt::skip]
const MATRIX: [[Reach; 5]; 5] = {
    use Protocol::{Dns, Http, Ping, Sql};
    use Reach::{Only, Refused};
    const NOTHING: Reach = Only(&[]);
    const VISIT: Reach = Only(&[Http, Ping]);
    const DATABASE: Reach = Only(&[Sql, Dns, Ping]);
    const WAY_OUT: Reach = Only(&[Http, Dns, Ping]);
    [
        // to:            Financial Applications   Web       Data     Internet
        /* Financial    */ [NOTHING,     VISIT,     VISIT,  NOTHING,  WAY_OUT],
        /* Applications */ [NOTHING,   NOTHING,     VISIT, DATABASE,  WAY_OUT],
        /* Web          */ [Refused,   Refused,   NOTHING,  Refused,  Refused],
        /* Data         */ [NOTHING,   NOTHING,   NOTHING,  NOTHING,  NOTHING],
        /* Internet     */ [NOTHING,   NOTHING,     VISIT,  NOTHING,  NOTHING],
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(from: Segment, to: Segment) -> Vec<Fate> {
        Conversation::all()
            .into_iter()
            .filter(|conversation| conversation.from == from && conversation.to == to)
            .map(|conversation| conversation.expected())
            .collect()
    }

    #[test]
    fn the_matrix_says_what_the_network_is_for() {
        for other in Segment::ALL {
            for (from, to) in [
                (other, Segment::Financial),
                (Segment::Web, other),
                (Segment::Data, other),
            ] {
                if from != to {
                    assert!(!expected(from, to).contains(&Fate::Reached), "{from} to {to}");
                }
            }
            let reaches_data =
                other != Segment::Data && expected(other, Segment::Data).contains(&Fate::Reached);
            assert_eq!(reaches_data, other == Segment::Applications, "{other}");
        }
        let reached = Conversation::all()
            .iter()
            .filter(|conversation| conversation.expected() == Fate::Reached)
            .count();
        assert_eq!((Conversation::all().len(), reached), (160, 34));
    }
}
