//! How large the tables are made.
//!
//! Owns the four sizes by name and what follows from the numbers of a size; the kernel allows no other once a table is made.
//! Assumes nothing: every number is at least one in the kernel.

use bulkhead_abi as abi;

/// How many entries the tables may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Established sessions per family.
    pub sessions: u32,
    /// Half-open and one-way sessions per family.
    pub half_open: u32,
    /// Rules, summed over two generations.
    pub rules: u32,
    /// Addresses and prefixes per family.
    pub addresses: u32,
    /// Routes per family.
    pub routes: u32,
    /// Neighbours.
    pub neighbours: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self::medium()
    }
}

impl Sizes {
    /// Words of rule vectors, summed over two generations: eight for each rule. One that names a source, a destination
    /// and a service of its own has nine; few do. A hash has a power of two of heads, which a few words more would double.
    pub(crate) const fn vectors(&self) -> u32 {
        let words = self.rules.saturating_mul(8);
        if words < 16_384 {
            return 16_384;
        }
        let heads = 1 << words.ilog2();
        if words - heads < heads / 64 { heads } else { words }
    }

    /// Timeouts of service classes, summed over two generations: as many as rules, each of which may name a service of its
    /// own.
    pub(crate) const fn service_timeouts(&self) -> u32 {
        if self.rules < 16_384 { 16_384 } else { self.rules }
    }

    /// A branch: 64 thousand sessions, 8 thousand rules, 32 thousand addresses.
    #[must_use]
    pub const fn small() -> Self {
        Self {
            sessions: 65_536,
            half_open: 16_384,
            rules: 16_384,
            addresses: 32_768,
            routes: 8_192,
            neighbours: 4_096,
        }
    }

    /// The default: 256 thousand sessions, 64 thousand rules, 256 thousand addresses.
    #[must_use]
    pub const fn medium() -> Self {
        Self {
            sessions: 262_144,
            half_open: 65_536,
            rules: 131_072,
            addresses: 262_144,
            routes: 65_536,
            neighbours: 16_384,
        }
    }

    /// A site: a million sessions, 128 thousand rules, a million addresses.
    #[must_use]
    pub const fn large() -> Self {
        Self {
            sessions: 1_048_576,
            half_open: 131_072,
            rules: 262_144,
            addresses: 1_048_576,
            routes: 262_144,
            neighbours: 65_536,
        }
    }

    /// All that the tables are made for: four million sessions, 256 thousand rules, two million addresses.
    #[must_use]
    pub const fn xlarge() -> Self {
        Self {
            sessions: 4_194_304,
            half_open: 262_144,
            rules: 524_288,
            addresses: 2_097_152,
            routes: 1_048_576,
            neighbours: 131_072,
        }
    }
}

/// Words of the rules that accept anything, of two generations of three rule sets: all there can be, were they full.
pub(crate) const ANY_VECTORS: u32 = 2 * 3 * (1 + abi::PAGES + abi::PAGES * abi::RULES_PER_PAGE / 64);
impl Sizes {
    /// Entries of a table of established flows: two per session.
    pub(crate) fn flows(&self) -> u32 {
        self.sessions.saturating_mul(2).max(2)
    }

    /// Entries of a table of half-open flows.
    pub(crate) fn half_open_flows(&self) -> u32 {
        self.half_open.saturating_mul(2).max(2)
    }
}

/// Addresses whose sessions are counted, of all zones with limits together.
pub const LIMITED_ADDRESSES: u32 = 65_536;

/// Entries of the tables whose number is configured or chosen here.
pub(super) fn entries(sizes: &Sizes) -> [(&'static str, u32); 27] {
    let (flows, half_open) = (sizes.flows(), sizes.half_open_flows());
    [
        ("FLOWS4", flows),
        ("FLOWS6", flows),
        ("HALF_OPEN4", half_open),
        ("HALF_OPEN6", half_open),
        ("HOSTS4", sizes.addresses.max(1)),
        ("HOSTS6", sizes.addresses.max(1)),
        // One more: before 6.13 a full trie refuses to replace entries.
        ("PREFIXES4", sizes.addresses.saturating_add(1)),
        ("PREFIXES6", sizes.addresses.saturating_add(1)),
        ("SERVICES", 1 << 20),
        ("VECTORS", sizes.vectors()),
        ("ANY_VECTORS", ANY_VECTORS),
        ("RULES", sizes.rules.max(1)),
        ("DECISIONS", 65_536),
        ("ROUTES4", sizes.routes.max(1)),
        ("ROUTES6", sizes.routes.max(1)),
        ("NEIGHBOURS", sizes.neighbours.max(1)),
        ("SERVICE_TIMEOUTS", sizes.service_timeouts()),
        ("LIMITS", LIMITED_ADDRESSES),
        // Screens: as many addresses at a time as are told apart.
        ("SCREEN_RATES", 32_768),
        ("SCREEN_SCANS", 16_384),
        // Address translation.
        ("NAT_RULES", 65_536),
        ("POOLS", 4_096),
        ("NAT_ADDRESSES4", 65_536),
        ("NAT_ADDRESSES6", 65_536),
        ("MAPPINGS_INSIDE", sizes.sessions.max(1)),
        ("MAPPINGS_OUTSIDE", sizes.sessions.max(1)),
        ("NAT_PERMITS", 65_536),
    ]
}
