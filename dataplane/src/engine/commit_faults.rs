//! What a commit or a change of members leaves behind when a write to the kernel fails: every write in turn, once; with one
//! of its undo; and with all behind it. After each the configuration of before or the new one is in force, never a mix, and
//! the next change works.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Result, ensure};
use bulkhead_abi::{NAT_ANSWERED, NatRule, PolicyRule};
use bulkhead_testkit::{Bpffs, Frame, Namespace, effort, privileged};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Engine, Options, lock};
use crate::{
    bpf::{Program, Sizes},
    faults::{self, Outcome, Plan},
    link::{Hook, has_tcx, links_on},
    netlink::{Direction, Netlink, VethSpec},
    ruleset::{
        Action, Group, HookMode, InterfaceRule, Policy, Pool, Prefix, Ruleset, Screen, Service, ServiceMatch,
        SourceNat, SourceTranslation, Zone,
    },
    table::TypedMap,
};

const SIZES: Sizes = Sizes {
    sessions: 8_192,
    half_open: 8_192,
    rules: 64,
    addresses: 64,
    routes: 64,
    neighbours: 64,
};

/// `TC_ACT_OK`, `TC_ACT_SHOT`, `TC_ACT_REDIRECT` (include/uapi/linux/pkt_cls.h).
const PASS: u32 = 0;
const SHOT: u32 = 2;
const REDIRECT: u32 = 7;

const CLIENT: &str = "10.1.0.2";
const WATCHED: [&str; 3] = ["10.1.0.66", "10.1.0.67", "10.1.0.68"];
const SERVERS: [&str; 2] = ["10.2.0.9", "10.2.0.10"];
const PORTS: [u16; 2] = [80, 443];
/// Where translation leads in the first and in the second configuration.
const SOURCES: [&str; 2] = ["10.2.0.1", "10.2.0.77"];

fn prefix(address: &str, length: u8) -> Prefix {
    Prefix {
        address: address.parse().expect("an address"),
        length,
    }
}

/// Two configurations that differ wherever one can: the first lets clients go to port 80 of the first server, translated to
/// the interface's address, and be pinged; the second to port 443 of the second one, translated to a pool. Zones change
/// places, and so do groups, so that every number means something else.
fn configuration(which: usize) -> Ruleset {
    let zone = |name: &str, index: usize| Zone {
        name: name.into(),
        host_inbound: if name == "inside" && which == 0 {
            vec![2]
        } else {
            vec![]
        },
        screen: Some(index),
    };
    let (inside, outside) = (which, 1 - which);
    let mut zones = vec![zone("inside", 0), zone("outside", 1)];
    let server = Group {
        name: "server".into(),
        members: vec![prefix(SERVERS[which], 32), prefix("fd00:2::", 48 + which as u8)],
        ..Group::default()
    };
    let watched = Group {
        name: "watched".into(),
        dynamic: true,
        ..Group::default()
    };
    let mut groups = vec![server, watched];
    if which == 1 {
        zones.reverse();
        groups.reverse();
    }
    let interface = |name: &str, zone| InterfaceRule {
        name: name.into(),
        zone,
        hook: HookMode::Tcx,
        ..InterfaceRule::default()
    };
    let tcp = |port| Service {
        name: format!("tcp-{port}"),
        matches: vec![ServiceMatch::Ports {
            protocol: 6,
            first: port,
            last: port,
        }],
        timeout: Some(std::time::Duration::from_secs(60 + which as u64)),
    };
    let ping = Service {
        name: "ping".into(),
        matches: vec![ServiceMatch::Icmp {
            protocol: 1,
            kind: 8,
            code: None,
        }],
        ..Service::default()
    };
    let address: IpAddr = SOURCES[1].parse().expect("an address");
    let screen = |name: &str| Screen {
        name: name.into(),
        icmp_flood: Some(1_000 + which as u32),
        ..Screen::default()
    };
    Ruleset {
        zones,
        interfaces: vec![interface("net1", inside), interface("net2", outside)],
        groups,
        services: vec![tcp(PORTS[0]), tcp(PORTS[1]), ping],
        policies: vec![
            Policy {
                name: "watched".into(),
                source: vec![1 - which],
                action: Action::Deny,
                ..Policy::default()
            },
            Policy {
                name: "out".into(),
                from: vec![inside],
                to: vec![outside],
                destination: vec![which],
                service: vec![which],
                action: Action::Permit,
                ..Policy::default()
            },
        ],
        pools: vec![Pool {
            name: "pool".into(),
            ranges: vec![(address, address)],
            ports: Some((20_000, 40_000)),
            ..Pool::default()
        }],
        source_nat: vec![SourceNat {
            name: "source".into(),
            from: vec![inside],
            to: vec![outside],
            translation: if which == 0 {
                SourceTranslation::Interface
            } else {
                SourceTranslation::Pool(0)
            },
            ..SourceNat::default()
        }],
        screens: vec![screen("front"), screen("back")],
        answers_per_second: 1_000,
        deny_events_per_second: 1_000,
        ..Ruleset::default()
    }
}

/// Two interfaces that lead nowhere.
fn interfaces() -> Result<[u32; 2]> {
    let mut netlink = Netlink::connect()?;
    let mut indices = [0; 2];
    for (number, name, peer_name) in [(1, "net1", "peer1"), (2, "net2", "peer2")] {
        let index = netlink.create_veth(&VethSpec {
            name,
            peer_name,
            ..VethSpec::default()
        })?;
        indices[usize::from(number) - 1] = index;
        netlink.set_up(index)?;
        netlink.add_address(index, IpAddr::from([10, number, 0, 1]), 24)?;
        if number == 2 {
            for server in SERVERS {
                netlink.add_neighbour(index, server.parse()?, [2, 0, 0, 0, 2, 9])?;
            }
        }
    }
    Ok(indices)
}

/// An engine between them.
struct Lab {
    engine: Engine,
    index: u32,
    mac: [u8; 6],
    /// Source port of the next probe: each opens a session of its own.
    port: u16,
}

impl Lab {
    fn new() -> Result<Self> {
        interfaces()?;
        let options = Options {
            sizes: SIZES,
            pins: None,
            ..Options::default()
        };
        let net1 = Netlink::connect()?.link_by_name("net1")?;
        Ok(Self {
            engine: Engine::start(configuration(0), &options)?,
            index: net1.index,
            mac: net1.mac,
            port: 1_024,
        })
    }

    /// What becomes of a packet: the program's answer, and who it seems to come from then.
    fn judge(&self, frame: &Frame) -> Result<(u32, IpAddr)> {
        let frame = frame.clone().macs([2, 0, 0, 0, 1, 2], self.mac).build();
        let run = |object: &mut crate::bpf::Object| object.test_run(Program::Ingress, &frame, self.index, 1);
        let outcome = self.engine.with_object(run)?;
        let source: [u8; 4] = outcome.packet[26..30].try_into()?;
        Ok((outcome.code, source.into()))
    }

    fn connect(&mut self, client: &str, server: &str, port: u16) -> Result<(u32, IpAddr)> {
        self.port += 1;
        let (client, server): (IpAddr, IpAddr) = (client.parse()?, server.parse()?);
        self.judge(&Frame::ip(client, server).tcp(self.port, port).syn())
    }

    /// Which configuration packets are judged by: each of them whole.
    fn in_force(&mut self) -> Result<usize> {
        let mut answers = Vec::new();
        for server in SERVERS {
            for port in PORTS {
                answers.push(self.connect(CLIENT, server, port)?);
            }
        }
        let (client, own): (IpAddr, IpAddr) = (CLIENT.parse()?, "10.1.0.1".parse()?);
        self.port += 1;
        answers.push(self.judge(&Frame::ip(client, own).echo_request(self.port, 1))?);
        let no = (SHOT, client);
        let yes = |which: usize| (REDIRECT, SOURCES[which].parse().expect("an address"));
        if answers == [yes(0), no, no, no, (PASS, client)] {
            Ok(0)
        } else if answers == [no, no, no, yes(1), no] {
            Ok(1)
        } else {
            anyhow::bail!("a mix: {answers:?}")
        }
    }

    /// Which of the watched addresses are denied.
    fn denied(&mut self) -> Result<Vec<bool>> {
        let which = self.in_force()?;
        let answers = WATCHED.map(|client| self.connect(client, SERVERS[which], PORTS[which]));
        answers.into_iter().map(|answer| Ok(answer?.0 == SHOT)).collect()
    }

    /// The kernel's tables hold the generation in force, whole, and, unless something could not be removed, nothing else.
    fn whole(&self, alone: bool) -> Result<()> {
        let live = lock(&self.engine.shared.live);
        let (maps, own) = (&self.engine.shared.maps, &live.compiled);
        let generation = own.generation;
        let force = maps.live.get(&0)?.unwrap_or_default();
        ensure!(force.tables == generation, "{force:?}: not {generation}");
        let same = |other: u32| other == generation;
        compare(&maps.zones, &own.zones, alone, |key| same(key.generation), |v| v)?;
        compare(
            &maps.services,
            &own.services,
            alone,
            |key| same(key.generation),
            |v| v,
        )?;
        let vectors = own
            .vectors
            .iter()
            .filter(|(key, _)| !live.noted.contains(&key.class));
        let vectors: Vec<_> = vectors.copied().collect();
        let noted = !live.noted.is_empty();
        compare(
            &maps.vectors,
            &vectors,
            alone && !noted,
            |key| same(key.generation) && !live.noted.contains(&key.class),
            |v| v,
        )?;
        compare(
            &maps.any_vectors,
            &own.any_vectors,
            alone,
            |key| same(key.generation),
            |v| v,
        )?;
        let unused = |rule: PolicyRule| PolicyRule { hits: 0, ..rule };
        compare(&maps.rules, &own.rules, alone, |key| same(key.generation), unused)?;
        let unused = |rule: NatRule| NatRule { hits: 0, ..rule };
        compare(
            &maps.nat_rules,
            &own.nat_rules,
            alone,
            |key| same(key.generation),
            unused,
        )?;
        compare(&maps.pools, &own.pools, alone, |key| same(key.generation), |v| v)?;
        compare(
            &maps.nat_addresses4,
            &own.nat_addresses4,
            alone,
            |key| same(key.generation & !NAT_ANSWERED),
            |v| v,
        )?;
        compare(
            &maps.service_timeouts,
            &own.service_timeouts,
            alone,
            |key| same(key.generation),
            |v| v,
        )?;
        let settings = maps.settings.get(&(generation & 1))?;
        ensure!(settings == Some(own.settings), "settings: {settings:?}");
        for (index, profile) in &own.screens {
            ensure!(maps.screens.get(index)? == Some(*profile), "screen {index}");
        }
        for (address, length) in WATCHED.iter().chain(&SERVERS).map(|address| (*address, 32)) {
            let address: IpAddr = address.parse()?;
            ensure!(length == 32);
            let expected = live.book.class(&address);
            let found = class(maps, address, generation)?;
            ensure!(
                found == expected,
                "{address}: class {found}, the book says {expected}"
            );
        }
        Ok(())
    }
}

/// The class that programs find for an IPv4 address.
fn class(maps: &crate::bpf::KernelMaps, address: IpAddr, generation: u32) -> Result<u32> {
    let IpAddr::V4(address) = address else {
        anyhow::bail!("IPv4 only")
    };
    let bits = u32::from(address);
    let key = bulkhead_abi::HostKey4 {
        address_be: bits.to_be(),
    };
    if let Some(found) = maps.hosts4.get(&key)? {
        return Ok(found.of(generation));
    }
    let key = bulkhead_abi::PrefixKey4 {
        bits: 32,
        address_be: bits.to_be(),
    };
    Ok(maps.prefixes4.get(&key)?.map_or(0, |found| found.of(generation)))
}

/// Compares a table's entries of one generation with what it should have, and, if `alone`, sees to it that there are no
/// others.
fn compare<K, V>(
    map: &TypedMap<K, V>,
    expected: &[(K, V)],
    alone: bool,
    of_generation: impl Fn(&K) -> bool,
    plain: impl Fn(V) -> V,
) -> Result<()>
where
    K: IntoBytes + FromBytes + Immutable + Copy,
    V: IntoBytes + FromBytes + Immutable + Copy,
{
    let bytes = |key: &K, value: V| [key.as_bytes(), plain(value).as_bytes()].concat();
    let mut found = BTreeSet::new();
    for key in map.keys()? {
        if of_generation(&key) {
            found.extend(map.get(&key)?.map(|value| bytes(&key, value)));
        } else {
            ensure!(
                !alone,
                "{}: an entry of another generation: {:x?}",
                map.name(),
                key.as_bytes()
            );
        }
    }
    let expected: BTreeSet<_> = expected.iter().map(|(key, value)| bytes(key, *value)).collect();
    ensure!(
        found == expected,
        "{}: {found:x?} is not {expected:x?}",
        map.name()
    );
    Ok(())
}

fn lab(test: impl FnOnce(Lab) -> Result<()> + Send) -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    Namespace::new("bhrev-f")?.run(|| test(Lab::new()?))
}

/// Plans of one kind for each write in turn, until one is beyond the last write: how many there were.
fn each(mut plan: impl FnMut(u32) -> Plan, mut turn: impl FnMut(Plan) -> Result<Outcome>) -> Result<u32> {
    for write in 1.. {
        let plan = plan(write);
        let outcome = turn(plan).map_err(|error| error.context(format!("{plan:?}")))?;
        if outcome.failed == 0 {
            return Ok(write - 1);
        }
    }
    anyhow::bail!("more writes than numbers")
}

/// Commits the other configuration while writes fail as planned.
fn commit(lab: &mut Lab, plan: Plan) -> Result<Outcome> {
    let before = lab.in_force()?;
    let (result, outcome) = faults::with(plan, || lab.engine.commit(configuration(1 - before)));
    let after = lab.in_force()?;
    let expected = if result.is_ok() { 1 - before } else { before };
    ensure!(
        after == expected,
        "{result:?}, and {after} is in force, before it was {before}"
    );
    lab.whole(false)?;
    if outcome.failed != 0 && outcome.writes == 0 {
        anyhow::bail!("nothing was written");
    }
    // The same again, the other one, and all that is left over goes.
    lab.engine.commit(configuration(before))?;
    ensure!(lab.in_force()? == before);
    lab.engine.commit(configuration(1 - before))?;
    ensure!(lab.in_force()? == 1 - before);
    lab.whole(true)?;
    Ok(outcome)
}

#[test]
fn netns_a_commit_whose_nth_write_fails_leaves_the_old_or_the_new() -> Result<()> {
    lab(|mut lab| {
        ensure!(lab.in_force()? == 0);
        lab.whole(true)?;
        let writes = each(Plan::Once, |plan| commit(&mut lab, plan))?;
        ensure!(writes > 20, "only {writes} writes");
        println!("{writes} writes");
        Ok(())
    })
}

#[test]
fn netns_a_commit_whose_undo_fails_too_leaves_the_old_or_the_new() -> Result<()> {
    lab(|mut lab| {
        let writes = each(Plan::From, |plan| commit(&mut lab, plan))?;
        ensure!(writes > 20, "only {writes} writes");
        // And one write of the undo alone, each time another.
        for later in [1, 2, 3, 5, 8, 13].into_iter().take(effort(6)) {
            each(
                |write| Plan::Twice(write * 6 - later % 6, later),
                |plan| commit(&mut lab, plan),
            )?;
        }
        Ok(())
    })
}

/// Changes members while writes fail as planned: the old ones are denied or the new ones are. Where the undo fails too some
/// addresses may be ahead, until the next look.
fn change(lab: &mut Lab, plan: Plan) -> Result<Outcome> {
    let members =
        |which: &[&str]| -> Vec<Prefix> { which.iter().map(|address| prefix(address, 32)).collect() };
    let before = lab.denied()?;
    let next: Vec<&str> = if before[0] {
        vec![WATCHED[1], WATCHED[2]]
    } else {
        vec![WATCHED[0]]
    };
    let (result, outcome) = faults::with(plan, || lab.engine.set_members("watched", members(&next)));
    let turned: Vec<bool> = before.iter().map(|denied| !denied).collect();
    if matches!(plan, Plan::Once(_)) {
        let expected = if result.is_ok() { &turned } else { &before };
        ensure!(lab.denied()? == *expected, "{result:?}");
    }
    lab.engine.shared.tidy()?;
    let expected = if result.is_ok() { &turned } else { &before };
    ensure!(lab.denied()? == *expected, "{result:?}, tidied");
    lab.whole(false)?;
    // The next change works.
    lab.engine.set_members("watched", members(&next))?;
    ensure!(lab.denied()? == turned);
    lab.whole(false)?;
    Ok(outcome)
}

#[test]
fn netns_a_change_of_members_whose_nth_write_fails_leaves_the_old_or_the_new() -> Result<()> {
    lab(|mut lab| {
        lab.engine.set_members("watched", vec![prefix(WATCHED[0], 32)])?;
        ensure!(lab.denied()? == [true, false, false]);
        let writes = each(Plan::Once, |plan| change(&mut lab, plan))?;
        ensure!(writes > 2, "only {writes} writes");
        each(Plan::From, |plan| change(&mut lab, plan))?;
        for later in [1, 2, 3].into_iter().take(effort(3)) {
            each(|write| Plan::Twice(write, later), |plan| change(&mut lab, plan))?;
        }
        // A commit after all that has the members of the last change.
        let denied = lab.denied()?;
        let which = lab.in_force()?;
        lab.engine.commit(configuration(1 - which))?;
        ensure!(lab.denied()? == denied);
        lab.whole(true)
    })
}

/// A start that fails leaves what was there before it: nothing, or what a daemon before has pinned.
#[test]
fn netns_a_start_whose_nth_write_fails_ends_closed_and_clean() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    Namespace::new("bhrev-g")?.run(|| {
        let indices = interfaces()?;
        let bpffs = Bpffs::mount()?;
        let directory = bpffs.path().join("bulkhead/edge");
        let options = Options {
            sizes: SIZES,
            pins: Some(directory.clone()),
            ..Options::default()
        };
        let programs = || -> Result<usize> {
            let mut netlink = Netlink::connect()?;
            let mut count = 0;
            for index in indices {
                count += if has_tcx() {
                    links_on(Hook::Ingress, index)?.len() + links_on(Hook::Egress, index)?.len()
                } else {
                    let filters =
                        [Direction::Ingress, Direction::Egress].map(|way| netlink.filter(index, way));
                    filters
                        .into_iter()
                        .filter(|there| matches!(there, Ok(Some(_))))
                        .count()
                };
            }
            Ok(count)
        };
        let pinned = || pins_in(&directory);
        let start = |plan| faults::with(plan, || Engine::start(configuration(0), &options));
        let (engine, outcome) = start(Plan::From(u32::MAX));
        engine?.stop();
        let writes = outcome.writes;
        ensure!(
            writes > 40 && programs()? == 0 && pinned()?.is_empty(),
            "{writes}"
        );
        // A start takes its time: some of the writes, and those behind the switch.
        let late = writes - 9..=writes;
        let step = writes as usize / effort(6_usize);
        let late_ones = || late.clone().rev().take(effort(10));
        for write in (1..*late.start()).step_by(step).chain(late_ones()) {
            let (started, outcome) = start(Plan::From(write));
            ensure!(
                outcome.failed != 0 && started.is_err(),
                "{write}: nothing was lost"
            );
            ensure!(programs()? == 0, "{write}: {} programs stay", programs()?);
            ensure!(pinned()?.is_empty(), "{write}: {:?} stay", pinned()?);
        }
        // After a daemon whose programs go on.
        drop(start(Plan::From(u32::MAX)).0?);
        let before = pinned()?.len();
        for write in [writes / 3].into_iter().chain(late_ones()) {
            let (started, _) = start(Plan::Once(write));
            ensure!(programs()? == 4, "{write}: {} programs", programs()?);
            ensure!(pinned()?.len() == before, "{write}: {:?}", pinned()?);
            drop(started);
        }
        Ok(())
    })
}

/// Everything that is pinned below an instance's directory.
fn pins_in(directory: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    if !directory.exists() {
        return Ok(found);
    }
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(pins_in(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}
