//! Destinations whose SYNs are answered with cookies.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Key of the table of destinations under attack. The value is the time (ns, monotonic) until which they count as such;
/// written by whoever measures the rate of SYNs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SynGuardKey {
    /// Destination as the client knows it, before translation; network order.
    pub address_be: [u32; 4],
    /// 4 or 6.
    pub family: u16,
    /// Zone the SYNs come from.
    pub zone: u16,
}
