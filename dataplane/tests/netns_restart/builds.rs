//! Upgrade: the daemon that takes over brings programs of another build, as a new version of the same `ABI_VERSION` does.
//!
//! The other build's object is this one's with some instructions exchanged for others that do the same, which no compiler
//! would promise to do twice alike either: other programs to the kernel, by their tags, with the same meaning.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use bulkhead_dataplane::{
    bpf::embedded,
    engine::{Engine, Session},
    link::{Hook, Link},
    ruleset::HookMode,
};
use bulkhead_testkit::{HostSpec, effort, privileged, xdp_reaches_hosts};

use super::{Lab, child::Daemon, common, dropped, whole};

/// Whose object a daemon loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    This,
    Other,
}

/// `dst = imm`, 64 bits (`BPF_ALU64 | BPF_MOV | BPF_K`).
const MOVE_64: u8 = 0xb7;
/// The same for 32 bits, which zeroes the upper half (`BPF_ALU | BPF_MOV | BPF_K`).
const MOVE_32: u8 = 0xb4;
/// Loads 64 bits; the eight bytes behind it are its other half.
const LOAD_64: u8 = 0x18;

/// The sections of a 64-bit little-endian ELF file that hold instructions: where they begin and end.
fn code(object: &[u8]) -> Option<Vec<(usize, usize)>> {
    /// A section of bytes that stand in the file (elf(5), `SHT_PROGBITS`).
    const BYTES: u64 = 1;
    /// Of instructions (`SHF_EXECINSTR`).
    const INSTRUCTIONS: u64 = 4;
    let number = |at: usize, length: usize| {
        let bytes = object.get(at..at + length)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        )
    };
    let (headers, count) = (number(40, 8)? as usize, number(60, 2)? as usize);
    let mut found = Vec::new();
    for header in (0..count).map(|section| headers + section * 64) {
        if number(header + 4, 4)? == BYTES && number(header + 8, 8)? & INSTRUCTIONS != 0 {
            let begin = number(header + 24, 8)? as usize;
            found.push((begin, begin + number(header + 32, 8)? as usize));
        }
    }
    Some(found)
}

/// The object of another build: registers are given numbers that are not negative by the other of the two instructions that do.
pub fn other() -> Vec<u8> {
    let mut object = embedded().to_vec();
    let mut exchanged = 0;
    for (begin, end) in code(embedded()).expect("an ELF file") {
        let mut at = begin;
        while let Some([operation, registers, offset @ .., _, _, _, sign]) = object[..end].get_mut(at..at + 8)
        {
            let of_number = *registers >> 4 == 0 && offset.iter().all(|byte| *byte == 0);
            if *operation == MOVE_64 && of_number && *sign & 0x80 == 0 {
                *operation = MOVE_32;
                exchanged += 1;
            }
            at += if *operation == LOAD_64 { 16 } else { 8 };
        }
    }
    assert!(exchanged > 100, "{exchanged}: every program has some");
    object
}

/// What is on a hook.
#[derive(Debug)]
struct Attached {
    /// Number of the link; 0: a filter's.
    link: u32,
    /// Number of the program.
    program: u32,
    /// What the kernel calculates from its instructions.
    tag: u64,
}

/// The programs on the firewall's interfaces, by interface and hook.
fn attached(lab: &Lab, hooks: &[Hook]) -> Result<BTreeMap<(u32, &'static str), Attached>> {
    let tags: BTreeMap<u32, u64> = aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .map(|program| (program.id(), program.tag()))
        .collect();
    let mut attached = BTreeMap::new();
    for host in lab.topology.hosts() {
        for hook in hooks {
            let index = host.firewall_index;
            let pin = lab.pins().join(format!("links/{index}_{}", hook.word()));
            let link = lab.topology.firewall().run(|| Link::find(&pin, *hook, index))?;
            let info = link.info()?;
            let on_hook = Attached {
                link: info.id,
                program: info.program,
                tag: *tags.get(&info.program).context("a loaded program")?,
            };
            attached.insert((index, hook.word()), on_hook);
        }
    }
    Ok(attached)
}

/// Daemons of two builds take turns, each killed by the end of its turn, while streams of both families and both protocols go on.
fn upgrades(hook: HookMode, nat: bool) -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let hooks = match hook {
        HookMode::Xdp => &Hook::ALL[..],
        _ => &Hook::ALL[..2],
    };
    let lab = Lab::new(HostSpec::host_gro)?;
    let engine = lab.start(common::ruleset(hook, nat))?;
    let _forbidden = lab.forbidden()?;
    let (_servers, bulk) = lab.bulk_at(hook)?;
    let counting = lab.counting()?;
    counting.iter().try_for_each(|stream| stream.advance(100))?;
    bulk.iter().try_for_each(|stream| stream.advance(2))?;
    let sessions = |engine: &Engine| -> Result<Vec<u64>> {
        let is_stream = |session: &Session| session.original.packets > 20;
        let found = engine.sessions(&is_stream, 100)?.sessions;
        Ok(found.iter().map(|session| session.id).collect())
    };
    let held = sessions(&engine)?;
    ensure!(held.len() >= 2, "the streams that count: {held:?}");
    drop(engine);
    let mut before = attached(&lab, hooks)?;
    let builds = [Build::Other, Build::This];
    for build in builds.into_iter().cycle().take(effort(4).max(2)) {
        let mut daemon = Daemon::start_build(&lab, hook, nat, build)?;
        let now = attached(&lab, hooks)?;
        for ((place, before), (_, now)) in before.iter().zip(&now) {
            ensure!(
                before.link == now.link,
                "{place:?}: another link, {before:?} {now:?}"
            );
            ensure!(
                before.program != now.program,
                "{place:?}: the program of before, {now:?}"
            );
            ensure!(
                before.tag != now.tag,
                "{place:?}: not of another build, {before:?} {now:?}"
            );
        }
        before = now;
        counting.iter().try_for_each(|stream| stream.advance(100))?;
        bulk.iter().try_for_each(|stream| stream.advance(2))?;
        lab.policy_holds();
        daemon.kill()?;
    }
    let engine = lab.start(common::ruleset(hook, nat))?;
    let left = sessions(&engine)?;
    ensure!(held.iter().all(|id| left.contains(id)), "{held:?} {left:?}");
    let counters = engine.counters()?;
    assert_eq!(
        counters["established_xdp"] > 0,
        hook == HookMode::Xdp && xdp_reaches_hosts()?,
        "{counters:?}"
    );
    drop(bulk);
    let lost = dropped(&engine.counters()?);
    assert!(lost.is_empty(), "{lost:?}");
    whole(counting);
    Ok(())
}

#[test]
fn netns_restart_of_another_build_replaces_programs_in_place_and_loses_nothing() -> Result<()> {
    upgrades(HookMode::Auto, true)
}

#[test]
fn netns_restart_of_another_build_replaces_programs_in_place_and_loses_nothing_forced_xdp() -> Result<()> {
    upgrades(HookMode::Xdp, false)
}
