//! What is left of a start whose configuration cannot be kept on the disk.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use bulkhead_dataplane::link::has_tcx;
use bulkhead_dataplane::netlink::{Direction, Netlink, VethSpec};
use bulkhead_revisions::{Disk, Memory};
use bulkhead_testkit::{Bpffs, Namespace, privileged};
use clap::Parser as _;

use super::*;

/// A disk that takes content, and so many names before it takes no more.
#[derive(Default)]
struct Names {
    memory: Memory,
    left: Arc<AtomicU32>,
}

impl Disk for Names {
    fn names(&self) -> io::Result<Vec<String>> {
        self.memory.names()
    }

    fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        self.memory.read(name, limit)
    }

    fn write(&mut self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        self.memory.write(name, parts)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.memory.sync(name)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let left = self.left.load(Ordering::Relaxed);
        let less = left
            .checked_sub(1)
            .ok_or_else(|| io::Error::from(io::ErrorKind::StorageFull))?;
        self.left.store(less, Ordering::Relaxed);
        self.memory.rename(from, to)
    }

    fn sync_names(&mut self) -> io::Result<()> {
        self.memory.sync_names()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.memory.remove(name)
    }
}

#[derive(clap::Parser)]
struct Arguments {
    #[command(flatten)]
    run: RunArgs,
}

/// A daemon's world: an interface, a file, a bpffs, and a disk for revisions.
struct Machine {
    launch: Launch,
    store: Store,
    left: Arc<AtomicU32>,
    bpffs: Bpffs,
    directory: tempfile::TempDir,
    index: u32,
}

impl Machine {
    fn new() -> Self {
        let spec = VethSpec {
            name: "net1",
            peer_name: "peer",
            ..VethSpec::default()
        };
        let index = Netlink::connect()
            .and_then(|mut netlink| netlink.create_veth(&spec))
            .expect("an interface");
        let directory = tempfile::tempdir().expect("a directory");
        let bpffs = Bpffs::mount().expect("a bpffs");
        let disk = Names::default();
        let left = disk.left.clone();
        let (store, _) = Store::open(disk, 10).expect("a store");
        let words = [
            "run",
            "--config",
            &directory.path().join("firewall.yaml").display().to_string(),
            "--pins",
            &bpffs.path().join("bulkhead").display().to_string(),
        ]
        .map(str::to_owned);
        Self {
            launch: launch::resolve(&Arguments::parse_from(words).run, []).expect("a launch"),
            store,
            left,
            bpffs,
            directory,
            index,
        }
    }

    /// Starts with this as the file's zone, and so many names that the disk takes.
    fn start(&mut self, zone: &str, names: u32) -> Result<Started> {
        let document = format!(
            "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: {{ name: edge }}\nspec:\n  size: small\n  \
             interfaces: [{{ name: net1, zone: {zone} }}]\n  zones: [{{ name: {zone} }}]\n"
        );
        std::fs::write(self.directory.path().join("firewall.yaml"), document).expect("a file");
        self.left.store(names, Ordering::Relaxed);
        start(&self.launch, None, &mut self.store, "root", None)
    }

    /// Whether programs guard the interface.
    fn is_guarded(&self) -> bool {
        if has_tcx() {
            let links =
                bulkhead_dataplane::link::links_on(bulkhead_dataplane::link::Hook::Ingress, self.index);
            return !links.expect("an answer").is_empty();
        }
        let mut netlink = Netlink::connect().expect("a socket");
        let filter = netlink.filter(self.index, Direction::Ingress);
        filter.expect("an answer").is_some()
    }

    fn is_pinned(&self) -> bool {
        self.bpffs.path().join("bulkhead/edge").exists()
    }
}

fn machine(name: &str, test: impl FnOnce(Machine) + Send) {
    if !privileged() {
        return;
    }
    let namespace = Namespace::new(name).expect("a namespace");
    namespace.run(|| test(Machine::new()));
}

#[track_caller]
fn refused(outcome: Result<Started>) -> String {
    match outcome {
        Ok(_) => panic!("it started"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn netns_a_first_start_that_cannot_be_kept_leaves_nothing_but_the_rules() {
    machine("bhrev-p", |mut machine| {
        let error = refused(machine.start("web", 0));
        assert!(error.contains("could not be kept on the disk"), "{error}");
        assert!(!machine.is_guarded() && !machine.is_pinned());
        let rules = Netlink::connect().and_then(|mut netlink| netlink.blackhole_rules());
        assert_eq!(rules.expect("rules").len(), 2, "it fails closed");
        // With room on the disk it starts.
        let Started { engine, .. } = machine.start("web", 1).expect("it starts");
        assert!(machine.is_guarded() && machine.is_pinned());
        engine.stop();
    });
}

#[test]
fn netns_a_changed_file_that_cannot_be_kept_gives_way_to_the_last_revision() {
    machine("bhrev-q", |mut machine| {
        drop(machine.start("web", 1).expect("it starts"));
        assert!(machine.is_guarded(), "it goes on by its pins");
        let Started { engine, config, .. } = machine.start("other", 0).expect("the last revision");
        assert_eq!(engine.ruleset().zones[0].name, "web");
        assert_eq!(config.zones[0].name, "web");
        assert!(machine.is_guarded());
        drop(engine);
        assert!(machine.is_guarded() && machine.is_pinned());
    });
}

/// Neither the file nor, any more, the last revision: what no revision tells of must not stay in force.
#[test]
fn netns_a_start_that_cannot_go_back_either_ends_closed() {
    machine("bhrev-r", |mut machine| {
        drop(machine.start("web", 1).expect("it starts"));
        // The revision is of an interface that is gone; the file is of one that is there.
        let mut netlink = Netlink::connect().expect("a socket");
        // Kernels before 6.2 rename an interface only while it is down.
        netlink.set_down(machine.index).expect("down");
        netlink.set_name(machine.index, "net2").expect("another name");
        netlink.set_up(machine.index).expect("up");
        let file = machine.directory.path().join("firewall.yaml");
        machine.left.store(0, Ordering::Relaxed);
        let text = std::fs::read_to_string(&file).expect("the file");
        std::fs::write(&file, text.replace("net1", "net2")).expect("the file");
        let error = refused(start(&machine.launch, None, &mut machine.store, "root", None));
        assert!(error.contains("net1"), "the last revision's interface: {error}");
        assert!(!machine.is_guarded() && !machine.is_pinned());
    });
}
