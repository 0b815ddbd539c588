//! Address translation, resolved.
//!
//! Sound by construction: a source rule names no pool made for destination rules and the other way round, a persistent
//! rule translates ports, the two prefixes of a static rule have one family and one length.

use std::time::Duration;

use super::{GroupId, Selector, ServiceId, ZoneId};
use crate::address::{IpPrefix, IpRange};
use crate::document::PersistentScope;
use crate::service::PortRange;

/// Index into [`Config::pools`](super::Config::pools).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u32);

/// One set of addresses to translate to; at least one of the two families has addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Its IPv4 addresses: at most [`MAX_POOL_RANGES`](crate::MAX_POOL_RANGES) ranges in ascending order, none touching another.
    pub ipv4: Vec<IpRange>,
    /// Its IPv6 addresses, likewise.
    pub ipv6: Vec<IpRange>,
    /// What its ports are for.
    pub usage: PoolUse,
    /// Line of the name.
    pub line: u32,
}

/// Which rules may name a pool, and what they do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolUse {
    /// Rules of both kinds, as nothing but addresses was written: source rules with the defaults, destination rules
    /// without touching the port.
    Either,
    /// Source rules only.
    Source {
        /// The ports to translate to; `None` to keep every port.
        ports: Option<PortRange>,
        /// Whether all sessions of one host get the same address.
        paired: bool,
        /// When to tell that it is running out.
        alarm: Option<PoolAlarm>,
    },
    /// Destination rules only: the port to translate to.
    Destination(u16),
}

/// When to tell that a pool is running out, in per cent; `1 <= clear < raise <= 100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolAlarm {
    /// The alarm is raised at this utilization.
    pub raise: u8,
    /// It is over below this utilization.
    pub clear: u8,
}

impl Pool {
    /// The ports a source rule translates to, unless the pool says otherwise (RFC 4787 REQ-3a).
    pub const DEFAULT_PORTS: PortRange = PortRange {
        first: 1024,
        last: 65_535,
    };

    /// The ports a source rule translates to; `None` to keep every port, and where no source rule may name the pool.
    pub fn ports(&self) -> Option<PortRange> {
        match self.usage {
            PoolUse::Source { ports, .. } => ports,
            PoolUse::Either => Some(Self::DEFAULT_PORTS),
            PoolUse::Destination(_) => None,
        }
    }

    /// Whether a source rule gives all sessions of one host the same address.
    pub fn paired(&self) -> bool {
        match self.usage {
            PoolUse::Source { paired, .. } => paired,
            PoolUse::Either | PoolUse::Destination(_) => true,
        }
    }

    /// When to tell that it is running out.
    pub fn alarm(&self) -> Option<PoolAlarm> {
        match self.usage {
            PoolUse::Source { alarm, .. } => alarm,
            PoolUse::Either | PoolUse::Destination(_) => None,
        }
    }

    /// The port a destination rule translates to; `None` to keep it.
    pub fn port(&self) -> Option<u16> {
        match self.usage {
            PoolUse::Destination(port) => Some(port),
            PoolUse::Either | PoolUse::Source { .. } => None,
        }
    }
}

/// One source translation rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRule {
    /// Its name.
    pub name: String,
    /// Zones the conversation comes from.
    pub from: Selector<ZoneId>,
    /// Zones the conversation goes to.
    pub to: Selector<ZoneId>,
    /// Who starts it.
    pub source: Selector<GroupId>,
    /// Whom it is for, after destination translation.
    pub destination: Selector<GroupId>,
    /// What it speaks.
    pub service: Selector<ServiceId>,
    /// What becomes of the source address.
    pub translate: SourceTranslation,
    /// Whether a host keeps its translated address and port; never with [`SourceTranslation::Off`].
    pub persistent: Option<Persistent>,
    /// Line of the name.
    pub line: u32,
}

/// What becomes of the source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceTranslation {
    /// It becomes the address of the interface the packet leaves through.
    Interface,
    /// It stays; later rules are not asked.
    Off,
    /// It becomes an address of the pool.
    Pool(PoolId),
}

/// A host keeps its translated address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Persistent {
    /// Who may reach it there.
    pub scope: PersistentScope,
    /// How long it keeps them after its last session: whole seconds, from 60 to 7,200.
    pub timeout: Duration,
}

impl Persistent {
    /// How long a host keeps its translated address and port, unless the document says otherwise.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);
}

/// One destination translation rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationRule {
    /// Its name.
    pub name: String,
    /// Zones the conversation comes from.
    pub from: Selector<ZoneId>,
    /// Who starts it.
    pub source: Selector<GroupId>,
    /// Whom it is for, before translation.
    pub destination: Selector<GroupId>,
    /// What it speaks, before translation.
    pub service: Selector<ServiceId>,
    /// Where the destination address comes from; `None` for a rule that leaves it alone.
    pub pool: Option<PoolId>,
    /// Line of the name.
    pub line: u32,
}

/// Two prefixes that stand for each other, address by address, in both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticRule {
    /// Its name.
    pub name: String,
    /// Zones on whose side `outside` is used.
    pub from: Selector<ZoneId>,
    /// The addresses as they are known there.
    pub outside: IpPrefix,
    /// The addresses the hosts really have: of the same family and length.
    pub inside: IpPrefix,
    /// Whether the checksum is kept by adapting the address (RFC 6296): IPv6 and a length of at most 64 then.
    pub npt: bool,
    /// Line of the name.
    pub line: u32,
}
