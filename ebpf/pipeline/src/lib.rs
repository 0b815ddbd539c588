//! The packet's way as plain code: parse, session, route, zones, policy, NAT, forward.
//!
//! Owns every decision about a packet. Knows no BPF: what it needs from the outside comes in through three traits,
//! [`Frame`] (the packet), [`Tables`] (maps) and [`Clock`] (time, randomness, numbers), so the same code is compiled
//! into the XDP and TCX programs and into host tests.
//!
//! Read it in the packet's order: [`ingress`], `session` (a known conversation), `open` (a new one), `policy`,
//! `nat`, `forward`. [`host_egress`] sees what the firewall itself sends; [`control`] is user space's way to touch
//! sessions without racing the packet path. `fragment` lets fragments follow the first of their datagram.
#![no_std]
#![forbid(unsafe_code)]

mod addresses;
mod answer;
pub mod control;
mod egress;
mod expect;
mod forward;
mod fragment;
#[cfg(feature = "host")]
pub mod host;
mod ingress;
mod life;
mod limits;
pub mod nat;
mod neighbour;
mod open;
mod policy;
mod related;
mod screens;
mod session;
mod syn_proxy;
mod tcp;
mod traits;
mod wire;

pub use egress::host_egress;
pub use fragment::fragment_key;
pub use ingress::{established, ingress, stage};
pub use nat::Translation;
pub use policy::{Question, Walk, decide};
pub use traits::{
    Checksum, Clock, Frame, HAND_OVER_RATE, Insert, Limiter, NO_COOKIE, Table, Tables, apply_checksum,
    begin_second, take_token,
};

use bulkhead_abi::{
    Datagram, Event, ExpectKey, Expectation, Flow, FlowKey6, FragmentKey, Interface, LimitKey, Reason,
    RouteEntry, ScanState, ScreenKey, ScreenProfile,
};
use bulkhead_packet::{Embedded, HeaderBuffer, Packet};

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    /// Ends here.
    Drop,
    /// Goes on to the kernel of this host.
    Pass,
    /// Leaves through [`Work::out_ifindex`].
    Redirect,
    /// Appears at the peer of the veth [`Work::out_ifindex`].
    RedirectPeer,
    /// Leaves through [`Work::out_ifindex`]; the kernel resolves [`Work::route`]'s gateway (or the destination).
    RedirectNeighbour,
    /// XDP only: not settled here, the TCX program judges it.
    NextHook,
    /// TCX only: not settled here, the program of [`Work::stage`] goes on.
    Stage,
    /// User space has it, and may put it back. Not counted under the reason: where it ends next counts it.
    Held,
}

/// The parts of the long way. Each is a program of its own, reached by a tail call, with its own stack and its own share
/// of the verifier's patience; what one learns of the packet the next finds in [`Work`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    /// Known sessions that are not simply established traffic.
    Session = 0,
    /// The first packet of a conversation: from where to where, and may it.
    Open = 1,
    /// Its translation and its session.
    Admit = 2,
    /// ICMP errors about sessions.
    Related = 3,
    /// ARP and neighbour discovery.
    Neighbour = 4,
}

impl Stage {
    /// All stages, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Session,
        Self::Open,
        Self::Admit,
        Self::Related,
        Self::Neighbour,
    ];
}

/// The pipeline's answer: what becomes of the packet, and the one reason to count.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Verdict {
    /// What becomes of it.
    pub action: Action,
    /// Why.
    pub reason: Reason,
}

impl Default for Verdict {
    fn default() -> Self {
        Self::drop(Reason::Internal)
    }
}

impl Verdict {
    /// The packet ends here.
    #[inline(always)]
    pub const fn drop(reason: Reason) -> Self {
        Self {
            action: Action::Drop,
            reason,
        }
    }

    /// The packet goes to the kernel.
    #[inline(always)]
    pub const fn pass(reason: Reason) -> Self {
        Self {
            action: Action::Pass,
            reason,
        }
    }

    /// User space holds the packet.
    #[inline(always)]
    pub(crate) const fn held() -> Self {
        Self {
            action: Action::Held,
            reason: Reason::Internal,
        }
    }

    /// Another program goes on. The reason is what is counted if it cannot be reached.
    #[inline(always)]
    pub(crate) fn go_on(work: &mut Work, stage: Stage) -> Self {
        work.stage = stage as u32;
        Self {
            action: Action::Stage,
            reason: Reason::Internal,
        }
    }
}

/// Everything one packet needs while it is judged. Too large for the 512-byte stack of a BPF program, so it lives in
/// a per-CPU scratch entry; nothing in it survives the packet. `headers` comes first: a store of a variable range of
/// it must stay inside the entry for the verifier, which knows only the range's bounds.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Work {
    /// The frame's first bytes; rewritten here before they are stored back.
    pub headers: HeaderBuffer,
    /// The parsed packet.
    pub packet: Packet,
    /// What an ICMP error quotes.
    pub embedded: Embedded,
    /// The packet's tuple as flow key.
    pub key: FlowKey6,
    /// Key of the other direction.
    pub partner_key: FlowKey6,
    /// The packet's own flow, copied out of its table.
    pub flow: Flow,
    /// The other direction's flow.
    pub partner: Flow,
    /// Route to the destination.
    pub route: RouteEntry,
    /// Facts of the interface the packet came in on.
    pub ingress: Interface,
    /// Facts of the interface it leaves through.
    pub egress: Interface,
    /// The event being written.
    pub event: Event,
    /// The question put to policy.
    pub question: Question,
    /// The decision being made.
    pub walk: Walk,
    /// The expectation the packet fulfils, or makes.
    pub expected: Expectation,
    /// Its key.
    pub expect_key: ExpectKey,
    /// The translation being found.
    pub translation: Translation,
    /// Now, ns.
    pub now_ns: u64,
    /// Ingress interface index.
    pub ifindex: u32,
    /// Egress interface index for the redirect verdicts.
    pub out_ifindex: u32,
    /// Judgement number of this packet; see [`bulkhead_abi::Live`].
    pub generation: u32,
    /// What the keys of configuration tables carry for this packet.
    pub tables: u32,
    /// FIB epoch at the packet's arrival.
    pub fib_epoch: u32,
    /// Configured policy that decided; `u32::MAX`: none.
    pub policy: u32,
    /// VLAN tag the packet carries outside the frame's bytes (`abi::vlan_tag`, identifier in the low 12 bits); 0: none.
    pub vlan: u32,
    /// What the keys of this packet's flows hold above the protocol; see [`Flow::context`].
    pub context: u32,
    /// The [`Stage`] that goes on with the packet.
    pub stage: u32,
    /// What the first look says.
    pub(crate) verdict: Verdict,
    /// Number of the session's state after this packet.
    pub(crate) next_state: u8,
    /// What the packet leaves behind in its session.
    pub(crate) trace: tcp::Trace,
    /// Whether [`Work::flow`] stands in the half-open table (1), in the established one (0) or in none (2).
    pub half_open: u32,

    // Frames put back and fragments.
    /// Whether user space put the frame back (1): see `Frame::hand_over`.
    pub injected: u32,
    // Ageing and limits.
    /// Where [`Work::partner`] stands, likewise.
    pub partner_half_open: u32,
    /// Generation of [`Work::flow`] as it was found, mark included; the flow's own is what judged it since.
    pub found_generation: u32,
    /// Where the short way has just missed [`Work::key`]: in the established table (1), in both (2).
    pub(crate) missed: u32,
    /// Whether nobody in the half-open table sends the other way (1): the key turned round was just missed there.
    pub(crate) alone: u32,
    /// Key of the count of sessions being changed.
    pub limit_key: LimitKey,

    // SYN cookies
    /// Whether the packet is an acknowledgement that proved a SYN cookie.
    pub proven: u32,
    /// Key of the fragment's datagram.
    pub fragment_key: FragmentKey,
    /// The datagram as the table has it, or as it will.
    pub datagram: Datagram,
    // Screens.
    /// The screens being applied.
    pub screens: ScreenProfile,
    /// Key of the rate or scan being counted.
    pub screen_key: ScreenKey,
    /// The zone whose screens they are.
    pub zone: u32,
    /// A scan that begins.
    pub scan: ScanState,
}
