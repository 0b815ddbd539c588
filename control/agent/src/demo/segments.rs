//! The network of the demo: five segments around one firewall.
//!
//! Owns the addresses, which are those of `deploy/examples/four-segments.yaml`, and the names of what is made of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use bulkhead_testkit::{Host, HostSpec, Topology};
use serde::Serialize;

/// The policy of the demo, also a file for the user to begin with.
pub(super) const CONFIGURATION: &str = include_str!("../../../../deploy/examples/four-segments.yaml");
/// Every namespace of a demo begins with this.
pub(super) const PREFIX: &str = "bulkhead-demo";

/// A part of the network, behind one interface of the firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Segment {
    Financial,
    Applications,
    Web,
    Data,
    Internet,
}

impl Segment {
    pub(super) const ALL: [Self; 5] = [
        Self::Financial,
        Self::Applications,
        Self::Web,
        Self::Data,
        Self::Internet,
    ];

    /// The name of its zone, and of its host in the topology.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Financial => "financial",
            Self::Applications => "applications",
            Self::Web => "web",
            Self::Data => "data",
            Self::Internet => "internet",
        }
    }

    /// The firewall's interface towards it.
    pub(super) const fn interface(self) -> &'static str {
        match self {
            Self::Financial => "net1",
            Self::Applications => "net2",
            Self::Web => "net3",
            Self::Data => "net4",
            Self::Internet => "net5",
        }
    }

    const fn number(self) -> u8 {
        self as u8 + 1
    }

    const fn v4(self, last: u8) -> Ipv4Addr {
        match self {
            Self::Internet => Ipv4Addr::new(203, 0, 113, last),
            inside => Ipv4Addr::new(10, 10, inside.number(), last),
        }
    }

    const fn v6(self, last: u16) -> Ipv6Addr {
        match self {
            Self::Internet => Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, last),
            inside => Ipv6Addr::new(0x2001, 0xdb8, 0x10, inside.number() as u16, 0, 0, 0, last),
        }
    }

    const fn host_v4(self) -> Ipv4Addr {
        self.v4(if matches!(self, Self::Internet) { 80 } else { 20 })
    }

    const fn host_v6(self) -> Ipv6Addr {
        self.v6(if matches!(self, Self::Internet) {
            0x80
        } else {
            0x20
        })
    }

    /// The address of its host.
    pub(super) const fn host(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(self.host_v4()),
            Family::V6 => IpAddr::V6(self.host_v6()),
        }
    }

    /// The address of the firewall there.
    pub(super) const fn gateway(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(self.v4(1)),
            Family::V6 => IpAddr::V6(self.v6(1)),
        }
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub(super) enum Family {
    #[serde(rename = "ipv4")]
    V4,
    #[serde(rename = "ipv6")]
    V6,
}

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Makes the network. The Internet's host has a route to every segment, as if its provider knew them: what does
/// not come through was stopped by the firewall, not by a missing route.
pub(super) fn build() -> Result<Topology> {
    let mut builder = Topology::builder(PREFIX);
    for segment in Segment::ALL {
        builder = builder.host(
            HostSpec::new(segment.name())
                .firewall_interface(segment.interface())
                .ipv4(segment.v4(1), segment.host_v4(), 24)
                .ipv6(segment.v6(1), segment.host_v6(), 64),
        );
    }
    builder.build().context("cannot set up the network of the demo")
}

/// The host of a segment.
pub(super) fn host(topology: &Topology, segment: Segment) -> &Host {
    topology.host(segment.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_configuration() {
        let config = bulkhead_config::parse("four-segments.yaml", CONFIGURATION)
            .expect("the example is sound")
            .config;
        assert_eq!(config.interfaces.len(), Segment::ALL.len());
        for segment in Segment::ALL {
            let interface = config
                .interfaces
                .iter()
                .find(|interface| interface.name == segment.interface())
                .expect("an interface for each segment");
            assert_eq!(config.zones[interface.zone.0 as usize].name, segment.name());
            for family in Family::ALL {
                let gateway = segment.gateway(family);
                assert!(
                    interface
                        .addresses
                        .iter()
                        .any(|address| address.address == gateway),
                    "{gateway} is not on {}",
                    segment.interface()
                );
            }
        }
    }
}
