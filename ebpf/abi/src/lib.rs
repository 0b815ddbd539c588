//! What the kernel programs and user space agree on: map keys and values, reasons, events.
//!
//! Leaf crate, `no_std`, no `unsafe`. Every type that crosses the boundary derives zerocopy's `IntoBytes`, which
//! refuses padding at compile time, so no key is ever hashed with stray bytes in it.
//!
//! Conventions: addresses are the packet's bytes in memory order (`_be`; IPv4 in word 0, the others zero, wherever
//! both families share a field); ports are host order; times are nanoseconds of the kernel's monotonic clock.
#![no_std]
#![forbid(unsafe_code)]

mod event;
mod flow;
mod fragment;
mod frame;
mod gateway;
mod limit;
mod nat;
mod policy;
mod reason;
mod route;
mod screen;

pub use event::{ControlRequest, Event, EventKind, SLOW_PATH_BYTES, SlowPathKind, SlowPathRequest};
pub use flow::{
    Disposition, Flow, FlowKey4, FlowKey6, Hop, SessionState, TIMEOUTS, flow_flags, flow_generation,
    idle_timeout_ns, protocol,
};
pub use fragment::{
    Datagram, FRAGMENT_ENTRIES, FRAGMENT_LIFETIME_NS, FRAGMENT_RANGES, FragmentKey, datagram_flags,
};
pub use frame::{
    FrameHeader, FrameKind, LARGE_FRAME_BYTES, SMALL_FRAME_BYTES, is_service_tag, vlan_bytes, vlan_tag,
};
pub use gateway::{ExpectKey, Expectation, announced, announced_by, gateways};
pub use limit::{LimitKey, LimitKind, LimitRule, LimitRuleKey, SessionCount, Tally, TimeoutKey, limit_flags};
pub use nat::{
    Mapping, MappingKey, NAT_ANSWERED, NatAction, NatAddressKey4, NatAddressKey6, NatFiltering, NatPool,
    NatRule, NatRuleKey, POOL_RANGES, PermitKey, PoolKey, STATIC_RULE, nat_flags, pool_flags,
};
pub use policy::{
    AddressClass, AnyVectors, Decision, DecisionKey, Dimension, HostKey4, HostKey6, PAGES, PolicyAction,
    PolicyKey, PolicyRule, PrefixKey4, PrefixKey6, RULES_PER_PAGE, RuleSet, ServiceKey, VectorKey, ZoneKey,
    log_flags,
};
pub use reason::Reason;
pub use route::{
    Interface, Live, NeighbourKey, Route4Key, Route6Key, RouteEntry, RouteKind, Settings, interface_flags,
    tcp_rules,
};
pub use screen::{
    MAX_ZONES, RateState, ScanLimit, ScanState, Screen, ScreenCount, ScreenKey, ScreenProfile, ZONE_SLOTS,
    screen_flags,
};

/// Version of everything in this crate that daemons leave to each other in pinned tables. A change of any of its layouts or
/// meanings raises it, layouts and numbers held by `tests/layouts`; programs and user space of different versions never share
/// maps. What is in no pinned table belongs to one build alone.
pub const ABI_VERSION: u32 = 5;

/// Zone number of the firewall itself: the destination of `hostInbound`, the source of its own connections.
pub const ZONE_SELF: u8 = 0;

/// The most data interfaces one instance guards.
pub const MAX_DATA_INTERFACES: usize = 15;

/// Mark on packets the slow path sends itself, so that the egress program lets them out without a session.
pub const SLOW_PATH_MARK: u32 = 0x0b0c_4ead;
