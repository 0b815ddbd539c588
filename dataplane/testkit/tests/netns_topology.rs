//! Namespaces and topologies do what the tests above them rely on.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bulkhead_dataplane::netlink::ethtool::Offload;
use bulkhead_testkit::{
    Attachment, Client, HostSpec, KernelCounters, Namespace, Offloads, Outcome, TcpServer, Topology,
    privileged,
};

const BULK_BYTES: u64 = 8 * 1024 * 1024;

fn client(topology: &Topology) -> Client<'_> {
    topology.host("left").client().timeout(Duration::from_secs(5))
}

fn two_hosts(prefix: &str, change: impl Fn(HostSpec) -> HostSpec) -> Topology {
    Topology::builder(prefix)
        .host(change(HostSpec::new("left")))
        .host(change(HostSpec::new("right")))
        .kernel_forwarding(true)
        .build()
        .expect("a topology")
}

/// Bulk TCP both ways and both families through the firewall's kernel, content compared, no bad checksum.
fn bulk_passes(topology: &Topology) {
    let right = topology.host("right");
    let everyone = [
        topology.firewall(),
        &topology.host("left").namespace,
        &right.namespace,
    ];
    let before = everyone.map(|namespace| KernelCounters::snapshot(namespace).expect("counters"));
    for address in right.addresses() {
        let server = TcpServer::start(&right.namespace, (address, 0).into()).expect("a server");
        let outcome = client(topology)
            .tcp_transfer(server.address(), BULK_BYTES, BULK_BYTES)
            .expect("sockets");
        let (transfer, conversation) = outcome.answered().expect("an answer");
        assert_eq!(
            (transfer.uploaded_bytes, transfer.downloaded_bytes),
            (BULK_BYTES, BULK_BYTES)
        );
        assert_eq!(
            conversation.seen_as(),
            conversation.local(),
            "nothing translates here"
        );
        conversation.close().expect("closed");
    }
    for (namespace, before) in everyone.iter().zip(&before) {
        let errors = KernelCounters::snapshot(namespace)
            .expect("counters")
            .checksum_errors(before);
        assert!(errors.is_empty(), "{}: {errors:?}", namespace.name());
    }
}

#[test]
fn netns_kernel_forwards_over_veth_until_the_blackhole_rule_is_there() {
    if !privileged() {
        return;
    }
    let topology = two_hosts("bhk-fwd", |host| host);
    bulk_passes(&topology);
    let right = topology.host("right");
    let ping = |who: IpAddr, patience: u64| {
        client(&topology)
            .timeout(Duration::from_millis(patience))
            .ping(who)
            .expect("a socket")
    };
    for who in right.addresses() {
        assert!(ping(who, 2000).is_answered(), "{who}");
    }

    let mut netlink = topology.firewall().netlink().expect("netlink");
    let ingress = &topology.host("left").firewall_interface;
    netlink.ensure_blackhole_rule(ingress).expect("a rule");
    for who in right.addresses() {
        assert_eq!(ping(who, 300), Outcome::TimedOut, "{who} must be out of reach");
    }
    for own in topology.host("left").gateways() {
        assert!(ping(own, 2000).is_answered(), "{own}: local delivery goes on");
    }
    netlink.remove_blackhole_rule(ingress).expect("removed");
    for who in right.addresses() {
        assert!(ping(who, 2000).is_answered(), "{who}");
    }
}

#[test]
fn netns_without_forwarding_nothing_passes() {
    if !privileged() {
        return;
    }
    let topology = Topology::builder("bhk-off")
        .host(HostSpec::new("left"))
        .host(HostSpec::new("right"))
        .build()
        .expect("a topology");
    topology.resolve_neighbours().expect("neighbours");
    for who in topology.host("right").addresses() {
        let outcome = client(&topology)
            .timeout(Duration::from_millis(300))
            .ping(who)
            .expect("a socket");
        assert!(!outcome.is_answered(), "{who}: {}", outcome.describe());
    }
}

#[test]
fn netns_macvlan_siblings_talk() {
    if !privileged() {
        return;
    }
    bulk_passes(&two_hosts("bhk-mv", |host| host.attachment(Attachment::Macvlan)));
}

#[test]
fn netns_macvlan_over_veth_talks() {
    if !privileged() {
        return;
    }
    bulk_passes(&two_hosts("bhk-mvv", |host| {
        host.attachment(Attachment::MacvlanOverVeth)
    }));
}

#[test]
fn netns_jumbo_frames_without_offloads_pass() {
    if !privileged() {
        return;
    }
    let topology = two_hosts("bhk-raw", |host| host.offloads(Offloads::Off).mtu(9000));
    let host = topology.host("left");
    for (namespace, interface) in [
        (topology.firewall(), &host.firewall_interface),
        (&host.namespace, &host.interface),
    ] {
        let ethtool = namespace.ethtool().expect("ethtool");
        for offload in Offload::ALL {
            assert!(
                !ethtool.offload(interface, offload).expect("an answer"),
                "{offload} of {interface}"
            );
        }
    }
    bulk_passes(&topology);
}

#[test]
fn netns_internet_cannot_answer_untranslated_addresses() {
    if !privileged() {
        return;
    }
    let public: IpAddr = [198, 51, 100, 10].into();
    let topology = Topology::builder("bhk-inet")
        .host(HostSpec::new("left"))
        .host(HostSpec::new("internet").internet().further_address(public, 32))
        .kernel_forwarding(true)
        .build()
        .expect("a topology");
    let outcome = client(&topology)
        .timeout(Duration::from_millis(300))
        .ping(public)
        .expect("a socket");
    assert_eq!(outcome, Outcome::TimedOut, "the internet has no route back");
    let from_the_edge = Client::new(topology.firewall()).ping(public).expect("a socket");
    assert!(
        from_the_edge.is_answered(),
        "the firewall's default route leads there: {}",
        from_the_edge.describe()
    );
}

#[test]
fn netns_host_gro_is_switched_on_where_asked() {
    if !privileged() {
        return;
    }
    let topology = two_hosts("bhk-gro", HostSpec::host_gro);
    let host = topology.host("left");
    let ethtool = host.namespace.ethtool().expect("ethtool");
    assert!(ethtool.offload(&host.interface, Offload::Gro).expect("an answer"));
}

#[test]
fn netns_namespaces_go_away_also_after_a_panic() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::new("bhk-drop").expect("a namespace");
    let path = Path::new("/run/netns").join(namespace.name());
    assert!(path.exists());
    assert_eq!(
        namespace
            .sysctl("net.ipv6.conf.all.accept_dad")
            .expect("a sysctl"),
        "0"
    );
    let caught = catch_unwind(AssertUnwindSafe(|| namespace.run(|| -> u32 { panic!("inside") })));
    let message = caught.expect_err("the panic comes out");
    assert_eq!(message.downcast_ref::<&str>(), Some(&"inside"));
    assert_eq!(namespace.run(|| 42), 42, "and the namespace still works");
    let outside = namespace.run(|| std::fs::read_link("/proc/thread-self/ns/net").expect("a link"));
    assert_ne!(
        outside,
        std::fs::read_link("/proc/thread-self/ns/net").expect("a link")
    );

    let caught = catch_unwind(AssertUnwindSafe(move || {
        let _held = namespace;
        panic!("a test fails");
    }));
    assert!(caught.is_err());
    assert!(!path.exists(), "{} is left over", path.display());
}

#[test]
fn netns_sweep_removes_only_what_dead_processes_left() {
    if !privileged() {
        return;
    }
    let prefix = format!("bhk-sw{}", std::process::id());
    let alive = Namespace::new(&format!("{prefix}-a")).expect("a namespace");
    // Beyond pid_max, so no process ever had it.
    let name = format!("{prefix}-b-4194999-0");
    Namespace::named(name.clone()).expect("a namespace").keep();
    let mut orphan = Namespace::named(format!("{prefix}-named")).expect("a namespace");
    orphan.keep();
    let orphan_path = Path::new("/run/netns").join(orphan.name());
    drop(orphan);
    assert!(orphan_path.exists(), "kept");
    let removed = Namespace::sweep(&prefix).expect("swept");
    let name_of = |path: &Path| path.file_name().expect("a name").to_owned();
    let deleted = Command::new("ip")
        .args(["netns", "delete"])
        .arg(name_of(&orphan_path))
        .status();
    assert!(deleted.expect("ip").success(), "`ip netns` knows it too");
    assert_eq!(removed, [name]);
    assert_eq!(alive.run(|| 1), 1);
}
