//! Programs that somebody else takes off an interface or replaces there: within seconds everything is back, counted and told,
//! and meanwhile nothing passes that policy forbids.

#[expect(dead_code, reason = "these tests have topologies and engines of their own")]
mod common;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bulkhead_dataplane::{
    bpf::{Object, Program, Sizes},
    engine::{Engine, InterfaceStatus, Options},
    link::{Hook, Link, has_tcx, links_on},
    ruleset::{HookMode, Ruleset},
};
use bulkhead_testkit::{Bpffs, Host, HostSpec, Namespace, TcpServer, Tool, Topology, patience, privileged};

/// A look comes every second; a busy machine may take its time.
const PATIENCE: Duration = Duration::from_secs(20);

struct Lab {
    topology: Topology,
    bpffs: Bpffs,
    engine: Engine,
    /// Where policy permits to go and where it forbids to, in both families.
    permitted: Vec<TcpServer>,
    forbidden: Vec<TcpServer>,
}

impl Lab {
    fn new(rules: impl FnOnce(&Topology) -> Ruleset, pinned: bool) -> Result<Self> {
        let topology = Topology::builder("bhrev-")
            .host(HostSpec::new("inside").host_gro())
            .host(HostSpec::new("outside").host_gro())
            .build()?;
        topology.resolve_neighbours()?;
        // The worst case: the kernel forwards if it is let.
        topology.firewall().set_kernel_forwarding(true)?;
        let bpffs = Bpffs::mount()?;
        let options = Options {
            pins: pinned.then(|| bpffs.path().join("bulkhead/edge")),
            ..Options::default()
        };
        let rules = rules(&topology);
        let engine = topology.firewall().run(|| Engine::start(rules, &options))?;
        let outside = topology.host("outside");
        let servers = |port| {
            [outside.v4_port(port), outside.v6_port(port)]
                .into_iter()
                .map(|to| TcpServer::start(&outside.namespace, to))
                .collect::<Result<Vec<_>>>()
        };
        Ok(Self {
            permitted: servers(80)?,
            forbidden: servers(81)?,
            topology,
            bpffs,
            engine,
        })
    }

    /// Of how many families the servers are reached.
    fn reaches(&self, servers: &[TcpServer], patience: Duration) -> Result<usize> {
        let client = self.topology.host("inside").client().timeout(patience);
        let mut reached = 0;
        for server in servers {
            reached += usize::from(client.tcp(server.address())?.is_answered());
        }
        Ok(reached)
    }

    fn restored(&self) -> Result<u64> {
        Ok(self.engine.counters()?["programs_restored"])
    }

    /// Waits until so many programs were put back, while forbidden servers stay out of reach; then everything is as it was.
    fn comes_back(&self, restored: u64) -> Result<()> {
        let began = Instant::now();
        while self.restored()? < restored {
            ensure!(
                self.reaches(&self.forbidden, Duration::from_millis(50))? == 0,
                "open while a program was off"
            );
            ensure!(
                began.elapsed() < patience(PATIENCE),
                "{} of {restored} are back: {:#?}",
                self.restored()?,
                self.topology.firewall().run(|| self.engine.interfaces())
            );
        }
        ensure!(self.restored()? == restored, "more came back than went");
        ensure!(
            self.reaches(&self.permitted, PATIENCE)? == 2,
            "dead: {:#?}",
            self.engine.nonzero_counters()
        );
        ensure!(
            self.reaches(&self.forbidden, Duration::from_millis(100))? == 0,
            "open"
        );
        for interface in self.interfaces()? {
            ensure!(interface.attached && interface.fails_closed, "{interface:#?}");
        }
        Ok(())
    }

    fn interfaces(&self) -> Result<Vec<InterfaceStatus>> {
        Ok(self.topology.firewall().run(|| self.engine.interfaces())?)
    }

    fn interface(&self, host: &Host) -> Result<InterfaceStatus> {
        let found = self.interfaces()?.into_iter();
        found
            .into_iter()
            .find(|interface| interface.name == host.firewall_interface)
            .context("an interface")
    }

    fn pin(&self, hook: Hook, index: u32) -> PathBuf {
        self.bpffs
            .path()
            .join(format!("bulkhead/edge/links/{index}_{}", hook.word()))
    }

    /// Takes a program off behind the engine's back: its link by force, or its filter. The pin stays.
    fn take_off(&self, hook: Hook, host: &Host) -> Result<()> {
        let (index, pin) = (host.firewall_index, self.pin(hook, host.firewall_index));
        let elsewhere = self.bpffs.path().join("elsewhere");
        self.topology.firewall().run(|| {
            self.engine
                .with_object(|object| by_force(object, hook, index, &pin, &elsewhere))
        })?;
        ensure!(pin.exists() && !elsewhere.exists());
        Ok(())
    }
}

/// A small object, another's.
const SIZES: Sizes = Sizes {
    sessions: 1,
    half_open: 1,
    rules: 1,
    addresses: 1,
    routes: 1,
    neighbours: 1,
};

fn by_force(object: &Object, hook: Hook, index: u32, pin: &Path, elsewhere: &Path) -> Result<()> {
    let program = object.program_fd(Program::Ingress)?;
    let mut link = Link::find(pin, hook, index)?;
    // It takes its own pin away.
    link.pin(elsewhere, program)?;
    Ok(link.detach()?)
}

fn rules(_: &Topology) -> Ruleset {
    common::ruleset(HookMode::Auto, false)
}

#[test]
fn netns_taken_off_programs_are_put_back_and_nothing_passes_meanwhile() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Lab::new(rules, true)?;
    let mut held = lab
        .topology
        .host("inside")
        .client()
        .timeout(PATIENCE)
        .tcp(lab.permitted[0].address())?
        .answered()?;
    held.exchange(100, 100)?.answered()?;
    let mut gone = 0;
    for host in lab.topology.hosts() {
        for hooks in [
            vec![Hook::Ingress],
            vec![Hook::Egress],
            vec![Hook::Ingress, Hook::Egress],
        ] {
            for hook in &hooks {
                lab.take_off(*hook, host)?;
            }
            gone += hooks.len() as u64;
            lab.comes_back(gone)?;
            // A session outlives it like any loss of packets.
            held.exchange(100, 100)?.answered()?;
        }
        let interface = lab.interface(host)?;
        ensure!(interface.restored == 4, "{interface:#?}");
        let told = interface
            .warnings
            .iter()
            .any(|warning| warning.contains("4 program(s) were taken off"));
        ensure!(told, "{interface:#?}");
    }
    // What is put back is pinned like what was there first.
    for host in lab.topology.hosts() {
        for hook in [Hook::Egress, Hook::Ingress] {
            let (pin, index) = (lab.pin(hook, host.firewall_index), host.firewall_index);
            let there = lab
                .topology
                .firewall()
                .run(|| Link::find(&pin, hook, index).and_then(|mut link| link.is_on(hook, index)))?;
            ensure!(there, "{}", pin.display());
        }
    }
    Ok(())
}

/// The same with the tool that people have, for links that nothing but the daemon holds.
#[test]
fn netns_taken_off_by_bpftool_is_put_back_without_pins() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    if !has_tcx() || !Path::new("/usr/sbin/bpftool").exists() {
        println!("SKIPPED: needs TCX and bpftool");
        return Ok(());
    }
    let lab = Lab::new(rules, false)?;
    let (firewall, outside) = (lab.topology.firewall(), lab.topology.host("outside"));
    for (gone, hook) in [(1, Hook::Ingress), (2, Hook::Egress)] {
        let index = outside.firewall_index;
        let before = firewall.run(|| links_on(hook, index))?;
        ensure!(before.len() == 1, "{before:?}");
        let id = before[0].to_string();
        Tool::new("bpftool")
            .args(["link", "detach", "id", &id])
            .run(firewall)?
            .success()?;
        lab.comes_back(gone)?;
        let after = firewall.run(|| links_on(hook, index))?;
        ensure!(after.len() == 1 && after != before, "{before:?} {after:?}");
    }
    Ok(())
}

/// XDP settles established packets where it is; TCX does meanwhile. Where another's program took the place, ours comes back
/// when that one goes.
#[test]
fn netns_taken_off_xdp_is_put_back_when_its_place_is_free() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Lab::new(|_| common::ruleset(HookMode::Xdp, false), true)?;
    let inside = lab.topology.host("inside");
    let (firewall, index) = (lab.topology.firewall(), inside.firewall_index);
    ensure!(lab.reaches(&lab.permitted, PATIENCE)? == 2);
    lab.take_off(Hook::Xdp, inside)?;
    lab.comes_back(1)?;
    ensure!(lab.interface(inside)?.hook == "xdp+tcx" || !has_tcx());
    // Another's program, which passes everything on.
    let (pin, elsewhere) = (lab.pin(Hook::Xdp, index), lab.bpffs.path().join("elsewhere"));
    let stranger = firewall.run(|| {
        let mut other = Object::load(&SIZES)?;
        // The engine cannot look in between.
        lab.engine.with_object(|object| {
            by_force(object, Hook::Xdp, index, &pin, &elsewhere)?;
            Ok::<_, anyhow::Error>((other.attach_xdp(&inside.firewall_interface)?, other))
        })
    })?;
    let began = Instant::now();
    loop {
        let interface = lab.interface(inside)?;
        let told = |warning: &String| warning.contains("cannot be put back; TCX alone forwards meanwhile");
        if interface.warnings.iter().any(told) {
            ensure!(interface.attached, "{interface:#?}");
            break;
        }
        ensure!(began.elapsed() < patience(PATIENCE), "{interface:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    ensure!(lab.reaches(&lab.permitted, PATIENCE)? == 2, "TCX goes on");
    firewall.run(|| stranger.0.detach())?;
    lab.comes_back(2)?;
    let interface = lab.interface(inside)?;
    let trouble = interface
        .warnings
        .iter()
        .any(|warning| warning.contains("cannot be put back"));
    ensure!(!trouble, "{interface:#?}");
    Ok(())
}

/// Another's program inside our own link: it is on its interface, and not ours any more.
#[test]
fn netns_taken_off_replaced_programs_are_noticed_and_put_back() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    if !has_tcx() {
        println!("SKIPPED: this kernel has no TCX, whose links a program is replaced in");
        return Ok(());
    }
    let lab = Lab::new(|_| common::ruleset(HookMode::Xdp, false), true)?;
    let (firewall, host) = (lab.topology.firewall(), lab.topology.host("outside"));
    let index = host.firewall_index;
    let other = firewall.run(|| Object::load(&SIZES))?;
    // Knows no session and lets nothing by, where ours forwards; XDP leaves everything to TCX.
    for (gone, hook, stranger) in [
        (1, Hook::Ingress, Program::Ingress),
        (2, Hook::Egress, Program::Egress),
        (3, Hook::Xdp, Program::Xdp),
    ] {
        let pin = lab.pin(hook, index);
        let ours = firewall.run(|| Link::find(&pin, hook, index))?.info()?;
        firewall.run(|| {
            // The engine cannot look in between.
            lab.engine.with_object(|_| {
                let mut link = Link::find(&pin, hook, index)?;
                link.replace(other.program_fd(stranger)?, "stranger")?;
                let info = link.info()?;
                ensure!(info.id == ours.id && info.program != ours.program, "{info:?}");
                Ok(())
            })
        })?;
        lab.comes_back(gone)?;
        let now = firewall.run(|| Link::find(&pin, hook, index))?.info()?;
        ensure!(
            now == ours,
            "the same program in the same link: {now:?}, {ours:?}"
        );
    }
    let interface = lab.interface(host)?;
    ensure!(interface.restored == 3, "{interface:#?}");
    Ok(())
}

/// Whoever asks hears of it before it is put back.
#[test]
fn netns_taken_off_replaced_programs_are_not_ready() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    if !has_tcx() {
        println!("SKIPPED: this kernel has no TCX, whose links a program is replaced in");
        return Ok(());
    }
    let lab = Lab::new(rules, true)?;
    let (firewall, host) = (lab.topology.firewall(), lab.topology.host("inside"));
    let (index, pin) = (host.firewall_index, lab.pin(Hook::Ingress, host.firewall_index));
    let other = firewall.run(|| Object::load(&SIZES))?;
    let began = Instant::now();
    // The engine may have looked between the two: once more then.
    loop {
        firewall.run(|| {
            let mut link = Link::find(&pin, Hook::Ingress, index)?;
            Ok::<_, anyhow::Error>(link.replace(other.program_fd(Program::Ingress)?, "stranger")?)
        })?;
        let heard = firewall.run(|| lab.engine.readiness());
        let told = |wrong: &String| wrong == "its ingress program was replaced by somebody else's";
        if heard.iter().filter_map(|check| check.wrong.as_ref()).any(told) {
            break;
        }
        ensure!(began.elapsed() < patience(PATIENCE), "{heard:?}");
    }
    let began = Instant::now();
    loop {
        let heard = firewall.run(|| lab.engine.readiness());
        if heard.iter().all(|check| check.wrong.is_none()) {
            break;
        }
        ensure!(began.elapsed() < patience(PATIENCE), "{heard:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A discipline that is deleted takes all its filters along.
#[test]
fn netns_taken_off_clsact_is_put_back() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    if has_tcx() {
        println!("SKIPPED: this kernel has TCX, filters are not used");
        return Ok(());
    }
    let lab = Lab::new(rules, false)?;
    let firewall = lab.topology.firewall();
    let tc = |arguments: &str| -> Result<()> {
        Tool::new("tc")
            .args(arguments.split(' '))
            .run(firewall)?
            .success()?;
        Ok(())
    };
    tc("qdisc del dev net1 clsact")?;
    lab.comes_back(2)?;
    tc("filter del dev net2 ingress")?;
    lab.comes_back(3)?;
    Ok(())
}

/// An interface that goes away, with its programs or without, and comes back under its name.
#[test]
fn netns_taken_off_with_its_interface_is_put_back_with_it() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Lab::new(
        |topology| {
            let outside = topology.host("outside");
            let mut rules = common::ruleset(HookMode::Auto, false);
            rules.interfaces[1].addresses =
                vec![(outside.firewall_v4.into(), 24), (outside.firewall_v6.into(), 64)];
            rules
        },
        true,
    )?;
    let (firewall, outside) = (lab.topology.firewall(), lab.topology.host("outside"));
    let elsewhere = Namespace::new("bhrev-x")?;
    ensure!(lab.reaches(&lab.permitted, PATIENCE)? == 2);
    for _ in 0..3 {
        firewall
            .netlink()?
            .move_to_netns(outside.firewall_index, elsewhere.fd())?;
        ensure!(
            lab.reaches(&lab.permitted, Duration::from_millis(100))? == 0,
            "gone"
        );
        let index = elsewhere
            .netlink()?
            .link_by_name(&outside.firewall_interface)?
            .index;
        elsewhere.netlink()?.move_to_netns(index, firewall.fd())?;
        let began = Instant::now();
        while lab.reaches(&lab.permitted, Duration::from_millis(200))? != 2 {
            ensure!(
                lab.reaches(&lab.forbidden, Duration::from_millis(50))? == 0,
                "open"
            );
            ensure!(began.elapsed() < patience(PATIENCE), "{:#?}", lab.interfaces()?);
        }
        lab.comes_back(0)?;
    }
    Ok(())
}
