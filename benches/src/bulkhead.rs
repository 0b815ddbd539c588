//! Bulkhead as a contender: the engine in the firewall's namespace, with the policy that the others get too.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bulkhead_dataplane::bpf::Sizes;
use bulkhead_dataplane::engine::{Engine, Options};
use bulkhead_dataplane::ruleset::{
    Action, Group, HookMode, InterfaceRule, Policy as PolicyRule, Prefix, Ruleset, Service, ServiceMatch,
    SourceNat, SourceTranslation, Timeouts, Zone,
};
use bulkhead_testkit::Namespace;

use crate::lab::SINK_PORT;
use crate::policy::{Policy, target};

/// Most sessions that a round may open: there is room for them, half-open as they are.
pub const MOST_FRESH: u32 = 200_000;
/// Longer than a run: sessions must not age between two rounds of theirs.
const IDLE: Duration = Duration::from_secs(3_600);
/// UDP.
const UDP: u8 = 17;
/// The name of the group of [`Policy::Group`].
pub const GROUP: &str = "members";

/// A running data plane.
pub struct Bulkhead {
    engine: Engine,
    hook: HookMode,
    nat: bool,
}

/// What its counters say of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Judged {
    /// Went their way.
    pub forwarded: u64,
    /// Those of them that XDP settled.
    pub in_xdp: u64,
    /// Opened a session, and went their way.
    pub created: u64,
    /// Were denied because no policy names them.
    pub denied: u64,
}

impl Bulkhead {
    /// Starts in the firewall's namespace, hooked as told, with room for so many sessions.
    pub fn start(firewall: &Namespace, xdp: bool, nat: bool, policy: Policy, sessions: u32) -> Result<Self> {
        let hook = if xdp { HookMode::Xdp } else { HookMode::Tcx };
        let options = Options {
            sizes: sizes(policy, sessions),
            ..Options::default()
        };
        let engine = firewall
            .run(|| Engine::start(ruleset(hook, nat, policy), &options))
            .context("cannot start the data plane")?;
        let this = Self { engine, hook, nat };
        let expected = if xdp { "xdp+tcx" } else { "tcx" };
        for interface in firewall.run(|| this.engine.interfaces())? {
            ensure!(
                interface.hook == expected,
                "{} is hooked as {}, expected {expected}: {}",
                interface.name,
                interface.hook,
                interface.reason
            );
        }
        Ok(this)
    }

    /// The engine, for test runs and counters.
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The ruleset of a policy, for this instance.
    pub fn ruleset(&self, policy: Policy) -> Ruleset {
        ruleset(self.hook, self.nat, policy)
    }

    /// What was counted so far.
    pub fn judged(&self) -> Result<Judged> {
        let counters = self.engine.counters()?;
        let value = |name: &str| counters.get(name).copied().unwrap_or(0);
        let created = value("session_created");
        Ok(Judged {
            in_xdp: value("established_xdp"),
            forwarded: value("established") + value("established_xdp") + value("half_open") + created,
            created,
            denied: value("default_deny"),
        })
    }

    /// Adds an address to the group of [`Policy::Group`], or removes it; in force when it returns.
    pub fn change_member(&self, address: Ipv4Addr, add: bool) -> Result<()> {
        let one = [host(address)];
        let (add, remove): (&[_], &[_]) = if add { (&one, &[]) } else { (&[], &one) };
        let change = self.engine.update_members(GROUP, add, remove)?;
        ensure!(
            change.added + change.removed == 1,
            "{address} changed the group by {change:?}"
        );
        Ok(())
    }

    /// Ends every session.
    pub fn clear(&self) -> Result<()> {
        self.engine.clear_sessions(&|_| true)?;
        Ok(())
    }
}

/// Sessions there is room for where so many are to be.
const fn room(sessions: u32) -> u32 {
    let room = sessions + sessions / 4;
    if room < 65_536 { 65_536 } else { room }
}

/// Entries that the session table then has.
pub const fn flow_room(sessions: u32) -> u32 {
    2 * room(sessions)
}

/// Room for the sessions of a scenario, its policy, and twice that where two generations share a table.
fn sizes(policy: Policy, sessions: u32) -> Sizes {
    let (rules, addresses) = match policy {
        Policy::Simple => (0, 0),
        Policy::Rules(count) => (count, count),
        Policy::Group(count) => (1, count),
    };
    Sizes {
        sessions: room(sessions),
        half_open: 262_144,
        rules: 1_024 + 2 * rules,
        // As vectors too, of which a class has several.
        addresses: 8_192 + 4 * addresses,
        routes: 1_024,
        neighbours: 1_024,
    }
}

/// What `policy` permits from `net1` to `net2`, and nothing else; perhaps translated on the way.
fn ruleset(hook: HookMode, nat: bool, policy: Policy) -> Ruleset {
    let zone = |name: &str| Zone {
        name: name.to_owned(),
        host_inbound: Vec::new(),
        ..Zone::default()
    };
    let interface = |name: &str, zone| InterfaceRule {
        name: name.to_owned(),
        zone,
        routes: Vec::new(),
        addresses: Vec::new(),
        hook,
    };
    let rule = SourceNat {
        name: "masquerade".to_owned(),
        from: vec![0],
        to: vec![1],
        translation: SourceTranslation::Interface,
        ..SourceNat::default()
    };
    let measured = Service {
        name: "measured".to_owned(),
        matches: vec![ServiceMatch::Ports {
            protocol: UDP,
            first: SINK_PORT,
            last: SINK_PORT,
        }],
        ..Service::default()
    };
    let permit = |name: String| PolicyRule {
        name,
        from: vec![0],
        to: vec![1],
        action: Action::Permit,
        ..PolicyRule::default()
    };
    let (groups, policies) = match policy {
        Policy::Simple => (Vec::new(), vec![permit("source-to-sink".to_owned())]),
        Policy::Rules(count) => (0..count)
            .map(|number| {
                let rule = PolicyRule {
                    destination: vec![number as usize],
                    service: vec![0],
                    ..permit(format!("rule-{number}"))
                };
                (group(format!("host-{number}"), vec![host(target(number))]), rule)
            })
            .unzip(),
        Policy::Group(count) => {
            let rule = PolicyRule {
                destination: vec![0],
                service: vec![0],
                ..permit("members".to_owned())
            };
            let members = (0..count).map(|number| host(target(number))).collect();
            let group = Group {
                dynamic: true,
                ..group(GROUP.to_owned(), members)
            };
            (vec![group], vec![rule])
        }
    };
    Ruleset {
        zones: vec![zone("source"), zone("sink")],
        interfaces: vec![interface("net1", 0), interface("net2", 1)],
        groups,
        services: vec![measured],
        policies,
        source_nat: if nat { vec![rule] } else { Vec::new() },
        timeouts: Timeouts {
            udp_one_way: IDLE,
            udp_two_way: IDLE,
            ..Timeouts::default()
        },
        answers_per_second: 1_000,
        deny_events_per_second: 1_000,
        ..Ruleset::default()
    }
}

fn group(name: String, members: Vec<Prefix>) -> Group {
    Group {
        name,
        members,
        ..Group::default()
    }
}

/// A prefix of one address.
pub fn host(address: Ipv4Addr) -> Prefix {
    Prefix {
        address: IpAddr::V4(address),
        length: 32,
    }
}
