//! SIGKILL: of a daemon that runs, and of one that is just taking over.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bulkhead_dataplane::{link::Hook, ruleset::HookMode};
use bulkhead_testkit::{HostSpec, effort, privileged};

use super::{Lab, child::Daemon, common, dropped, programs, whole};

/// Programs on each of the firewall's two interfaces: one per TCX hook, at each instant.
#[track_caller]
fn guarded(lab: &Lab) {
    for host in ["inside", "outside"].map(|name| lab.topology.host(name)) {
        for hook in [Hook::Egress, Hook::Ingress] {
            let programs = programs(lab, hook, host.firewall_index);
            assert_eq!(programs, 1, "{}: {}", host.firewall_interface, hook.word());
        }
    }
}

#[test]
fn netns_restart_after_sigkill_everything_goes_on() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Lab::new(|host| host)?;
    let mut daemon = Daemon::start(&lab, HookMode::Auto, true)?;
    let _forbidden = lab.forbidden()?;
    let (_servers, bulk) = lab.bulk()?;
    let counting = lab.counting()?;
    for _ in 0..3 {
        daemon.kill()?;
        guarded(&lab);
        counting.iter().try_for_each(|stream| stream.advance(200))?;
        bulk.iter().try_for_each(|stream| stream.advance(2))?;
        // Conversations that begin now are judged as before.
        lab.policy_holds();
        daemon = Daemon::start(&lab, HookMode::Auto, true)?;
        guarded(&lab);
        lab.policy_holds();
    }
    bulk.iter().try_for_each(|stream| stream.advance(2))?;
    whole(counting);
    Ok(())
}

/// Kills at random instants of a start that takes `typical`, and now and then lets one come to its end.
fn killed_while_starting(hook: HookMode, nat: bool, rounds: u32) -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let rounds = effort(rounds);
    let lab = Lab::new(HostSpec::host_gro)?;
    let began = Instant::now();
    let mut first = Daemon::start(&lab, hook, nat)?;
    let typical = began.elapsed();
    first.kill()?;
    let _forbidden = lab.forbidden()?;
    let (_servers, bulk) = lab.bulk_at(hook)?;
    let counting = lab.counting()?;
    // Each round another instant; the golden ratio spreads them evenly, the last tenth is where programs are replaced.
    let mut finished = 0;
    for round in 0..rounds {
        let share = (f64::from(round) * 0.618_033_988_749_895).fract();
        let share = if round % 2 == 0 {
            share
        } else {
            0.85 + share * 0.25
        };
        let mut daemon = Daemon::spawn(&lab, hook, nat)?;
        std::thread::sleep(typical.mul_f64(share));
        finished += u32::from(daemon.runs()?);
        daemon.kill()?;
        guarded(&lab);
        counting.iter().try_for_each(|stream| stream.advance(20))?;
        if round % 5 == 0 {
            lab.policy_holds();
        }
    }
    assert_eq!(finished, rounds, "each was killed, none had ended by itself");
    bulk.iter().try_for_each(|stream| stream.advance(2))?;
    let engine = lab.start(common::ruleset(hook, nat))?;
    lab.policy_holds();
    drop(bulk);
    let lost = dropped(&engine.counters()?);
    assert!(lost.is_empty(), "{lost:?}");
    whole(counting);
    let leftovers: Vec<_> = std::fs::read_dir(lab.pins())
        .context("the pins")?
        .flat_map(|version| {
            std::fs::read_dir(version.expect("an entry").path())
                .into_iter()
                .flatten()
        })
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .filter(|name| name.starts_with("load-") || name.ends_with("_next"))
        .collect();
    assert_eq!(
        leftovers.len(),
        1,
        "what killed starts have left is gone: {leftovers:?}"
    );
    Ok(())
}

#[test]
fn netns_restart_killed_at_any_instant_of_the_take_over() -> Result<()> {
    killed_while_starting(HookMode::Auto, true, 30)
}

#[test]
fn netns_restart_killed_at_any_instant_of_the_take_over_forced_xdp() -> Result<()> {
    killed_while_starting(HookMode::Xdp, false, 30)
}

#[test]
fn netns_restart_second_daemon_is_refused_and_another_name_is_not() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Lab::new(|host| host)?;
    let daemon = Daemon::start(&lab, HookMode::Auto, false)?;
    let counting = lab.counting()?;
    let refused = lab
        .start(common::ruleset(HookMode::Auto, false))
        .err()
        .context("refused")?;
    let message = refused.to_string();
    assert!(
        message.contains(&format!("process {}", daemon.process())) && message.contains("edge"),
        "{message}"
    );
    // Nor does another name help: the first one's programs would be asked first.
    drop(daemon);
    let renamed = bulkhead_dataplane::engine::Options {
        pins: Some(lab.bpffs.path().join("bulkhead/renamed")),
        ..lab.options()
    };
    let refused = lab
        .start_with(common::ruleset(HookMode::Auto, false), &renamed)
        .err()
        .context("refused")?;
    assert!(
        refused.to_string().contains("`bulkhead detach edge`"),
        "{refused}"
    );
    // Another instance, elsewhere on the machine, in the same bpffs.
    let other = bulkhead_testkit::Topology::builder("bhpin2-")
        .host(HostSpec::new("inside"))
        .host(HostSpec::new("outside"))
        .build()?;
    let options = bulkhead_dataplane::engine::Options {
        pins: Some(lab.bpffs.path().join("bulkhead/other")),
        ..lab.options()
    };
    let engine = other.firewall().run(|| {
        bulkhead_dataplane::engine::Engine::start(common::ruleset(HookMode::Auto, false), &options)
    })?;
    engine.stop();
    assert!(
        !lab.bpffs.path().join("bulkhead/other").exists(),
        "stopped, not left"
    );
    counting.iter().try_for_each(|stream| stream.advance(20))?;
    std::thread::sleep(Duration::from_millis(50));
    whole(counting);
    Ok(())
}
