//! Sizes, resolved: how many of each thing there is room for.

use crate::document::SizeName;

/// How many of each thing there is room for. The tables are made once, at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Policies.
    pub policies: u32,
    /// Addresses and prefixes of all groups together, of each family.
    pub addresses: u32,
    /// Routes of the kernel, of each family.
    pub routes: u32,
    /// Neighbours of the kernel.
    pub neighbours: u32,
}

impl SizeName {
    /// All of them, ascending.
    pub const ALL: [Self; 4] = [Self::Small, Self::Medium, Self::Large, Self::Xlarge];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
            Self::Xlarge => "xlarge",
        }
    }

    /// What there is room for.
    pub const fn size(self) -> Size {
        let (policies, addresses, routes, neighbours) = match self {
            Self::Small => (8_192, 32_768, 8_192, 4_096),
            Self::Medium => (65_536, 262_144, 65_536, 16_384),
            Self::Large => (131_072, 1_048_576, 262_144, 65_536),
            Self::Xlarge => (262_144, 2_097_152, 1_048_576, 131_072),
        };
        Size {
            policies,
            addresses,
            routes,
            neighbours,
        }
    }

    /// Sessions at once, unless the document says otherwise.
    pub const fn sessions(self) -> u32 {
        match self {
            Self::Small => 65_536,
            Self::Medium => 262_144,
            Self::Large => 1_048_576,
            Self::Xlarge => 4_194_304,
        }
    }

    /// Half-open sessions at once, unless the document says otherwise.
    pub const fn half_open(self) -> u32 {
        match self {
            Self::Small => 16_384,
            Self::Medium => 65_536,
            Self::Large => 131_072,
            Self::Xlarge => 262_144,
        }
    }
}

impl Default for Size {
    fn default() -> Self {
        SizeName::default().size()
    }
}

/// What a configuration has of what a [`Size`] bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Policies.
    pub policies: usize,
    /// IPv4 addresses and prefixes of all groups together, one that is in two groups counted once.
    pub addresses_v4: usize,
    /// The same of IPv6.
    pub addresses_v6: usize,
    /// Zones with `hostInbound`. Each is a rule beside the policies; every size has room for them but the largest, whose
    /// number of policies is all that rules can be told apart by.
    pub inbound: usize,
}

/// One thing of which there is more than there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    /// `policies`, `IPv4 addresses`, `IPv6 addresses`
    pub what: &'static str,
    /// The number of a [`Size`] that it exceeds.
    pub field: &'static str,
    /// How many there are.
    pub number: usize,
    /// How many there is room for.
    pub room: u32,
}

impl Extent {
    /// Most rules that a firewall of any size tells apart.
    pub const MOST_RULES: usize = SizeName::Xlarge.size().policies as usize;

    /// Rules beyond what a firewall of any size tells apart.
    pub const fn rules_too_many(&self) -> usize {
        (self.policies + self.inbound).saturating_sub(Self::MOST_RULES)
    }

    /// What of it does not fit.
    pub fn excess(&self, size: &Size) -> Vec<Excess> {
        [
            ("policies", "policies", self.policies, size.policies),
            ("IPv4 addresses", "addresses", self.addresses_v4, size.addresses),
            ("IPv6 addresses", "addresses", self.addresses_v6, size.addresses),
        ]
        .into_iter()
        .filter(|(.., number, room)| *number > *room as usize)
        .map(|(what, field, number, room)| Excess {
            what,
            field,
            number,
            room,
        })
        .collect()
    }

    /// The smallest size by name that it fits.
    pub fn smallest(&self) -> Option<SizeName> {
        SizeName::ALL
            .into_iter()
            .find(|name| self.excess(&name.size()).is_empty())
    }
}
