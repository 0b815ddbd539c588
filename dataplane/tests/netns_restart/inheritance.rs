//! What is taken over and what cannot be: tables of another size, of another version, interfaces that are gone, came back
//! or are not configured any more; and how all of it is undone.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use bulkhead_dataplane::{
    bpf::{Object, Sizes},
    engine::Options,
    link::{Hook, Link},
    pins::{self, PinError},
    ruleset::HookMode,
};
use bulkhead_testkit::{Host, privileged};

use super::{Lab, SIZES, common, dropped, programs, whole};

fn programs_on(lab: &Lab, host: &Host) -> Vec<usize> {
    [Hook::Egress, Hook::Ingress]
        .map(|hook| programs(lab, hook, host.firewall_index))
        .into()
}

#[test]
fn netns_restart_with_other_sizes_carries_sessions_over() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Lab::new(|host| host)?;
    let mut engine = lab.start(common::ruleset(HookMode::Auto, true))?;
    let _forbidden = lab.forbidden()?;
    let (_servers, bulk) = lab.bulk()?;
    let counting = lab.counting()?;
    for sessions in [16_384, 1_024] {
        drop(engine);
        let options = Options {
            sizes: Sizes { sessions, ..SIZES },
            ..lab.options()
        };
        engine = lab.start_with(common::ruleset(HookMode::Auto, true), &options)?;
        let table = MapData::from_pin(lab.pins().join(format!("v{}/FLOWS4", bulkhead_abi::ABI_VERSION)))?;
        assert_eq!(table.info()?.max_entries(), sessions * 2);
        counting.iter().try_for_each(|stream| stream.advance(100))?;
        bulk.iter().try_for_each(|stream| stream.advance(3))?;
        lab.policy_holds();
    }
    drop(bulk);
    let lost = dropped(&engine.counters()?);
    assert!(lost.is_empty(), "{lost:?}");
    whole(counting);
    Ok(())
}

/// Killed when the tables of another size have taken their places and no program is replaced yet: the programs go on with the
/// tables of before, and what they enter is not lost to the next start, of whatever size.
#[test]
fn netns_restart_killed_with_other_sizes_before_the_first_program_is_replaced() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Lab::new(|host| host)?;
    let sized = |sessions| Options {
        sizes: Sizes { sessions, ..SIZES },
        ..lab.options()
    };
    let version = lab.pins().join(format!("v{}", bulkhead_abi::ABI_VERSION));
    let before = || -> Result<usize> {
        let names =
            fs::read_dir(&version)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names = names.collect::<Result<Vec<_>>>()?;
        Ok(names.iter().filter(|name| name.contains("_before_")).count())
    };
    let mut engine = lab.start(common::ruleset(HookMode::Auto, true))?;
    let _forbidden = lab.forbidden()?;
    let (servers, bulk) = lab.bulk()?;
    let counting = lab.counting()?;
    // To another size once, and to two more, none of which comes to its end.
    for killed in [vec![16_384], vec![1_024, 2_048]] {
        drop(engine);
        for sessions in &killed {
            let pins = pins::Pins::open(&lab.pins())?;
            let mut object = Object::begin(&sized(*sessions).sizes, false, Some(pins))?;
            object.complete()?;
            object.keep()?;
        }
        ensure!(before()? == 4 * killed.len(), "flows and mappings: {}", before()?);
        // Conversations that begin now are known to the programs of before only.
        let inside = lab.topology.host("inside");
        let mut late = Vec::new();
        for server in &servers {
            let mut held = inside.client().tcp(server.address())?.answered()?;
            held.exchange(10_000, 10_000)?.answered()?;
            late.push(held);
        }
        engine = lab.start_with(common::ruleset(HookMode::Auto, true), &sized(killed[0]))?;
        for held in &mut late {
            held.exchange(10_000, 10_000)?.answered()?;
        }
        counting.iter().try_for_each(|stream| stream.advance(100))?;
        bulk.iter().try_for_each(|stream| stream.advance(3))?;
        ensure!(before()? == 0, "they are taken away");
    }
    // Killed between two renamings.
    drop(engine);
    fs::rename(version.join("FLOWS4"), version.join("FLOWS4_before_7"))?;
    let engine = lab.start_with(common::ruleset(HookMode::Auto, true), &sized(1_024))?;
    counting.iter().try_for_each(|stream| stream.advance(100))?;
    ensure!(before()? == 0, "it is where it was");
    lab.policy_holds();
    drop(bulk);
    let lost = dropped(&engine.counters()?);
    assert!(lost.is_empty(), "{lost:?}");
    whole(counting);
    Ok(())
}

#[test]
fn netns_restart_shrunk_below_what_is_there_keeps_what_fits() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Lab::new(|host| host)?;
    let engine = lab.start(common::ruleset(HookMode::Auto, false))?;
    let (_servers, _bulk) = lab.bulk()?;
    let _counting = lab.counting()?;
    assert!(engine.sessions(&|_| true, 10)?.total >= 4);
    drop(engine);
    let options = Options {
        sizes: Sizes { sessions: 1, ..SIZES },
        ..lab.options()
    };
    let engine = lab.start_with(common::ruleset(HookMode::Auto, false), &options)?;
    let left = engine.sessions(&|session| session.established, 10)?.total;
    assert!(left <= 2, "one session per family: {left}");
    Ok(())
}

#[test]
fn netns_restart_of_another_version_drops_sessions_and_stays_guarded() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Lab::new(|host| host)?;
    let engine = lab.start(common::ruleset(HookMode::Auto, false))?;
    let _forbidden = lab.forbidden()?;
    let (_servers, bulk) = lab.bulk()?;
    bulk.iter().try_for_each(|stream| stream.advance(1))?;
    drop(engine);
    // What a version after or before this one would have left.
    let own = lab.pins().join(format!("v{}", bulkhead_abi::ABI_VERSION));
    let other = lab.pins().join(format!("v{}", bulkhead_abi::ABI_VERSION + 1));
    fs::rename(&own, &other)?;
    let engine = lab.start(common::ruleset(HookMode::Auto, false))?;
    assert!(!other.exists() && own.exists());
    let is_bulk = |session: &bulkhead_dataplane::engine::Session| session.original.destination.port() == 80;
    assert_eq!(
        engine.sessions(&is_bulk, 10)?.total,
        0,
        "their tables could not be read"
    );
    for host in lab.topology.hosts() {
        assert_eq!(programs_on(&lab, host), [1, 1], "replaced, not added");
    }
    drop(bulk);
    lab.policy_holds();
    Ok(())
}

#[test]
fn netns_restart_with_tables_of_another_layout_begins_anew() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Lab::new(|host| host)?;
    drop(lab.start(common::ruleset(HookMode::Auto, false))?);
    // A table under a name of another's: the wrong key for it.
    let version = lab.pins().join(format!("v{}", bulkhead_abi::ABI_VERSION));
    fs::rename(version.join("FLOWS6"), version.join("FLOWS4"))?;
    let engine = lab.start(common::ruleset(HookMode::Auto, false))?;
    let _forbidden = lab.forbidden()?;
    let (_servers, bulk) = lab.bulk()?;
    lab.policy_holds();
    drop(bulk);
    assert!(engine.generation() > 1, "numbers go on all the same");
    Ok(())
}

#[test]
fn netns_restart_refuses_when_the_numbers_of_before_cannot_be_told() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Lab::new(|host| host)?;
    drop(lab.start(common::ruleset(HookMode::Auto, false))?);
    let load = lab.pins().join(format!("v{}/load-1", bulkhead_abi::ABI_VERSION));
    // Another table under its name, which cannot be read as one of numbers.
    fs::rename(load.join("LIVE"), load.join("LIVE_before"))?;
    fs::rename(load.join("STAGES"), load.join("LIVE"))?;
    let refused = lab
        .start(common::ruleset(HookMode::Auto, false))
        .err()
        .context("refused")?
        .to_string();
    assert!(
        refused.contains("load-1/LIVE") && refused.contains("`bulkhead detach`"),
        "{refused}"
    );
    fs::rename(load.join("LIVE"), load.join("STAGES"))?;
    fs::rename(load.join("LIVE_before"), load.join("LIVE"))?;
    let engine = lab.start(common::ruleset(HookMode::Auto, false))?;
    assert!(engine.generation() > 1, "numbers go on");
    Ok(())
}

#[test]
fn netns_restart_follows_interfaces_that_changed_meanwhile() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Lab::new(|host| host)?;
    drop(lab.start(common::ruleset(HookMode::Auto, false))?);
    let (inside, outside) = (lab.topology.host("inside"), lab.topology.host("outside"));
    // The pins of one interface stand under the number of the other, which has none of its own: what an interface that moved
    // to another namespace leaves where numbers begin anew.
    let links = lab.pins().join("links");
    for hook in [Hook::Egress, Hook::Ingress] {
        let of = |host: &Host| links.join(format!("{}_{}", host.firewall_index, hook.word()));
        Link::find(&of(outside), hook, outside.firewall_index)?.detach()?;
        fs::rename(of(inside), of(outside))?;
    }
    assert_eq!(
        (programs_on(&lab, inside), programs_on(&lab, outside)),
        (vec![1, 1], vec![0, 0])
    );
    let engine = lab.start(common::ruleset(HookMode::Auto, false))?;
    assert_eq!(
        (programs_on(&lab, inside), programs_on(&lab, outside)),
        (vec![1, 1], vec![1, 1])
    );
    let _forbidden = lab.forbidden()?;
    let (_servers, bulk) = lab.bulk()?;
    drop(bulk);
    lab.policy_holds();
    drop(engine);

    // Not configured any more: without programs, and the kernel still forwards nothing from it.
    let mut alone = common::ruleset(HookMode::Auto, false);
    alone.interfaces.truncate(1);
    let engine = lab.start(alone)?;
    assert_eq!(
        (programs_on(&lab, inside), programs_on(&lab, outside)),
        (vec![1, 1], vec![0, 0])
    );
    let rules = lab.topology.firewall().netlink()?.blackhole_rules()?;
    assert!(
        rules
            .iter()
            .any(|rule| rule.interface == outside.firewall_interface),
        "{rules:?}"
    );
    drop(engine);
    let _engine = lab.start(common::ruleset(HookMode::Auto, false))?;
    lab.policy_holds();
    Ok(())
}

/// Both loads' programs at once, hook by hook as they are replaced: what a take-over that is killed in the middle leaves.
#[test]
fn netns_restart_half_taken_over_enforces_and_loses_nothing() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Lab::new(|host| host)?;
    drop(lab.start(common::ruleset(HookMode::Auto, true))?);
    let _forbidden = lab.forbidden()?;
    let (_servers, bulk) = lab.bulk()?;
    let counting = lab.counting()?;
    let load = |number: u32| {
        let path = lab
            .pins()
            .join(format!("v{}/load-{number}/STAGES", bulkhead_abi::ABI_VERSION));
        // As long as somebody holds it, it keeps its programs.
        MapData::from_pin(path)
    };
    let steps: Vec<_> = Hook::ALL[..2]
        .iter()
        .flat_map(|hook| {
            lab.topology
                .hosts()
                .iter()
                .map(move |host| (*hook, host.firewall_index))
        })
        .collect();
    let link = |(hook, index): (Hook, u32)| {
        Link::find(
            &lab.pins().join(format!("links/{index}_{}", hook.word())),
            hook,
            index,
        )
    };
    let old: Vec<u32> = steps
        .iter()
        .map(|step| Ok(link(*step)?.info()?.program))
        .collect::<Result<_>>()?;
    let _old_stages = load(1)?;
    // Held by their descriptors, or they would be gone with the last link.
    let programs: Vec<_> = aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .filter(|program| old.contains(&program.id()))
        .map(|program| Ok((program.id(), program.fd()?)))
        .collect::<Result<_>>()?;
    drop(lab.start(common::ruleset(HookMode::Auto, true))?);
    for replaced in (0..=steps.len()).rev() {
        // The first `replaced` hooks run the new programs, the others the old ones.
        if let Some(step) = steps.get(replaced) {
            let (_, program) = programs
                .iter()
                .find(|(id, _)| *id == old[replaced])
                .context("the old program")?;
            use std::os::fd::AsFd as _;
            link(*step)?.replace(program.as_fd(), "bulkhead_before")?;
        }
        counting.iter().try_for_each(|stream| stream.advance(100))?;
        bulk.iter().try_for_each(|stream| stream.advance(2))?;
        lab.policy_holds();
    }
    let engine = lab.start(common::ruleset(HookMode::Auto, true))?;
    lab.policy_holds();
    drop(bulk);
    let lost = dropped(&engine.counters()?);
    assert!(lost.is_empty(), "{lost:?}");
    whole(counting);
    Ok(())
}

#[test]
fn netns_restart_is_undone_by_detach() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Lab::new(|host| host)?;
    assert_eq!(pins::detach(&lab.pins())?, None, "nothing yet");
    let engine = lab.start(common::ruleset(HookMode::Auto, false))?;
    let (_servers, bulk) = lab.bulk()?;
    drop(bulk);
    let held = pins::detach(&lab.pins());
    assert!(matches!(held, Err(PinError::Held { .. })), "{held:?}");
    drop(engine);
    let detached = pins::detach(&lab.pins())?.context("an instance")?;
    assert_eq!(detached.programs, 4);
    assert!(!lab.pins().exists());
    for host in lab.topology.hosts() {
        assert_eq!(programs_on(&lab, host), [0, 0]);
    }
    let outside = lab.topology.host("outside");
    let brief = lab
        .topology
        .host("inside")
        .client()
        .timeout(std::time::Duration::from_millis(150));
    assert!(!brief.tcp(outside.v4_port(80))?.is_answered(), "fails closed");
    Ok(())
}

/// What cannot be taken off is told, all of it, and keeps its tables; the rest is off.
#[test]
fn netns_restart_detach_goes_on_after_an_error() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Lab::new(|host| host)?;
    drop(lab.start(common::ruleset(HookMode::Auto, false))?);
    let links = lab.pins().join("links");
    // Neither a link nor a program; and they come first and last.
    let live = lab
        .pins()
        .join(format!("v{}/load-1/LIVE", bulkhead_abi::ABI_VERSION));
    let places = [links.join("1_egress"), links.join("999999_ingress")];
    for place in &places {
        let map = MapData::from_pin(&live)?;
        map.pin(place)?;
    }
    let error = pins::detach(&lab.pins()).err().context("two stay")?;
    let PinError::Stay { programs, errors } = &error else {
        panic!("{error}");
    };
    assert_eq!((*programs, errors.len()), (4, 2), "{error}");
    for place in &places {
        ensure!(
            error.to_string().contains(&place.display().to_string()),
            "{error}"
        );
    }
    for host in lab.topology.hosts() {
        assert_eq!(programs_on(&lab, host), [0, 0]);
    }
    ensure!(live.exists(), "programs that stay need their tables");
    for place in places {
        fs::remove_file(place)?;
    }
    assert_eq!(pins::detach(&lab.pins())?.context("an instance")?.programs, 0);
    assert!(!lab.pins().exists());
    Ok(())
}

/// The shapes that tables are compared with are those that this build gives them: an object adopts all it has pinned.
#[test]
fn netns_restart_adopts_every_table_it_has_pinned() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Lab::new(|host| host)?;
    let version = lab.pins().join(format!("v{}", bulkhead_abi::ABI_VERSION));
    let ids = || -> Result<Vec<(String, u32)>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&version)? {
            let path = entry?.path();
            if !path.is_dir() {
                let name = path.file_name().context("a name")?.to_string_lossy().into_owned();
                ids.push((name, MapData::from_pin(&path)?.info()?.id()));
            }
        }
        ids.sort();
        Ok(ids)
    };
    let load = || -> Result<()> {
        let pins = pins::Pins::open(&lab.pins())?;
        let mut object = Object::begin(&SIZES, false, Some(pins))?;
        object.keep()?;
        Ok(())
    };
    load()?;
    let first = ids()?;
    assert_eq!(first.len(), 18, "{first:?}");
    load()?;
    assert_eq!(ids()?, first);
    Ok(())
}
