//! What daemons of one version leave to each other: the tables that outlive them, the place and type of each field of their
//! keys and values, and the numbers stored in those.
//!
//! Fields and variants are complete by construction: one that is not listed here does not compile. Constants are not.

use std::{any::type_name, mem::offset_of};

use bulkhead_abi::{
    Datagram, Disposition, ExpectKey, Expectation, Flow, FlowKey4, FlowKey6, FragmentKey, Hop, LimitKey,
    LimitKind, Live, Mapping, MappingKey, NAT_ANSWERED, NatFiltering, PermitKey, RateState, Reason,
    STATIC_RULE, ScanState, Screen, ScreenCount, ScreenKey, SessionCount, SessionState, Tally, announced,
    datagram_flags, flow_flags, flow_generation,
};

use super::Section;

/// A type with each of its fields; one that is missing does not compile.
macro_rules! layout {
    ($type:ident { $($field:ident),+ $(,)? }) => {{
        let $type { $($field: _),+ } = $type::default();
        let mut lines = vec![format!("{} bytes, aligned to {}", size_of::<$type>(), align_of::<$type>())];
        $(lines.push(format!(
            "{} {} {}",
            offset_of!($type, $field),
            stringify!($field),
            type_of(|value: &$type| &value.$field),
        ));)+
        Section { title: format!("type {}", stringify!($type)), lines }
    }};
}

/// An enumeration with each of its variants; one that is missing does not compile.
macro_rules! numbers {
    ($type:ident { $($variant:ident),+ $(,)? }) => {{
        let _complete = |value: $type| match value { $($type::$variant => ()),+ };
        let lines = vec![$(format!("{} {}", $type::$variant as u32, stringify!($variant))),+];
        Section { title: format!("numbers {}", stringify!($type)), lines }
    }};
}

/// Constants that stand in keys or values.
macro_rules! constants {
    ($name:literal: $($constant:path),+ $(,)?) => {
        Section {
            title: format!("constants {}", $name),
            lines: vec![$(format!("{:#x} {}", $constant, stringify!($constant))),+],
        }
    };
}

fn type_of<T, F>(_: impl Fn(&T) -> &F) -> String {
    type_name::<F>()
        .rsplit("::")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// A line of the section `tables`: kind, flags (1: entries are allocated as they come), key and value.
fn table<K, V>(name: &str, kind: &str, flags: u32) -> String {
    let last = |path: &'static str| path.rsplit("::").next().unwrap_or_default();
    format!(
        "{name} {kind} flags {flags} key {} {} value {} {}",
        last(type_name::<K>()),
        size_of::<K>(),
        last(type_name::<V>()),
        size_of::<V>()
    )
}

/// The tables that outlive a daemon; the data plane's `pins` has their sizes.
pub(crate) fn tables() -> Section {
    Section {
        title: "growing tables".to_owned(),
        lines: vec![
            table::<FlowKey4, Flow>("FLOWS4", "Hash", 1),
            table::<FlowKey6, Flow>("FLOWS6", "Hash", 1),
            table::<FlowKey4, Flow>("HALF_OPEN4", "LruHash", 0),
            table::<FlowKey6, Flow>("HALF_OPEN6", "LruHash", 0),
            table::<MappingKey, MappingKey>("MAPPINGS_INSIDE", "Hash", 1),
            table::<MappingKey, Mapping>("MAPPINGS_OUTSIDE", "Hash", 1),
            table::<PermitKey, u64>("NAT_PERMITS", "LruHash", 0),
            table::<LimitKey, SessionCount>("LIMITS", "LruHash", 0),
            table::<ExpectKey, Expectation>("EXPECTED", "LruHash", 0),
            table::<FragmentKey, Datagram>("FRAGMENTS", "LruHash", 0),
            table::<u32, u64>("DATAGRAM_IDS", "Array", 0),
            table::<u32, u64>("SESSION_IDS", "PerCpuArray", 0),
            table::<u32, u64>("COUNTERS", "PerCpuArray", 0),
            table::<u32, u64>("TALLIES", "PerCpuArray", 0),
            table::<u32, ScreenCount>("SCREEN_COUNTS", "PerCpuArray", 0),
            table::<ScreenKey, RateState>("SCREEN_RATES", "LruHash", 0),
            table::<ScreenKey, ScanState>("SCREEN_SCANS", "LruHash", 0),
            table::<u32, u64>("MARKS", "Array", 0),
        ],
    }
}

/// Keys and values of those tables, and the live record, which is each load's own and read by the next one.
pub(crate) fn layouts() -> Vec<Section> {
    vec![
        layout!(FlowKey4 {
            source_be,
            destination_be,
            source_port,
            destination_port,
            protocol
        }),
        layout!(FlowKey6 {
            source_be,
            destination_be,
            source_port,
            destination_port,
            protocol
        }),
        layout!(Flow {
            last_seen_ns,
            packets,
            bytes,
            generation,
            fib_epoch,
            egress_ifindex,
            ingress_ifindex,
            next_hop_mac,
            egress_mac,
            state,
            flags,
            disposition,
            hop,
            mtu,
            silence,
            ingress_mac_low,
            ingress_mac_high,
            tcp_window,
            tcp_end,
            tcp_ack,
            tcp_limit,
            tcp_offer,
            tcp_scale,
            from_zone,
            to_zone,
            protocol,
            new_source_port,
            new_destination_port,
            new_source_be,
            new_destination_be,
            icmp_type_code,
            context,
            timeout_s,
            policy,
            nat_rule,
            tcp_delta,
            destination_rule,
            unanswered,
            session_id,
            created_ns,
        }),
        layout!(MappingKey {
            address_be,
            port,
            protocol,
            family,
            identity
        }),
        layout!(Mapping {
            last_used_ns,
            inside_be,
            outside_be,
            target_be,
            inside_ifindex,
            outside_ifindex,
            generation,
            identity,
            timeout_s,
            rule,
            inside_port,
            outside_port,
            target_port,
            protocol,
            family,
            number,
            filtering,
            reserved,
        }),
        layout!(PermitKey {
            outside,
            remote_be,
            remote_port
        }),
        layout!(LimitKey { scope, address_be }),
        layout!(SessionCount { sessions, returned }),
        layout!(ExpectKey {
            source_be,
            destination_be,
            destination_port,
            protocol,
            family,
            context
        }),
        layout!(Expectation {
            created_ns,
            new_source_be,
            new_destination_be,
            new_destination_port,
            announced_by,
            from_server,
        }),
        layout!(FragmentKey {
            source_be,
            destination_be,
            id,
            protocol,
            family,
            zone
        }),
        layout!(Datagram {
            created_ns,
            last_ns,
            new_id,
            end,
            tcp_base,
            source_port,
            destination_port,
            protocol,
            flags,
            reason,
            reserved,
            ranges,
        }),
        layout!(ScreenCount { dropped, alarmed }),
        layout!(ScreenKey { subject, address_be }),
        layout!(RateState {
            began_ns,
            packets,
            until_ns
        }),
        layout!(ScanState {
            began_ns,
            targets,
            seed,
            seen
        }),
        layout!(Live {
            generation,
            tables,
            fib_epoch,
            reserved
        }),
    ]
}

/// What is stored in them. The slots of counters and the numbers of screens and reasons may become more.
pub(crate) fn stored() -> Vec<Section> {
    let growing = |name: &str, lines: Vec<String>| Section {
        title: format!("growing {name}"),
        lines,
    };
    let reasons = Reason::ALL.iter().map(|reason| (*reason as u32, reason.name()));
    let counters = reasons.chain(Reason::EXTRA.iter().copied());
    let screens = Screen::ALL.iter().map(|screen| (*screen as u32, screen.name()));
    let line = |(number, name): (u32, &str)| format!("{number} {name}");
    vec![
        numbers!(SessionState {
            TcpSynSent,
            TcpSynReceived,
            TcpEstablished,
            TcpClosing,
            TcpClosed,
            UdpOneWay,
            UdpTwoWay,
            Icmp,
            Other,
            TcpSynCrossed,
            TcpLastAck,
            TcpTimeWait,
            TcpMidstream,
            Dccp,
        }),
        numbers!(Disposition {
            Forward,
            ToHost,
            FromHost
        }),
        numbers!(Hop {
            Unresolved,
            Redirect,
            RedirectPeer
        }),
        numbers!(NatFiltering {
            None,
            AnyRemoteHost,
            TargetHost,
            TargetHostPort
        }),
        numbers!(LimitKind {
            Source,
            Destination,
            SynAckAck
        }),
        constants!("Flow": flow_flags::REPLY, flow_flags::TRANSLATED, flow_flags::FIN_SENT,
            flow_flags::XDP_EGRESS, flow_flags::COUNTED, flow_flags::PROXIED, flow_flags::GATEWAY,
            flow_flags::LIBERAL, flow_generation::MARK, flow_generation::DEAD, Flow::NO_SCALE,
            announced::ANNOUNCED, announced::FROM_SERVER),
        constants!("Datagram": datagram_flags::POISONED, datagram_flags::TO_HOST, datagram_flags::COMPLETE,
            datagram_flags::CROSSES),
        constants!("translation": STATIC_RULE, NAT_ANSWERED, MappingKey::INTERFACE),
        growing(
            "Tally",
            vec![
                line((Tally::Created as u32, "created")),
                line((Tally::Ended as u32, "ended")),
            ],
        ),
        growing("Screen", screens.map(line).collect()),
        growing("counters", counters.map(line).collect()),
    ]
}
