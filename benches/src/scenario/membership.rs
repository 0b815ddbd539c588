//! One address into a group, and out of it again: how long until packets notice.
//!
//! Each change is confirmed by packets before the next: a stranger's is denied, a member's passes, and after the removal
//! the next packet of the session that the member has open is denied by Bulkhead. The kernel's firewalls let open
//! sessions go on, so theirs are removed before the next round; their time includes starting `nft` or `ipset`, which is
//! how a member is added there.

use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::conntrack;
use crate::contender::Carrier;
use crate::go_on;
use crate::lab::{Lab, Purpose, feed};
use crate::plan::{Scenario, Settings};
use crate::policy::{Policy, Rules, target};
use crate::series::{Point, Results, Unit};
use crate::stream::Probe;

/// An address comes.
pub const ADD: &str = "add";
/// It goes.
pub const REMOVE: &str = "remove";

struct Entry {
    lab: Lab,
    members: u32,
    add: Vec<f64>,
    remove: Vec<f64>,
}

/// Measures every contender with every size of group.
pub fn run(settings: &Settings, results: &mut Results) -> Result<()> {
    let scenario = Scenario::Membership;
    let mut entries = Vec::new();
    for members in settings.points(scenario) {
        for contender in settings.contenders(scenario) {
            go_on()?;
            eprintln!("  setting up {}, {members}", contender.description());
            let lab = Lab::new(contender, Purpose::Sockets, Policy::Group(members))?;
            lab.own_targets()?;
            entries.push(Entry {
                lab,
                members,
                add: Vec::new(),
                remove: Vec::new(),
            });
        }
    }
    for round in 1..=settings.rounds {
        eprintln!("  round {round} of {}", settings.rounds);
        for entry in &mut entries {
            go_on()?;
            one(entry, round as u32).with_context(|| {
                let contender = entry.lab.contender.id();
                format!("group of {} members, {contender}", entry.members)
            })?;
        }
    }
    for entry in entries {
        let point = |variant| Point {
            scenario,
            contender: entry.lab.contender,
            variant,
            at: u64::from(entry.members),
        };
        results.add(point(ADD), Unit::Milliseconds, entry.add);
        results.add(point(REMOVE), Unit::Milliseconds, entry.remove);
    }
    Ok(())
}

fn one(entry: &mut Entry, round: u32) -> Result<()> {
    let lab = &entry.lab;
    let newcomer = target(entry.members + round);
    let member = Probe::new(lab, target(entry.members - 1))?;
    member.must_pass()?;
    let probe = Probe::new(lab, newcomer)?;
    probe.must_not_pass()?;
    entry.add.push(time(lab, newcomer, true)?);
    probe.must_pass()?;
    entry.remove.push(time(lab, newcomer, false)?);
    if lab.contender.tracks() {
        conntrack::flush(lab.firewall())?;
    }
    probe.must_not_pass()?;
    member.must_pass()
}

/// Changes the group; milliseconds.
fn time(lab: &Lab, address: Ipv4Addr, add: bool) -> Result<f64> {
    let start = Instant::now();
    if let Some(bulkhead) = lab.bulkhead() {
        bulkhead.change_member(address, add)?;
    } else {
        match (lab.contender.carrier(), add) {
            (Carrier::Kernel(Some(Rules::Ipset)), true) => ipset(lab, "add", address)?,
            (Carrier::Kernel(Some(Rules::Ipset)), false) => ipset(lab, "del", address)?,
            (Carrier::Kernel(Some(_)), true) => nft(lab, "add", address)?,
            (Carrier::Kernel(Some(_)), false) => nft(lab, "delete", address)?,
            _ => bail!("{} has no groups", lab.contender.id()),
        }
    }
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

fn ipset(lab: &Lab, verb: &str, address: Ipv4Addr) -> Result<()> {
    feed(
        lab.firewall(),
        "ipset",
        &[verb, "bench", &address.to_string()],
        "",
    )
}

fn nft(lab: &Lab, verb: &str, address: Ipv4Addr) -> Result<()> {
    let command = format!("{verb} element inet bench members {{ {address} }}\n");
    feed(lab.firewall(), "nft", &["-f", "-"], &command)
}
