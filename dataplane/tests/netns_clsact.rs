//! Programs attached as filters of `clsact`, on kernels with TCX and without: set, replaced at once, taken off; and nobody
//! else's filter touched.

use std::{fs::File, os::fd::AsFd as _, process::Command, thread};

use anyhow::{Context as _, Result, ensure};
use bulkhead_dataplane::{
    bpf::{Object, Program, Sizes},
    link::{self, Hook, Link},
    netlink::{Direction, Filter, HANDLE, Netlink, PREFERENCE, VethSpec},
};
use bulkhead_testkit::{Bpffs, Namespace, privileged};
use nix::sched::{CloneFlags, setns, unshare};

const SIZES: Sizes = Sizes {
    sessions: 1,
    half_open: 1,
    rules: 1,
    addresses: 1,
    routes: 1,
    neighbours: 1,
};

/// Runs `tc`, and returns what it prints.
fn tc(arguments: &str) -> Result<String> {
    let out = Command::new("tc")
        .args(arguments.split(' '))
        .output()
        .context("tc")?;
    ensure!(
        out.status.success(),
        "tc {arguments}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(String::from_utf8(out.stdout)?)
}

/// An interface in a namespace of its own, and the object.
fn lab(prefix: &str, test: impl FnOnce(&mut Netlink, u32, &Object) -> Result<()> + Send) -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let namespace = Namespace::new(prefix)?;
    namespace.run(|| {
        let object = Object::load(&SIZES)?;
        let mut netlink = Netlink::connect()?;
        let index = netlink.create_veth(&VethSpec {
            name: "net1",
            peer_name: "peer",
            ..VethSpec::default()
        })?;
        test(&mut netlink, index, &object)
    })
}

#[test]
fn netns_clsact_filters_are_set_replaced_and_taken_off() -> Result<()> {
    lab("bht-clsact-a", |netlink, index, object| {
        for (direction, which, parent) in [
            (Direction::Ingress, Program::Ingress, "ingress"),
            (Direction::Egress, Program::Egress, "egress"),
        ] {
            ensure!(netlink.filter(index, direction)?.is_none());
            let fd = object.program_fd(which)?;
            let mut filter = Filter::attach(index, direction, fd, which.name())?;
            let there = netlink.filter(index, direction)?.context("a filter")?;
            ensure!(there.is_own() && there.name == which.name() && there.program != 0);
            let shown = tc(&format!("filter show dev net1 {parent}"))?;
            for part in [
                format!("pref {PREFERENCE}"),
                format!("handle {HANDLE:#x}"),
                "protocol all".to_owned(),
                "direct-action".to_owned(),
                which.name().to_owned(),
            ] {
                ensure!(shown.contains(&part), "no {part:?} in {shown}");
            }

            // Another program in the same place: one filter, never two and never none.
            let other = object.program_fd(Program::Control)?;
            filter.replace(other, Program::Control.name())?;
            let replaced = netlink.filter(index, direction)?.context("a filter")?;
            ensure!(replaced.program != there.program && replaced.name == Program::Control.name());
            let shown = tc(&format!("filter show dev net1 {parent}"))?;
            ensure!(shown.matches("direct-action").count() == 1, "{shown}");

            drop(filter);
            ensure!(netlink.filter(index, direction)?.is_none());
            ensure!(tc(&format!("filter show dev net1 {parent}"))?.is_empty());
        }
        Ok(())
    })
}

#[test]
fn netns_clsact_filters_of_others_in_our_place_are_refused_and_stay() -> Result<()> {
    lab("bht-clsact-b", |netlink, index, object| {
        let fd = object.program_fd(Program::Control)?;
        let other = Filter::attach(index, Direction::Ingress, fd, "somebody_else")?;
        let before = tc("filter show dev net1 ingress")?;
        let fd = object.program_fd(Program::Ingress)?;
        let error = Filter::attach(index, Direction::Ingress, fd, "bulkhead_ingress").expect_err("taken");
        ensure!(error.to_string().contains("name \"somebody_else\""), "{error}");
        ensure!(!netlink.remove_filter(index, Direction::Ingress)?);
        ensure!(tc("filter show dev net1 ingress")? == before, "it was touched");
        drop(other);
        Ok(())
    })
}

#[test]
fn netns_clsact_filters_of_others_beside_ours_stay_as_they_are() -> Result<()> {
    lab("bht-clsact-e", |_, index, object| {
        let fd = object.program_fd(Program::Ingress)?;
        tc("qdisc add dev net1 clsact")?;
        match tc("filter add dev net1 ingress pref 10 protocol ip handle 7 matchall classid 1:1") {
            Err(error) if error.to_string().contains("classifier not found") => {
                println!("SKIPPED: this kernel has no classifier but bpf");
                return Ok(());
            }
            done => done?,
        };
        let before = tc("filter show dev net1 ingress")?;
        ensure!(before.contains("matchall"), "{before}");
        let filter = Filter::attach(index, Direction::Ingress, fd, "bulkhead_ingress")?;
        let both = tc("filter show dev net1 ingress")?;
        // In the order in which they see packets.
        ensure!(both.find("matchall") < both.find("bulkhead_ingress"), "{both}");
        drop(filter);
        ensure!(tc("filter show dev net1 ingress")? == before, "it was touched");
        Ok(())
    })
}

#[test]
fn netns_clsact_refuses_an_interface_with_the_older_discipline() -> Result<()> {
    lab("bht-clsact-c", |_, index, object| {
        let fd = object.program_fd(Program::Egress)?;
        tc("qdisc add dev net1 ingress")?;
        let error = Filter::attach(index, Direction::Egress, fd, "bulkhead_egress").expect_err("no egress");
        ensure!(
            error.to_string().contains("tc qdisc del dev INTERFACE ingress"),
            "{error}"
        );
        Ok(())
    })
}

/// What a killed daemon leaves is replaced by the next one, and a late end of the first does not take the second's.
#[test]
fn netns_clsact_filters_that_a_dead_process_left_are_taken_over() -> Result<()> {
    lab("bht-clsact-d", |netlink, index, object| {
        let first = object.program_fd(Program::Control)?;
        let second = object.program_fd(Program::Ingress)?;
        let left = Filter::attach(index, Direction::Ingress, first, "bulkhead_control")?;
        let next = Filter::attach(index, Direction::Ingress, second, "bulkhead_ingress")?;
        drop(left);
        let there = netlink
            .filter(index, Direction::Ingress)?
            .context("the second's")?;
        ensure!(there.name == "bulkhead_ingress");
        drop(next);
        ensure!(netlink.filter(index, Direction::Ingress)?.is_none());
        Ok(())
    })
}

/// A pin stands for the filter that runs the pinned program, not for any filter under its interface's index; and it does at
/// every step of a replacement.
#[test]
fn netns_clsact_filters_are_found_by_the_program_that_is_pinned() -> Result<()> {
    lab("bht-clsact-e", |_, index, object| {
        let bpffs = Bpffs::mount()?;
        let path = bpffs.path().join("1_ingress");
        let next = bpffs.path().join("1_ingress_next");
        let ours = object.program_fd(Program::Ingress)?;
        let other = object.program_fd(Program::Control)?;
        let find = || Link::find_filter(&path, Direction::Ingress, index);
        let absent = || find().is_err_and(|error| error.is_not_found());
        ensure!(absent(), "no pin");
        link::pin(ours, &path)?;
        ensure!(absent(), "no filter");
        let stranger = Filter::attach(index, Direction::Ingress, other, "bulkhead_other")?;
        ensure!(absent(), "another instance's filter");
        drop(stranger);
        let mut filter = Filter::attach(index, Direction::Ingress, ours, "bulkhead_ingress")?;
        filter.keep();
        let mut found = find()?;
        // Killed before the filter was changed, and after it.
        link::pin(other, &next)?;
        find()?;
        filter.replace(other, "bulkhead_other")?;
        ensure!(find()?.info()?.program == filter.program());
        // Replaced by a process that lives on.
        found.replace(ours, "bulkhead_ingress")?;
        ensure!(!next.exists(), "it took its place");
        let found = find()?;
        ensure!(
            found.info()?.program != filter.program(),
            "it runs the new program"
        );
        found.detach()?;
        ensure!(!path.exists() && absent());
        Ok(())
    })
}

/// Whether a filter is still there is asked of the kernel: it may be deleted, replaced, or go with its discipline.
#[test]
fn netns_clsact_filters_that_others_take_away_are_missed() -> Result<()> {
    lab("bht-clsact-f", |_, index, object| {
        let bpffs = Bpffs::mount()?;
        let path = bpffs.path().join("1_ingress");
        let ours = object.program_fd(Program::Ingress)?;
        link::pin(ours, &path)?;
        let attach = || -> Result<Link> {
            let mut filter = Filter::attach(index, Direction::Ingress, ours, "bulkhead_ingress")?;
            filter.keep();
            Ok(Link::find_filter(&path, Direction::Ingress, index)?)
        };
        let mut link = attach()?;
        ensure!(link.is_on(Hook::Ingress, index)? && !link.is_on(Hook::Ingress, index + 1)?);
        tc("filter del dev net1 ingress")?;
        ensure!(!link.is_on(Hook::Ingress, index)?, "deleted");
        let mut link = attach()?;
        ensure!(link.is_on(Hook::Ingress, index)?);
        tc("qdisc del dev net1 clsact")?;
        ensure!(!link.is_on(Hook::Ingress, index)?, "gone with its discipline");
        let mut link = attach()?;
        let other = object.program_fd(Program::Control)?;
        let _other = Filter::attach(index, Direction::Ingress, other, "bulkhead_other")?;
        ensure!(!link.is_on(Hook::Ingress, index)?, "replaced");
        Ok(())
    })
}

/// `bulkhead detach` is typed wherever somebody stands.
#[test]
fn netns_clsact_filters_of_other_namespaces_are_found_and_taken_off() -> Result<()> {
    lab("bht-clsact-g", |netlink, index, object| {
        let bpffs = Bpffs::mount()?;
        let path = bpffs.path().join("1_ingress");
        let ours = object.program_fd(Program::Ingress)?;
        link::pin(ours, &path)?;
        let mut filter = Filter::attach(index, Direction::Ingress, ours, "bulkhead_ingress")?;
        filter.keep();
        let elsewhere = Namespace::new("bht-clsact-h")?;
        let from_elsewhere =
            || elsewhere.run(|| Link::find_filter_anywhere(&path, Direction::Ingress, index));
        ensure!(
            elsewhere
                .run(|| Link::find_filter(&path, Direction::Ingress, index))
                .is_err_and(|error| error.is_not_found()),
            "it is not there"
        );
        from_elsewhere()?.detach()?;
        ensure!(netlink.filter(index, Direction::Ingress)?.is_none() && !path.exists());
        // And what is nowhere is not found, wherever one looks.
        link::pin(ours, &path)?;
        ensure!(from_elsewhere().is_err_and(|error| error.is_not_found()));
        Ok(())
    })
}

/// A runtime may keep a container's namespace by a descriptor alone, without a process or a name.
#[test]
fn netns_clsact_filters_in_a_namespace_that_only_a_descriptor_holds_are_taken_off() -> Result<()> {
    lab("bht-clsact-i", |_, _, object| {
        let bpffs = Bpffs::mount()?;
        let path = bpffs.path().join("1_egress");
        let ours = object.program_fd(Program::Egress)?;
        link::pin(ours, &path)?;
        let on_a_thread = |body: &(dyn Fn() -> Result<(File, u32)> + Sync)| {
            thread::scope(|scope| scope.spawn(body).join().expect("no panic"))
        };
        let (held, index) = on_a_thread(&|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let index = Netlink::connect()?.create_veth(&VethSpec {
                name: "net1",
                peer_name: "peer",
                ..VethSpec::default()
            })?;
            Filter::attach(index, Direction::Egress, ours, "bulkhead_egress")?.keep();
            Ok((File::open("/proc/thread-self/ns/net")?, index))
        })?;
        let filters = |held: &File| {
            on_a_thread(&|| {
                setns(held.as_fd(), CloneFlags::CLONE_NEWNET)?;
                let there = Netlink::connect()?.filter(index, Direction::Egress)?;
                Ok((held.try_clone()?, u32::from(there.is_some())))
            })
        };
        ensure!(filters(&held)?.1 == 1);
        let find = || Link::find_filter_anywhere(&path, Direction::Egress, index);
        find()?.detach()?;
        ensure!(filters(&held)?.1 == 0 && !path.exists());
        // And with the descriptor it is gone.
        link::pin(ours, &path)?;
        drop(held);
        ensure!(find().is_err_and(|error| error.is_not_found()));
        Ok(())
    })
}
