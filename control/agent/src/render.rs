//! Reports as tables for people. JSON and YAML need no rendering: they are the reports themselves.
//!
//! Every function is pure, from a report to the text that is printed.

mod explain;
mod flows;
mod groups;
mod memory;
mod nat;
mod revisions;
mod screens;
mod sessions;
mod verdicts;

use crate::report::{CounterKind, Counters, Interfaces, Policies, Zones};
use crate::table::{
    Align::{Left, Right},
    Table, printable,
};
use crate::words;

pub use explain::explanation;
pub use flows::{flow, flow_header, flow_jsonpb};
pub use groups::{group_changed, groups};
pub use memory::memory;
pub use nat::nat;
pub use revisions::{committed, differences, history};
pub use screens::screens;
pub use sessions::sessions;
pub use verdicts::{checked, doctor};

fn list(words: &[String]) -> String {
    words.join(", ")
}

const fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// `show interfaces`: one line each, then what needs saying about some of them.
pub fn interfaces(report: &Interfaces) -> String {
    let mut table = Table::new([
        ("INTERFACE", Left),
        ("ZONE", Left),
        ("STATE", Left),
        ("KIND", Left),
        ("MTU (B)", Right),
        ("MAC", Left),
        ("ADDRESSES", Left),
        ("HOOK", Left),
        ("ATTACHED", Left),
        ("FAILS CLOSED", Left),
    ]);
    let mut remarks = String::new();
    for interface in &report.interfaces {
        let state = match (interface.index, interface.up) {
            (None, _) => "gone",
            (Some(_), true) => "up",
            (Some(_), false) => "down",
        };
        table.row([
            interface.name.clone(),
            interface.zone.clone(),
            state.to_owned(),
            interface.kind.clone(),
            interface.mtu_bytes.to_string(),
            interface.mac.clone(),
            list(&interface.addresses),
            interface.hook.clone(),
            yes(interface.attached).to_owned(),
            yes(interface.fails_closed).to_owned(),
        ]);
        if !interface.hook_reason.is_empty() {
            remarks += &format!("{}: {}\n", interface.name, printable(&interface.hook_reason));
        }
        for warning in &interface.warnings {
            remarks += &format!("{}: warning: {}\n", interface.name, printable(warning));
        }
    }
    let gap = if remarks.is_empty() { "" } else { "\n" };
    format!(
        "{}{gap}{remarks}\nGeneration {}\n",
        table.render(),
        report.generation
    )
}

/// `show zones`
pub fn zones(report: &Zones) -> String {
    let mut table = Table::new([
        ("ZONE", Left),
        ("INTERFACES", Left),
        ("HOST INBOUND", Left),
        ("SCREEN", Left),
        ("POLICIES FROM", Right),
        ("POLICIES TO", Right),
    ]);
    for zone in &report.zones {
        table.row([
            zone.name.clone(),
            list(&zone.interfaces),
            list(&zone.host_inbound),
            zone.screen.clone().unwrap_or_default(),
            zone.policies_from.to_string(),
            zone.policies_to.to_string(),
        ]);
    }
    table.render()
}

/// `show policies`
pub fn policies(report: &Policies) -> String {
    let mut table = Table::new([
        ("#", Right),
        ("POLICY", Left),
        ("FROM", Left),
        ("TO", Left),
        ("SOURCE", Left),
        ("DESTINATION", Left),
        ("SERVICE", Left),
        ("ACTION", Left),
        ("LOG", Left),
        ("HITS", Right),
    ]);
    for policy in &report.policies {
        table.row([
            policy.number.to_string(),
            policy.name.clone(),
            list(&policy.from),
            list(&policy.to),
            list(&policy.source),
            list(&policy.destination),
            list(&policy.service),
            policy.action.clone(),
            list(&policy.log),
            policy.hits.to_string(),
        ]);
    }
    let denied = words::count(report.default_denied, "packet", "packets");
    format!(
        "{}\nHits: conversations a policy permitted, packets it denied. Denied by default: {denied}.\n",
        table.render()
    )
}

/// `show counters`: what passed, what was dropped, the rest.
pub fn counters(report: &Counters) -> String {
    let mut counters: Vec<_> = report.counters.iter().collect();
    if counters.is_empty() {
        return "every counter is zero\n".to_owned();
    }
    counters.sort_by_key(|counter| counter.kind);
    let mut table = Table::new([
        ("COUNTER", Left),
        ("KIND", Left),
        ("VALUE", Right),
        ("UNIT", Left),
    ]);
    for counter in counters {
        let kind = match counter.kind {
            CounterKind::Passed => "passed",
            CounterKind::Dropped => "dropped",
            CounterKind::Other => "other",
        };
        table.row([
            counter.name.clone(),
            kind.to_owned(),
            counter.value.to_string(),
            counter.unit.clone(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firewall::Firewall as _;
    use crate::fixture::{self, Fixture};

    #[test]
    fn interfaces_are_a_table_and_remarks() {
        let expected = "\
INTERFACE  ZONE       STATE  KIND     MTU (B)  MAC                ADDRESSES                          HOOK  ATTACHED  FAILS CLOSED
net1       financial  up     veth        1500  02:42:0a:0a:01:01  10.10.1.1/24, 2001:db8:10:1::1/64  tcx   yes       yes
net2       web        gone   unknown     1500  02:42:0a:0a:01:01  -                                  none  no        yes

net1: TCX alone: native XDP on veth costs TSO
net2: the interface is gone
net2: warning: net2 is gone; its zone reaches nobody until it comes back

Generation 3
";
        assert_eq!(interfaces(&fixture::interfaces()), expected);
    }

    #[test]
    fn policies_are_in_order_and_counted() {
        let expected = "\
#  POLICY               FROM                    TO         SOURCE  DESTINATION  SERVICE            ACTION  LOG      HITS
1  financial-is-closed  any                     financial  any     any          any                deny    deny        0
2  visit-web            internet, applications  web        any     web-servers  http, https, ping  permit  -     1234567

Hits: conversations a policy permitted, packets it denied. Denied by default: 41 packets.
";
        assert_eq!(policies(&fixture::policies()), expected);
    }

    #[test]
    fn the_other_tables() {
        let fixture = Fixture::default();
        assert_eq!(
            zones(&fixture.zones().expect("zones")),
            "ZONE  INTERFACES  HOST INBOUND  SCREEN   POLICIES FROM  POLICIES TO\nweb   net3        ping          default              2            1\n"
        );
        assert_eq!(
            nat(&fixture.nat().expect("rules")),
            "\
#  RULE         FROM                     TO        SOURCE  DESTINATION  SERVICE  TRANSLATE  PERSISTENT  HITS (sessions)
1  hide-inside  financial, applications  internet  any     any          any      interface  -                        12
"
        );
        assert_eq!(
            counters(&fixture.counters(true).expect("counters")),
            "\
COUNTER           KIND       VALUE  UNIT
established       passed   1000000  packets
default_deny      dropped       41  packets
no_route          dropped        0  packets
sessions_expired  other          7  sessions
"
        );
    }

    #[test]
    fn nothing_is_said_in_words() {
        assert_eq!(
            counters(&Counters { counters: vec![] }),
            "every counter is zero\n"
        );
    }
}
